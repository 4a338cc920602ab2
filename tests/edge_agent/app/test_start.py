# SPDX-License-Identifier: Apache-2.0
"""Starting: what is imported, how much memory it takes, and what a wrong start says in one line."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_agent.cli import app
from edge_agent.config import AGENT_VERSION, load, skeleton
from edge_contract.errors import StropError, UsageError
from tests.support.agent_process import until

HOME = Path(__file__).resolve().parents[3]
_USED = "import edge_agent.app, edge_agent.__main__, encodings.idna"
FOREIGN = ("numpy", "typer", "rich", "tuf", "securesystemslib", "cryptography", "torch", "argparse", "asyncio")


def run_agent(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_agent", *words], cwd=HOME, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_control_process_imports_the_standard_library_and_paho_only() -> None:
    program = "import sys, edge_agent.app, edge_agent.__main__; print('\\n'.join(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", program], cwd=HOME, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in ended.stdout.split()}
    assert not loaded & set(FOREIGN)
    ours = {"edge_agent", "edge_contract", "paho"}
    assert {n for n in loaded if not n.startswith(("_", "__editable__"))} <= set(sys.stdlib_module_names) | ours


@pytest.mark.broker
def test_the_control_process_stays_below_30_mib(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device: without ``site``, whose editable install adds what no device has, and with the bytecode that
    pip makes when it installs; after windows, verdicts and batches.
    """
    packages = Path(metadata.distribution("paho-mqtt").locate_file(""))
    monkeypatch.setenv("PYTHONPATH", f"{HOME}{os.pathsep}{packages}")
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "bytecode"))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    subprocess.run([sys.executable, "-P", "-S", "-c", _USED], check=True)
    bench.broker.start()
    peer = bench.peer()
    agent = bench.agent("-S")
    until(lambda: len(peer.of("drift")) >= 3, "three windows")
    status = Path(f"/proc/{agent.child.pid}/status").read_text()
    rss_kb = int(status.split("VmRSS:")[1].split()[0])
    assert rss_kb <= 30 * 1024, f"{rss_kb} KiB"


