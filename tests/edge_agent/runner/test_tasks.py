# SPDX-License-Identifier: Apache-2.0
"""Models that are no classifiers, end to end: other people's files, bundles around them, engine and telemetry."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from typer.testing import CliRunner

import edge_agent
from edge_agent.cli import app
from edge_agent.counters import CounterFile
from edge_agent.one_shot import answers
from edge_agent.runner import golden
from edge_agent.runner.commands import Load, UseSource
from edge_agent.runner.model import Description, Model
from edge_agent.runner.tensors import dequantize
from edge_contract.boxes import AnchorLayer, Anchors
from edge_contract.errors import BundleError, UsageError
from edge_contract.manifest import MANIFEST_NAME
from edge_contract.postprocess import Postprocess
from edge_contract.preprocess import Preprocess
from tests.edge_agent.runner import bundles, faces, tiny
from tests.edge_agent.runner.bench import Bench

ROOT = Path(__file__).resolve().parents[3]
EYES = [[0.40, 0.20], [0.48, 0.21]]
"""Where the astronaut's eyes are, as shares of the picture, read off by eye."""


@pytest.fixture(scope="module")
def face():
    return faces.face_model()


@pytest.fixture(scope="module")
def astronaut():
    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def face_bundle(tmp_path_factory, face, astronaut):
    path, _ = faces.face_file()
    raw = np.stack([astronaut[::2, ::2], skimage.data.coffee()[:256, 100:356]])
    return faces.bundle(tmp_path_factory.mktemp("faces") / "v1", face, path, raw)


def test_the_astronaut_s_face_is_found(face, astronaut):
    found = face.predict(astronaut)
    assert isinstance(found, edge_agent.Detections)
    assert (len(found.boxes), found.cls, face.labels[found.cls]) == (1, 0, "face")
    assert found.confidence == pytest.approx(0.92, abs=0.02)
    left, top, right, bottom = found.boxes[0]
    assert 0.3 < left < 0.4 < 0.5 < right < 0.6
    assert 0.1 < top < 0.2 < 0.3 < bottom < 0.4
    np.testing.assert_allclose(found.keypoints[0, :2], EYES, atol=0.02)


def test_no_face_is_found_in_a_cup_of_coffee(face):
    found = face.predict(skimage.data.coffee())
    assert (len(found.boxes), found.cls, found.confidence) == (0, -1, 0.0)


def test_a_face_in_a_wide_picture_comes_back_where_it_is(face, astronaut):
    """The letterbox shrinks the picture by another factor; the box must still be that of the raw picture."""
    wide = np.zeros((512, 700, 3), np.uint8)
    wide[:, 150:662] = astronaut
    found, alone = face.predict(wide), face.predict(astronaut)
    moved = (alone.boxes * [512, 1, 512, 1] + [150, 0, 150, 0]) / [700, 1, 700, 1]
    np.testing.assert_allclose(found.boxes, moved, atol=0.03)


def test_a_wrong_normalisation_loses_the_face(astronaut):
    path, description = faces.face_file()
    wrong = replace(description, preprocess=Preprocess("rgb", (128, 128), fit="letterbox"))
    assert not len(Model.load(path, wrong, runtime="litert").predict(astronaut).boxes)


def test_a_detector_is_no_classifier(face, astronaut):
    with pytest.raises(UsageError, match="a model for detection gives no class; use predict"):
        face.infer(astronaut)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"anchors": Anchors((AnchorLayer(8, (faces.ONE,)),))}, "256 anchors for 896 boxes"),
        ({"keypoints": 7}, r"boxes of shape \[1, 896, 16\], not \[1, N, 18 or more\]"),
    ],
)
def test_anchors_that_do_not_fit_are_refused_when_the_model_is_opened(changes, words):
    path, description = faces.face_file()
    post = replace(faces.POSTPROCESS, boxes=replace(faces.POSTPROCESS.boxes, **changes))
    with pytest.raises(BundleError, match=words):
        Model.load(path, replace(description, postprocess=post), runtime="litert")


def test_a_detector_s_bundle_proves_itself(face_bundle, tmp_path):
    model = Model.open(face_bundle, runtime="litert", target="rpi4")
    assert (model.task, model.dimensions) == ("detection", {"boxes": 896 * 16, "scores": 896})
    assert golden.check(model).is_ok
    spoilt = Path(shutil.copytree(face_bundle, tmp_path / "spoilt"))
    reference = np.load(spoilt / "golden/logits.npy")
    reference[0, 0] += 1000
    np.save(spoilt / "golden/logits.npy", reference)
    manifest = replace(bundles.manifest_of(spoilt), files=bundles.files(spoilt))
    (spoilt / MANIFEST_NAME).write_bytes(manifest.to_bytes())
    found = golden.check(Model.open(spoilt, runtime="litert"))
    assert (found.is_ok, found.how) == (False, "tolerance")


