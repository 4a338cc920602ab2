# SPDX-License-Identifier: Apache-2.0
"""The embedded model: bundle folder in, answers out; and what it takes to import."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edge_agent
from edge_agent.runner.model import Description, Model
from edge_agent.runner.preprocess import apply_batch
from edge_agent.runner.tensors import dequantize
from edge_contract.errors import BundleError, DataError, ManifestError, RuntimeAdapterError
from edge_contract.preprocess import Preprocess
from tests.edge_agent.runner import bundles, tiny

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(params=["litert", "onnxruntime"])
def model(request, built):
    return Model.open(built, runtime=request.param)


def test_answer_is_the_same_alone_and_in_a_batch(model):
    raw = tiny.images(40)
    batch = model.infer_codes(apply_batch(bundles.PREPROCESS, raw))
    for i, one in enumerate(raw):
        answer = model.infer(one)
        assert {role: codes.tolist() for role, codes in answer.codes.items()} == {
            role: codes[i].tolist() for role, codes in batch.items()
        }


def test_answer_is_complete_and_consistent(model):
    answer = model.infer(tiny.images(1)[0])
    assert answer.logits.shape == (4,)
    assert answer.embedding.shape == (6,)
    assert (answer.logits == dequantize(model.artefact.output("logits"), answer.codes["logits"])).all()
    share = np.exp(answer.logits) / np.exp(answer.logits).sum()
    assert answer.cls == share.argmax()
    assert answer.confidence == pytest.approx(share.max(), rel=1e-6)
    assert answer.latency_us > 0
    assert model.labels[answer.cls] in bundles.LABELS


def test_both_runtimes_give_one_bundle_the_same_meaning(built):
    one, two = (Model.open(built, runtime=name) for name in ("litert", "onnxruntime"))
    assert one.bundle == two.bundle == bundles.manifest_of(built).bundle_id
    same = [one.infer(raw).cls == two.infer(raw).cls for raw in tiny.images(100)]
    assert np.mean(same) > 0.95  # logits may differ by one step where the mean has a tie


def test_no_inputs_give_no_outputs(model):
    found = model.infer_codes(np.zeros((0, 8, 8, 1), np.float32))
    assert {role: codes.shape for role, codes in found.items()} == {"logits": (0, 4), "embedding": (0, 6)}


def test_image_of_another_size_is_refused_and_the_next_one_answered(model):
    with pytest.raises(DataError, match=r"the artefact wants"):
        model.infer(np.zeros((9, 8), np.uint8))
    assert model.infer(np.zeros((8, 8), np.uint8)).logits.shape == (4,)


def test_mapped_and_read_only_images_are_fine(model, tmp_path):
    raw = tiny.images(3)
    np.save(tmp_path / "x.npy", raw)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert model.infer(mapped[1]).logits.tolist() == model.infer(raw[1]).logits.tolist()


def test_changed_artefact_is_refused_before_a_runtime_sees_it(bundle):
    data = bytearray((bundle / "model.tflite").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "model.tflite").write_bytes(data)
    with pytest.raises(BundleError, match=r"model.tflite: file changed: .* SHA-256 .*; download the bundle again"):
        Model.open(bundle, runtime="litert")
    assert Model.open(bundle, runtime="onnxruntime").bundle  # the other artefact is whole


def test_missing_artefact_manifest_and_runtime_are_refused(bundle, tmp_path):
    (bundle / "model.onnx").unlink()
    with pytest.raises(BundleError, match="No such file"):
        Model.open(bundle, runtime="onnxruntime")
    with pytest.raises(ManifestError, match="no artefact for runtime 'edgetpu'; it has litert, onnxruntime"):
        Model.open(bundle, runtime="edgetpu")
    with pytest.raises(BundleError, match=r"no readable manifest.json \(No such file or directory\); give a bundle's"):
        Model.open(tmp_path / "nothing", runtime="litert")


def test_other_number_of_labels_is_refused(tmp_path):
    artefact = tiny.write_tflite(tiny.make(2), tmp_path / "m.tflite")
    with pytest.raises(BundleError, match="4 logits and 3 labels"):
        Model.load(
            tmp_path / "m.tflite", Description(artefact, Preprocess(), "softmax", ("a", "b", "c")), runtime="litert"
        )


def test_float_model_that_gives_no_number_is_an_error_and_goes_on(tmp_path):
    artefact = tiny.write_logarithm(tmp_path / "log.onnx")
    description = Description(artefact, Preprocess(), "softmax", ("a", "b"))
    model = Model.load(tmp_path / "log.onnx", description, runtime="onnxruntime")
    with pytest.raises(RuntimeAdapterError, match=r"log.onnx in onnxruntime: the logits are not finite"):
        model.infer(np.array([[0, 5], [5, 5]], np.uint8))
    answer = model.infer(np.array([[4, 1], [5, 5]], np.uint8))
    np.testing.assert_allclose(answer.logits, [np.log(4), 0.0], rtol=1e-6)
    assert (answer.cls, answer.embedding) == (0, None)
    assert answer.confidence == pytest.approx(0.8)


def test_confidence_of_a_model_that_gives_probabilities_is_its_own(tmp_path):
    artefact = tiny.write_logarithm(tmp_path / "log.onnx")
    description = Description(artefact, Preprocess(scale=0.25), "none", ("a", "b"))
    model = Model.load(tmp_path / "log.onnx", description, runtime="onnxruntime")
    answer = model.infer(np.array([[4, 8], [0, 0]], np.uint8))
    assert (answer.cls, answer.confidence) == (1, pytest.approx(np.log(2)))


def modules_after(code, python=sys.executable):
    """Return the top-level names of the modules that a fresh interpreter has after some code."""
    tail = "\nimport json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([python, "-c", code + tail], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


WORKSTATION = {"torch", "onnx", "compress", "export", "flatbuffers", "typer", "rich"}


def test_importing_the_package_loads_no_numpy():
    assert not modules_after("import edge_agent, edge_agent.counters") & {"numpy", "typer"}


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_running_a_model_loads_one_runtime_and_nothing_of_the_workstation(runtime, built):
    code = f"""
import numpy, edge_agent, edge_agent.runner.process, edge_agent.runner.probe, edge_agent.runner.golden as golden
from pathlib import Path
model = edge_agent.Model.open(Path({str(built)!r}), runtime={runtime!r})
assert golden.check(model.file).is_ok
"""
    loaded = modules_after(code)
    packages = {"litert": "ai_edge_litert", "onnxruntime": "onnxruntime"}
    assert loaded & set(packages.values()) == {packages[runtime]}
    assert not loaded & WORKSTATION


def test_package_has_no_other_surprises():
    assert {"cls", "confidence"} < set(edge_agent.Inference.__slots__)
    assert "Model" in dir(edge_agent)
    with pytest.raises(AttributeError, match="no attribute 'Mode'"):
        _ = edge_agent.Mode


def test_description_outside_a_bundle_gets_the_file_s_digest(built):
    manifest = bundles.manifest_of(built)
    artefact = manifest.artefact_for("litert")
    description = Description(artefact, manifest.preprocess, "softmax", manifest.labels)
    model = Model.load(built / artefact.path, description, runtime="litert")
    assert model.description == replace(description, sha256=manifest.file(artefact.path).sha256)
