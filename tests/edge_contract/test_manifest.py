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
