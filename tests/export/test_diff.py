# SPDX-License-Identifier: Apache-2.0
"""What ``diff`` says of two bundles and two model files is what was changed, to the number."""

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge_contract import canonical
from edge_contract.errors import BundleError, ModelError, StropError, UsageError
from edge_contract.manifest import MANIFEST_NAME
from export import tables
from export.bundle import artefacts, builder
from export.bundle.artefacts import Request
from export.diff.comparison import compare
from tests.zoo import third_party


def write(plan, folder, target="rpi4:tflite"):
    folder.mkdir(parents=True, exist_ok=True)
    return folder / artefacts.write_all(plan, folder, [Request.parse(target)])[0].path


def with_codes(plan, name, change):
    """A plan with other integers in one constant."""
    codes = plan.constants[name].codes.copy()
    change(codes)
    return replace(plan, constants={**plan.constants, name: replace(plan.constants[name], codes=codes)})


def with_scale(plan, name, factor):
    """A plan with another scale of one activation."""
    changed = replace(plan.activations[name], scale=plan.activations[name].scale * factor)
    return replace(plan, activations={**plan.activations, name: changed})


def flip(count):
    def change(codes):
        codes.reshape(-1)[:count] ^= 1

    return change


@pytest.fixture
def plan(compressed):
    return compressed.plan


@pytest.fixture(params=["rpi4:tflite", "generic-x86:onnx"])
def target(request):
    return request.param


def test_a_file_is_equal_to_itself(plan, target, tmp_path):
    path = write(plan, tmp_path, target)
    found = compare(path, path)
    assert found.is_same
    assert found.constants > 10
    assert "the same operators, tensors, numbers and scales" in tables.file_diff_parts(found)


def test_three_changed_weights_are_counted_in_their_layer(plan, target, tmp_path):
    name = plan.operations[-1].weight
    other = with_codes(plan, name, flip(3))
    found = compare(write(plan, tmp_path / "a", target), write(other, tmp_path / "b", target))
    assert (found.operators, found.scales, dict(found.tensors)) == ((), (), {})
    (change,) = found.changed
    size = plan.constants[name].codes.size
    assert (change.kind, change.values, change.differing) == ("values", size, 3)
    assert change.differing_bytes == pytest.approx(3 / size)
    assert change.at.startswith(("FULLY_CONNECTED", "Gemm", "com.microsoft.QGemm"))


def test_the_largest_relative_change_of_a_scale_is_told(plan, tmp_path):
    first = plan.operations[0].output
    other = with_scale(plan, first, 1.25)
    found = compare(write(plan, tmp_path / "a"), write(other, tmp_path / "b"))
    moved = {change.at: change.relative for change in found.scales}
    assert max(moved.values()) == pytest.approx(0.25, rel=1e-5)
    assert max(moved, key=moved.get).startswith("CONV_2D")
    rows = tables.file_diff_parts(found)
    assert any("25 %" in list(part.columns[1].cells) for part in rows if not isinstance(part, str))


def test_names_that_moved_hide_nothing(tmp_path):
    """A file whose constants were all renamed, as writers with short names do when a layer is added."""
    path = third_party.path("basic-pitch", "nmp.onnx")
    model = onnx.load(path)
    names = {constant.name: f"t{i}" for i, constant in enumerate(model.graph.initializer)}
    for constant in model.graph.initializer:
        constant.name = names[constant.name]
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    victim = max(model.graph.initializer, key=lambda c: np.prod(c.dims))
    values = numpy_helper.to_array(victim).copy()
    values.reshape(-1)[0] += 1
    victim.CopyFrom(numpy_helper.from_array(values, victim.name))
    onnx.save(model, tmp_path / "renamed.onnx")
    found = compare(path, tmp_path / "renamed.onnx")
    assert [(c.name, c.kind, c.differing) for c in found.changed] == [(victim.name, "values", 1)]
    assert found.operators == ()


def test_operators_added_removed_and_of_another_version_are_told_apart():
    paths = ("palm_detection_lite.tflite", "face_detection_short_range.tflite")
    found = compare(*(third_party.path("mediapipe", name) for name in paths))
    kinds = {change.name: change.kind for change in found.operators}
    assert (kinds["PRELU"], kinds["RELU"], kinds["CONV_2D"]) == ("removed", "added", "count")
    assert found.tensors["input input"] == ("", "float32 [1, 128, 128, 3]")
    assert {change.kind for change in found.changed} >= {"values", "added", "removed"}
    assert json.loads(json.dumps(found.to_json()))["size"] == [1985440, 229714]


