# SPDX-License-Identifier: Apache-2.0
"""The manifest: its id covers every byte, and newer fields pass through older hands."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract import canonical
from edge_contract.errors import ManifestError
from edge_contract.manifest import BundleFile, Manifest

VALID = Path(__file__).parents[1] / "vectors/valid/manifest"


@pytest.fixture
def manifest():
    return Manifest.from_bytes((VALID / "two-artefacts.json").read_bytes())


def document():
    return json.loads((VALID / "two-artefacts.json").read_bytes())


def objects(value, path=()):
    """Every JSON object in a document, by its path."""
    if isinstance(value, dict):
        yield path
        for key, inner in value.items():
            yield from objects(inner, (*path, key))
    if isinstance(value, list):
        for i, inner in enumerate(value):
            yield from objects(inner, (*path, i))


CLOSED = {"preprocess", "profiles"}  # a step or a path that a reader does not know would change the meaning
OPEN = [path for path in objects(document()) if not CLOSED & set(path)]


@pytest.mark.parametrize("path", OPEN, ids=lambda path: ".".join(map(str, path)) or "top")
def test_an_unknown_field_at_any_depth_survives_and_keeps_the_bundle_id(path):
    newer = document()
    place = newer
    for step in path:
        place = place[step]
    place["from_the_future"] = {"x": [1, None]}
    data = canonical.dumps(newer)
    found = Manifest.from_bytes(data)
    assert found.to_bytes() == data
    assert found.bundle_id == canonical.digest(data)


def test_the_id_is_the_digest_of_the_file_on_disk(manifest):
    data = (VALID / "two-artefacts.json").read_bytes()
    assert manifest.bundle_id == canonical.digest(data)


@given(st.sampled_from(["model", "version", "golden", "postprocess"]), st.integers(0, 3))
def test_any_change_changes_the_id(field, file):
    base = Manifest.from_bytes((VALID / "two-artefacts.json").read_bytes())
    changed = replace(base, **{field: getattr(base, field) + "x"})
    grown = replace(base, files=(*base.files[:file], replace(base.files[file], size=11), *base.files[file + 1 :]))
    assert len({base.bundle_id, changed.bundle_id, grown.bundle_id}) == 3


def test_a_runtime_finds_its_artefact(manifest):
    assert manifest.artefact_for("onnxruntime").path == "model.onnx"
    assert manifest.artefact_for("litert") is manifest.artefact_for("tflite-runtime")
    with pytest.raises(ManifestError, match=r"no artefact for runtime 'edgetpu'; it has litert, onnxruntime, tflite-r"):
        manifest.artefact_for("edgetpu")


def test_outputs_are_found_by_role(manifest):
    tflite, onnx = manifest.artefact_for("litert"), manifest.artefact_for("onnxruntime")
    assert tflite.output("embedding").shape == (1, 16)
    assert onnx.output("embedding") is None


def test_the_two_files_hold_the_same_logits_shifted_by_128(manifest):
    signed, unsigned = (manifest.artefact_for(r).output("logits") for r in ("litert", "onnxruntime"))
    assert signed.scale == unsigned.scale
    assert signed.zero_point + 128 == unsigned.zero_point


def test_a_file_is_found_by_its_path(manifest):
    assert manifest.file("golden.json").size == 10
    with pytest.raises(ManifestError, match=r"the bundle has no file 'lost\.bin'"):
        manifest.file("lost.bin")


def test_a_manifest_is_bounded():
    with pytest.raises(ManifestError, match="300000 bytes, more than 262144"):
        Manifest.from_bytes(b" " * 300_000)


names = st.text("ab./\\~\0-", min_size=1, max_size=12)


@given(names)
def test_no_path_leaves_the_bundle(path):
    """What is accepted stays below the folder and is spelled in the one way that a file system gives back."""
    try:
        entry = BundleFile.from_json({"path": path, "size": 1, "sha256": "0" * 64}, "file")
    except ManifestError:
        return
    root = Path("/bundle")
    target = root / entry.path
    assert target.relative_to(root).as_posix() == path
    assert not {"..", ".", "", "manifest.json"} & set(path.split("/"))
    assert not set(path) & {"\\", "\0"}


@given(st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda x: st.lists(x, max_size=3), max_leaves=5))
def test_a_field_of_any_wrong_kind_is_a_manifest_error(value):
    for key in document():
        try:
            Manifest.from_json({**document(), key: value})
        except ManifestError as error:
            assert "manifest" in str(error)


def test_an_artefact_of_the_device_s_own_target_comes_first(manifest):
    own = replace(manifest.artefacts[1], path="own.tflite", target="rpi5")
    grown = replace(manifest, artefacts=(*manifest.artefacts, own))
    assert grown.artefact_for("litert", "rpi5").path == "own.tflite"
    assert grown.artefact_for("litert", "rpi4").path == "model.tflite"
    assert grown.artefact_for("litert", "rpi3").path == grown.artefact_for("litert").path == "model.tflite"
    with pytest.raises(ManifestError, match="no artefact for runtime 'edgetpu'"):
        grown.artefact_for("edgetpu", "rpi5")


@pytest.mark.parametrize("name", ["detection", "audio", "series"])
def test_other_tasks_and_inputs_keep_their_id(name):
    data = (VALID / f"{name}.json").read_bytes()
    assert Manifest.from_bytes(data).bundle_id == canonical.digest(data)


def test_a_word_and_an_object_of_the_same_meaning_stay_apart():
    """The id covers the bytes, so a description is written back as it was spelled."""
    for spelled in ("softmax", {"scores": "softmax"}):
        data = canonical.dumps({**document(), "postprocess": spelled})
        assert Manifest.from_bytes(data).to_bytes() == data


@pytest.mark.parametrize(
    ("task", "role", "words"),
    [
        ("classification", "output", "outputs: no output has the role 'logits'"),
        ("detection", "logits", "outputs: no output has the role 'boxes'"),
    ],
)
def test_a_task_needs_its_roles(task, role, words):
    changed = {**document(), "task": task}
    for artefact in changed["artefacts"]:
        artefact["outputs"][0]["role"] = role
    with pytest.raises(ManifestError, match=words):
        Manifest.from_json(changed)


@pytest.mark.parametrize("task", ["regression", "other"])
def test_other_tasks_take_any_outputs(task):
    changed = {**document(), "task": task, "labels": [], "postprocess": "none"}
    changed["artefacts"][1]["outputs"][0]["role"] = "output"
    changed["artefacts"][1]["outputs"][1].update(role="output", dtype="int64", scale=0.0)
    found = Manifest.from_json(changed)
    assert list(found.artefacts[0].keyed()) == ["logits"]
    assert list(found.artefacts[1].keyed()) == ["logits", "embedding"]  # their names: both have the role 'output'


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"role": "logits"}, "two outputs have the role 'logits'"),
        ({"name": "logits"}, "outputs logits, logits; give each output once"),
        ({"dtype": "float64"}, "unknown value 'float64'"),
    ],
)
def test_outputs_that_cannot_be_told_apart_are_refused(change, words):
    changed = document()
    changed["artefacts"][1]["outputs"][1].update(change)
    with pytest.raises(ManifestError, match=words):
        Manifest.from_json(changed)


def test_an_input_of_indices_is_refused():
    changed = document()
    changed["artefacts"][0]["input"]["dtype"] = "int64"
    with pytest.raises(ManifestError, match=r"input\.dtype: an input of int64; use one of int8, uint8, float32, int16"):
        Manifest.from_json(changed)


def test_background_is_no_label():
    changed = json.loads((VALID / "detection.json").read_bytes())
    changed["postprocess"]["background"] = True
    with pytest.raises(ManifestError, match=r"labels: 1 labels for 0 scores"):
        Manifest.from_json(changed)
    changed["artefacts"][0]["outputs"][1]["shape"] = [1, 896, 2]
    assert Manifest.from_json(changed).labels == ("face",)
