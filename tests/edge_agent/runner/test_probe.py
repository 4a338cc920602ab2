# SPDX-License-Identifier: Apache-2.0
"""The probe: another Python, another runtime, the same integers in a file."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_agent.runner.model import Model
from edge_agent.runner.preprocess import apply_batch
from tests.edge_agent.runner import bundles, tiny

ROOT = Path(__file__).resolve().parents[3]


def probe(*arguments, python=sys.executable):
    command = [python, "-m", "edge_agent.runner.probe", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.fixture
def saved(tmp_path):
    """(raw, model inputs) as .npy files."""
    raw = tiny.images(40)
    np.save(tmp_path / "raw.npy", raw)
    np.save(tmp_path / "x.npy", apply_batch(bundles.PREPROCESS, raw))
    return tmp_path / "raw.npy", tmp_path / "x.npy"


def test_bundle_and_lone_artefact_give_the_model_s_integers(built, saved, tmp_path):
    raw, inputs = saved
    manifest = bundles.manifest_of(built)
    lone = tmp_path / "artefact.json"
    artefact = manifest.artefact_for("onnxruntime")
    (tmp_path / artefact.path).write_bytes((built / artefact.path).read_bytes())
    lone.write_text(json.dumps(artefact.to_json()))
    expected = Model.open(built, runtime="onnxruntime").infer_raw_codes(np.load(raw))
    for i, (what, given) in enumerate([(built, raw), (built, inputs), (lone, inputs)]):
        out = tmp_path / f"out{i}.npz"
        done = probe(what, "--runtime", "onnxruntime", "--inputs", given, "--outputs", out)
        assert done.returncode == 0, done.stderr
        facts = json.loads(done.stdout)
        assert (facts["runtime"], facts["delegate"], facts["n"]) == ("onnxruntime", "cpu", 40)
        with np.load(out) as found:
            assert {role: found[role].tolist() for role in found} == {r: c.tolist() for r, c in expected.items()}


def test_old_runtime_in_its_own_environment_gives_the_plan_s_integers(built, saved, tmp_path, legacy):
    raw, _ = saved
    out = tmp_path / "out.npz"
    done = probe(built, "--runtime", "tflite-runtime", "--inputs", raw, "--outputs", out, python=legacy)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    # It says "Created TensorFlow Lite XNNPACK delegate" on stderr, and runs int8 in its own kernels all the same.
    assert (facts["runtime"], facts["version"], facts["delegate"]) == ("tflite-runtime", "2.14.0", "builtin")
    assert facts["numpy"].startswith("1.")
    net = tiny.make(2)
    expected = np.array([tiny.reference(net, one)[0] for one in np.load(raw)], int)
    with np.load(out) as found:
        assert np.abs(found["logits"] - expected).max() <= 1
        assert (found["logits"] != expected).mean() < 0.05


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"--runtime": "abacus"}, 2, "invalid choice: 'abacus'"),
        ({"--runtime": "tflite-runtime"}, 1, r"pip install 'strop[agent-tflite]'"),
        ({"--runtime": "edgetpu"}, 1, "no artefact for runtime 'edgetpu'"),
        ({"--inputs": "none.npy"}, 1, "none.npy: not an .npy array"),
        ({"model": "none"}, 2, "none: cannot be read (No such file or directory)"),
        ({"--inputs": __file__}, 1, "not an .npy array"),
    ],
)
def test_wrong_usage_is_one_line_and_its_exit_code(built, saved, tmp_path, change, code, words):
    options = {"--runtime": "litert", "--inputs": saved[0], "--outputs": tmp_path / "o.npz", **change}
    model = options.pop("model", built)
    done = probe(model, *(part for pair in options.items() for part in pair))
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "o.npz").exists()


def test_raw_inputs_need_a_bundle(built, saved, tmp_path):
    artefact = bundles.manifest_of(built).artefact_for("litert")
    (tmp_path / artefact.path).write_bytes((built / artefact.path).read_bytes())
    (tmp_path / "a.json").write_text(json.dumps(artefact.to_json()))
    done = probe(tmp_path / "a.json", "--runtime", "litert", "--inputs", saved[0], "--outputs", tmp_path / "o.npz")
    assert (done.returncode, "inputs of type uint8" in done.stderr) == (2, True)


def test_help_names_every_option():
    done = probe("--help")
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("--runtime", "--inputs", "--outputs", "--threads"))
