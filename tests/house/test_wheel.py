# SPDX-License-Identifier: Apache-2.0
"""The wheel in clean environments: what a user gets, and nothing of ours that he did not ask for."""

import json
import zipfile

import pytest

from strop.cli import GROUPS

pytestmark = pytest.mark.slow


def test_the_wheel_holds_the_packages_and_their_data_and_no_tests(wheel, root):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if not name.startswith("strop-")}
    assert tops == {"strop", "edge_contract", "compress", "export", "edge_agent", "fleet", "benchmarks"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    data = list((root / "edge_contract/targets").glob("*.toml"))
    data += [path for folder in ("templates", "static") for path in (root / "fleet/web" / folder).glob("*.*")]
    data += (root / "fleet/adapters/migrations").glob("*.sql")
    missing = [path.name for path in data if str(path.relative_to(root)) not in names]
    assert len(data) >= 8
    assert missing == []


def test_a_bare_install_knows_its_version_and_its_help(clean_venv, run):
    strop = clean_venv / "bin/strop"
    assert run(strop, "--version").stdout == "strop 0.1.0\n"
    helped = run(strop, "--help")
    assert helped.returncode == 0
    assert all(group in helped.stdout for group in GROUPS)


def test_a_bare_install_has_typer_and_none_of_the_heavy_packages(clean_venv, run):
    code = "import importlib.metadata as m, json; print(json.dumps([d.name.lower() for d in m.distributions()]))"
    found = set(json.loads(run(clean_venv / "bin/python", "-c", code).stdout))
    assert {"typer", "strop"} <= found
    assert not found & {"numpy", "torch", "onnx", "fastapi", "paho-mqtt", "tuf", "cryptography"}


@pytest.mark.parametrize(
    ("words", "extras"),
    [
        ("compress report student", "workstation"),
        ("export onnx student --out model.onnx", "workstation"),
        ("fleet device list --data server", "fleet"),
    ],
)
def test_a_verb_without_its_extra_answers_with_the_line_that_installs_it(clean_venv, run, words, extras, tmp_path):
    done = run(clean_venv / "bin/strop", *words.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: 'strop {words.split()[0]}' needs the package '")
    assert done.stderr.endswith(f"which is not installed; run: pip install 'strop[{extras}]'\n")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_sees_a_healthy_bare_install_and_the_way_to_a_role(clean_venv, run):
    assert run(clean_venv / "bin/strop", "doctor").returncode == 0
    done = run(clean_venv / "bin/strop", "doctor", "--role", "agent", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["healthy"]) == (1, False)
    assert document["install"] == ["pip install 'strop[agent]'"]


def test_a_comparison_needs_no_more_than_the_bare_install(clean_venv, run):
    done = run(clean_venv / "bin/strop", "bench", "compare", "true", "true", "--pairs", "1", "--warmup", "0")
    assert done.returncode == 0, done.stderr
    assert "1 pairs in turns" in done.stdout


def test_the_agent_extra_alone_runs_the_agent(agent_venv, run, tmp_path):
    python = agent_venv / "bin/python"
    helped = run(python, "-m", "edge_agent", "--help", cwd=tmp_path)
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "--data" in helped.stdout
    refused = run(python, "-m", "edge_agent", "--data", tmp_path / "nothing", cwd=tmp_path)
    assert refused.returncode in (1, 2)
    assert len(refused.stderr.splitlines()) == 1


def test_the_agent_extra_brings_no_runtime_and_no_torch(agent_venv, run):
    code = "import importlib.metadata as m, json; print(json.dumps([d.name.lower() for d in m.distributions()]))"
    found = set(json.loads(run(agent_venv / "bin/python", "-c", code).stdout))
    assert {"paho-mqtt", "tuf", "cryptography"} <= found
    assert not found & {"numpy", "torch", "onnx", "onnxruntime", "ai-edge-litert", "fastapi"}


def test_the_agent_commands_and_the_doctor_work_on_a_device(agent_venv, run):
    helped = run(agent_venv / "bin/strop", "agent", "--help")
    assert helped.returncode == 0, helped.stderr
    assert "enrol" in helped.stdout
    report = json.loads(run(agent_venv / "bin/strop", "doctor", "--json").stdout)
    states = {role["name"]: role["state"] for role in report["roles"]}
    assert (states["agent"], states["fleet"], states["workstation"]) == ("ready", "absent", "absent")