def test_what_paho_does_not_need_here_stays_unloaded() -> None:
    program = (
        "from edge_agent.lean import postpone; postpone('urllib.request'); import sys, edge_agent.app; "
        "print('tempfile' in sys.modules); import urllib.request as r; print(r.getproxies.__name__[:10])"
    )
    ended = subprocess.run(
        [sys.executable, "-S", "-c", program], env=_bare(), capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == ["False", "getproxies"]


def _bare() -> dict[str, str]:
    packages = Path(metadata.distribution("paho-mqtt").locate_file(""))
    return {**os.environ, "PYTHONPATH": f"{HOME}{os.pathsep}{packages}"}


WRONG = {
    "no words": ([], 2, "error: --data is missing; usage: python -m edge_agent --data DIR"),
    "unknown word": (["--dota", "x"], 2, "error: unknown word '--dota'"),
    "no folder": (["--data", "/nonexistent"], 2, "there is no agent.toml; enrol this device: strop agent enrol"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_start_is_one_line_and_an_exit_code(name: str) -> None:
    words, code, text = WRONG[name]
    ended = run_agent(*words)
    assert ended.returncode == code
    assert text in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_second_agent_on_the_same_folder_is_refused_and_the_first_goes_on(bench) -> None:
    agent = bench.agent()
    until(lambda: "ready" in agent.log, "the first agent is ready")
    ended = run_agent("--data", str(bench.data))
    assert ended.returncode == 1
    assert ended.stderr == f"error: {bench.data}: another agent runs here; stop it first\n"
    assert agent.child.poll() is None


TOML = {
    "no toml": ("device = ", "cannot be read: Invalid value"),
    "unknown key": ('device = "pi"\ncolour = 1\n', "unknown key 'colour'; use one of device, tenant"),
    "unknown network key": ('device = "pi"\n[network]\nport = 1\n', "[network]: unknown key 'port'"),
    "bad name": ('device = "a/b"\n', "device = 'a/b' is no name"),
    "no device": ('tenant = "x"\n', "device = '' is no name"),
    "bad runtime": ('device = "pi"\nruntime = "torch"\n', "runtime = 'torch' is unknown; use one of onnxruntime"),
    "undeclared source": ('device = "pi"\n[settings]\nsource = "mic"\n', "[settings]: source: 'mic' is not declared"),
    "source without kind": ('device = "pi"\n[sources.a]\npath = "x"\n', "source 'a' has no kind"),
    "small outbox": ('device = "pi"\n[settings]\noutbox_bytes = 5\n', "outbox_bytes = 5 is not a whole number from"),
    "text for number": ('device = "pi"\n[network]\nreconnect_max_s = "x"\n', "reconnect_max_s = 'x' is not a whole"),
    "no table": ('device = "pi"\nsettings = 3\n', "'settings' is not a table; write [settings]"),
}


@pytest.mark.parametrize("name", TOML)
def test_a_faulty_agent_toml_names_key_and_fix(tmp_path: Path, name: str) -> None:
    text, message = TOML[name]
    (tmp_path / "agent.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        load(tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path / "agent.toml") in str(caught.value)


def test_the_skeleton_is_a_whole_configuration_and_endpoints_fill_the_rest(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(skeleton("pi-01", "onnxruntime", "digits", "/usr/bin/python3"))
    (tmp_path / "identity").mkdir()
    endpoints = {"tenant": "acme", "broker": {"host": "fleet", "port": 8883}, "device_url": "https://fleet:8443/"}
    (tmp_path / "identity" / "endpoints.json").write_text(json.dumps(endpoints))
    config = load(tmp_path)
    assert (config.device, config.runtime, config.model) == ("pi-01", "onnxruntime", "digits")
    assert (config.tenant, config.broker, config.device_url) == ("acme", "fleet:8883", "https://fleet:8443")
    (tmp_path / "agent.toml").write_text('device = "pi"\n[network]\nbroker = "relay:1"\n')
    assert load(tmp_path).broker == "relay:1", "agent.toml wins"


def test_the_agent_says_the_version_of_the_package() -> None:
    assert metadata.version("strop") == AGENT_VERSION


def call(*words: str) -> str:
    ended = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def test_status_reads_the_folder_of_a_running_agent(bench) -> None:
    agent = bench.agent()
    until(lambda: "loaded" in agent.log, "the model is loaded")
    until(lambda: json.loads(call("status", "--data", str(bench.data), "--json"))["inferences"], "answers are counted")
    found = json.loads(call("status", "--data", str(bench.data), "--json"))
    assert found["is_running"] is True
    assert found["slots"]["active"] == {"bundle": bench.bundle, "version": "1.0.0"}
    assert agent.stop() == 0
    assert "stopped" in call("status", "--data", str(bench.data))
    assert "ready" in call("logs", "--data", str(bench.data))


def test_predict_answers_a_file_once(bench) -> None:
    answers = json.loads(call("predict", str(bench.images), "--data", str(bench.data), "--json"))
    assert len(answers) == 100
    assert answers[3]["index"] == 3
    assert answers[3]["label"] in ("north", "east", "south", "west")
    assert 0 < answers[3]["confidence"] <= 1


PREDICT = {
    "neither": ([], "name either --data or --bundle"),
    "no model": (["--data", "{empty}"], "there is no active model"),
    "no array": (["--data", "{data}"], "not an .npy file of numbers; save it with numpy.save"),
}


@pytest.mark.parametrize("name", PREDICT)
def test_predict_refuses_in_one_line(bench, tmp_path: Path, name: str) -> None:
    words, message = PREDICT[name]
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "agent.toml").write_text('device = "pi"\n')
    file = tmp_path / "x.npy"
    file.write_text("no array")
    words = [word.format(data=bench.data, empty=empty) for word in words]
    with pytest.raises(StropError, match=message):
        CliRunner().invoke(app, ["predict", str(file), *words], catch_exceptions=False)


def test_doctor_names_what_is_missing_and_the_line_that_mends_it(bench) -> None:
    ended = CliRunner().invoke(app, ["doctor", "--data", str(bench.data), "--json"])
    found = {one["name"]: one for one in json.loads(ended.stdout)}
    assert ended.exit_code == 1
    assert found["runner"]["is_ok"]
    assert not found["server"]["is_ok"]
    assert found["server"]["fix"] == "strop agent enrol"
    assert "identity" not in found, "without TLS none is needed"
    (bench.data / "agent.toml").write_text('device = "pi"\nrunner_python = "/no/python"\n')
    ended = CliRunner().invoke(app, ["doctor", "--data", str(bench.data)])
    assert "missing runner: /no/python is not a program; set runner_python in agent.toml" in ended.stdout
    assert "missing identity: device.key is missing; strop agent enrol" in ended.stdout


def test_enrol_without_a_token_changes_nothing(tmp_path: Path) -> None:
    words = ["enrol", "--data", str(tmp_path / "d"), "--server", "https://x:1", "--device", "pi"]
    with pytest.raises(UsageError, match="the token cannot be read"):
        CliRunner().invoke(app, [*words, "--token-file", str(tmp_path / "none")], catch_exceptions=False)
    assert not (tmp_path / "d").exists()