def test_another_format_is_compared_as_far_as_it_goes(plan, tmp_path):
    found = compare(write(plan, tmp_path), write(plan, tmp_path, "generic-x86:onnx"))
    assert {change.kind for change in found.operators} == {"added", "removed"}
    assert "strop.plan" in dict(found.metadata)


# --- bundles ---


@pytest.fixture(scope="module")
def improved(compressed, samples, tmp_path_factory):
    """A bundle of the model with one weight changed, another class name, and one artefact more."""
    plan = with_codes(compressed.plan, compressed.plan.operations[-1].weight, flip(1))
    changed = replace(compressed, plan=plan, labels=("row", "column", "diagonal"))
    folder = tmp_path_factory.mktemp("improved") / "two"
    builder.build(changed, folder, version="1.1.0", samples=samples, targets=("rpi4", "generic-x86", "rpi4:onnx"))
    return folder


def test_bundles_differ_in_what_was_changed(bundle_folder, improved):
    found = compare(bundle_folder, improved)
    assert found.facts == {"labels": (["row", "column", "slope"], ["row", "column", "diagonal"])}
    assert set(found.artefacts) == {"rpi4 tflite", "generic-x86 onnx"}
    for files in found.artefacts.values():
        assert [change.differing for change in files.changed] == [1]
    assert found.missing == {"rpi4 onnx": ("", "model-rpi4.onnx")}
    assert found.files["model.onnx"][1] == 0
    assert "golden/inputs.npy" not in found.files
    assert 0 < found.kept_bytes < sum(after for _, after in found.files.values()) + found.kept_bytes


def test_accuracy_carries_its_interval(bundle_folder, improved):
    before, after = compare(bundle_folder, improved).accuracy["artefact, validation"]
    for row in (before, after):
        assert 0 < row["low"] < row["accuracy"] <= row["high"] <= 1
        assert row["samples"] == 180
    assert tables.accuracy_text(before).endswith("of 180")


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        ((0.5, 0.4, 0.6), (0.8, 0.7, 0.9), "better"),
        ((0.8, 0.7, 0.9), (0.5, 0.4, 0.6), "worse"),
        ((0.5, 0.4, 0.6), (0.55, 0.45, 0.65), "within the intervals"),
    ],
)
def test_a_change_inside_the_intervals_is_not_called_better(before, after, word):
    rows = [dict(zip(("accuracy", "low", "high"), row, strict=True)) for row in (before, after)]
    assert tables._judged(*rows) == word


def test_parity_of_both_is_side_by_side(bundle_folder, improved):
    before, after = compare(bundle_folder, improved).parity["litert / pytorch"]
    assert (before["differing"], after["differing"]) == (0, 0)
    assert before["values"] == 180 * 27


def test_a_changed_file_of_a_bundle_is_an_error(bundle_folder, improved, tmp_path):
    copy = shutil.copytree(bundle_folder, tmp_path / "copy")
    (copy / "model.tflite").write_bytes(b"no")
    with pytest.raises(BundleError, match=r"model\.tflite: file changed"):
        compare(copy, improved)


@pytest.mark.parametrize("text", ["[]", "{}", '{"pairs":[{"first":1}]}', '{"pairs":3}', "nonsense", '{"pairs":[[]]}'])
def test_a_parity_table_that_is_none_is_an_error(bundle_folder, tmp_path, text):
    copy = shutil.copytree(bundle_folder, tmp_path / "copy")
    (copy / "parity.json").write_text(text)
    reseal(copy)
    with pytest.raises(BundleError, match=r"parity\.json: is not a parity table"):
        compare(copy, bundle_folder)


def reseal(folder):
    """Write a manifest that lists the files as they are now."""
    document = json.loads((folder / MANIFEST_NAME).read_bytes())
    for entry in document["files"]:
        data = (folder / entry["path"]).read_bytes()
        entry["size"], entry["sha256"] = len(data), canonical.digest(data)
    (folder / MANIFEST_NAME).write_bytes(canonical.dumps(document))


def test_a_folder_and_a_file_cannot_be_compared(bundle_folder):
    with pytest.raises(UsageError, match="a folder and a file; give two bundles or two model files"):
        compare(bundle_folder, bundle_folder / "model.onnx")


def test_what_is_no_model_is_an_error(bundle_folder, tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no")
    for wrong, error in ((tmp_path / "x.onnx", ModelError), (tmp_path / "nowhere.onnx", StropError)):
        with pytest.raises(error, match=wrong.name):
            compare(bundle_folder / "model.onnx", wrong)