def test_the_engine_reports_boxes_and_counts_without_classes(face_bundle, tmp_path, astronaut):
    """Rows hold the best box's class, or -1; the class channels stand still, errors and times are counted."""
    bench = Bench(tmp_path)
    np.save(tmp_path / "belt.npy", np.stack([astronaut[::2, ::2], np.zeros((256, 256, 3), np.uint8)]))
    source = UseSource("belt", {"kind": "replay", "path": str(tmp_path / "belt.npy"), "rate_hz": 20, "loop": True})
    bench.tell(Load("active", face_bundle), Load("shadow", face_bundle), source)
    assert [event["event"] for event in bench.events[:2]] == ["loaded", "loaded"]
    bench.run(1.0)
    bench.engine.close()
    assert not bench.of("error")
    assert {(ref, cls) for ref, cls, _ in bench.rows()} == {("belt:0", 0), ("belt:1", -1)}
    counters = CounterFile(bench.counters).read().counters
    counters.check()
    assert (counters.n_infer, counters.n_err, counters.slots) == (len(bench.rows()), 0, 1)
    assert sum(counters.latency) == sum(counters.brightness) == counters.n_infer
    shadow = bench.of("shadow")[-1]
    assert (shadow["agree"], shadow["errors"]) == (shadow["n"], 0)


def test_a_tone_is_heard_as_its_note():
    """A4, 440 Hz, is MIDI 69; the note map begins at MIDI 21."""
    model = faces.pitch_model()
    tone = np.sin(2 * np.pi * 440 * np.arange(43844) / 22050) * 0.5
    for raw in (tone, (tone * 32767).astype(np.int16)):
        notes = model.predict(raw).values["StatefulPartitionedCall:1"]
        assert notes.shape == (172, 88)
        assert notes.mean(axis=0).argmax() + 21 == 69


@pytest.fixture
def brightness(tmp_path):
    """A bundle for regression: the mean of four pixels in int8, which needs no third-party file."""
    artefact = tiny.write_mean(tmp_path / "mean.onnx")
    description = Description(artefact, Preprocess(scale=1 / 255), "none", (), task="regression")
    model = Model.load(tmp_path / "mean.onnx", description, runtime="onnxruntime")
    raw = np.array([[[0, 255], [51, 0]], [[255, 255], [255, 255]]], np.uint8)
    return faces.bundle(tmp_path / "bundle", model, tmp_path / "mean.onnx", raw)


def test_a_regression_gives_real_numbers(brightness):
    model = Model.open(brightness, runtime="onnxruntime")
    answer = model.predict(np.array([[0, 255], [51, 0]], np.uint8))
    assert isinstance(answer, edge_agent.Values)
    assert answer.values["output"] == pytest.approx(0.3, abs=1 / 255)
    assert answer.codes["output"].dtype == np.uint8
    assert (dequantize(model.keys["output"], answer.codes["output"]) == answer.values["output"]).all()


def test_the_command_line_and_the_probe_answer_for_every_task(brightness, tmp_path):
    np.save(tmp_path / "raw.npy", np.array([[[0, 255], [51, 0]]], np.uint8))
    (found,) = answers(tmp_path / "raw.npy", data=None, bundle=brightness, runtime="onnxruntime")
    assert found["values"]["output"] == pytest.approx([0.3], abs=1 / 255)
    command = [sys.executable, "-m", "edge_agent.runner.probe", brightness, "--runtime", "onnxruntime"]
    given = ["--inputs", tmp_path / "raw.npy", "--outputs", tmp_path / "out.npz"]
    done = subprocess.run([*command, *given], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n"] == 1
    with np.load(tmp_path / "out.npz") as written:
        assert list(written) == ["output"]


def test_a_classifier_below_its_threshold_is_unsure(built):
    manifest = bundles.manifest_of(built)
    artefact = manifest.artefact_for("litert")
    raw = tiny.images(60, seed=3)
    plain = [Model.open(built, runtime="litert").infer(one) for one in raw]
    middle = float(np.median([answer.confidence for answer in plain]))
    post = Postprocess("softmax", middle)
    description = Description(artefact, manifest.preprocess, post, manifest.labels)
    model = Model.load(built / artefact.path, description, runtime="litert")
    found = [model.infer(one) for one in raw]
    assert [answer.is_sure for answer in found] == [answer.confidence >= middle for answer in plain]
    assert {answer.is_sure for answer in found} == {True, False}
    assert [answer.cls for answer in found] == [answer.cls for answer in plain]
    assert all(answer.is_sure for answer in plain)


def test_predict_prints_boxes_where_there_is_no_label(face_bundle, astronaut, tmp_path):
    np.save(tmp_path / "photo.npy", astronaut)
    done = CliRunner().invoke(app, ["predict", str(tmp_path / "photo.npy"), "--bundle", str(face_bundle)])
    assert done.exit_code == 0, done.output
    line = r'0: \{"boxes": \[\{"class": 0, "label": "face", "score": 0\.\d+, .*\}\]\} \(\d+ µs\)\n'
    assert re.fullmatch(line, done.stdout)
