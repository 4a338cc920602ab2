# SPDX-License-Identifier: Apache-2.0
"""Files of other makers become bundles when what they compute can be trusted, and one clear line when it cannot."""

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_agent.runner import golden
from edge_agent.runner.model import Model
from edge_contract import canonical
from edge_contract.audio import Audio
from edge_contract.errors import (
    BudgetError,
    DataError,
    ModelError,
    ParityError,
    RuntimeAdapterError,
    UnsupportedOperatorError,
    UsageError,
)
from edge_contract.preprocess import Preprocess
from export.adopt import inputs as adopt_inputs
from export.adopt.adoption import Wish, adopt
from export.adopt.inputs import Given
from export.bundle import builder
from tests.zoo import third_party

LABELS = ("row", "column", "slope")
PIXELS = Preprocess(scale=1 / 255)


@pytest.fixture
def given(samples):
    return Given.of(samples.raw, samples.labels, "samples.npz")


@pytest.fixture
def few(samples):
    return Given.of(samples.raw[:8], None, "samples.npz")


def wish(**changes):
    return replace(Wish("bars", "1.0.0", "classification", PIXELS, LABELS), **changes)


def net(path, *nodes, constants=(), out=("n", 3), kind=TensorProto.FLOAT, inputs=("x",), domains=()):
    """Write a float ONNX file that takes images [n, 1, 16, 16] as ``x``."""
    sources = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, 16, 16]) for name in inputs]
    result = helper.make_tensor_value_info("y", kind, list(out))
    held = [numpy_helper.from_array(np.asarray(values, np.float32), name) for name, values in constants]
    graph = helper.make_graph([helper.make_node("Flatten", ["x"], ["f"]), *nodes], "net", sources, [result], held)
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(name, 1) for name in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def linear(path, *after, **options):
    """Write a net with one matrix, and nodes that go on from ``z``."""
    weights = np.random.default_rng(0).normal(0, 0.1, (256, 3))
    matrix = helper.make_node("MatMul", ["f", "w"], ["z" if after else "y"])
    return net(path, matrix, *after, constants=[("w", weights), *options.pop("constants", ())], **options)


# --- what works ---


@pytest.fixture(scope="module")
def adopted(bundle_folder, samples, tmp_path_factory):
    """Our own two int8 files, as if another had made them, in one bundle with a profile."""
    files = [bundle_folder / "model.onnx", bundle_folder / "model.tflite"]
    given = Given.of(samples.raw, samples.labels, "samples.npz")
    folder = tmp_path_factory.mktemp("adopted") / "out"
    return folder, adopt(files, folder, wish(), given)


def test_int8_files_of_both_formats_keep_every_integer(adopted, bundle_folder):
    folder, _ = adopted
    manifest = builder.verify(folder)
    assert [(a.path, a.target, a.precision) for a in manifest.artefacts] == [
        ("model.onnx", "generic-x86", "int8"),
        ("model.tflite", "rpi4", "int8"),
    ]
    for name in ("model.onnx", "model.tflite"):
        assert (folder / name).read_bytes() == (bundle_folder / name).read_bytes()
    for mine, ours in zip(manifest.artefacts, builder.verify(bundle_folder).artefacts, strict=True):
        assert (mine.input.dtype, mine.input.layout) == (ours.input.dtype, ours.input.layout)
        assert mine.input.scale == pytest.approx(ours.input.scale, rel=1e-6)
        assert mine.output("logits").zero_point == ours.output("logits").zero_point
        assert mine.output("embedding").name == "embedding"


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_golden_hashes_of_integers_are_recorded_and_hold(adopted, runtime):
    assert golden.check(Model.open(adopted[0], runtime=runtime)).how == "exact"


def test_lineage_tells_the_origin_and_how_good_it_is(adopted):
    lineage = builder.verify(adopted[0]).lineage
    assert [entry["file"] for entry in lineage["adopted"]] == ["model.onnx", "model.tflite"]
    assert lineage["inputs"]["source"] == "samples.npz"
    assert canonical.as_float(lineage["validation"]["accuracy"]) > 0.85


def test_profiles_are_made_where_classes_are_known(adopted, few, bundle_folder, tmp_path):
    assert set(builder.verify(adopted[0]).profiles) == {"model.onnx", "model.tflite"}
    other = adopt([bundle_folder / "model.tflite"], tmp_path / "out", wish(targets=("zero2",)), few)
    assert other.manifest.profiles == {}


def test_real_numbers_are_recorded_with_a_tolerance(few, tmp_path):
    soft = linear(tmp_path / "net.onnx", helper.make_node("Softmax", ["z"], ["y"]))
    built = adopt([soft], tmp_path / "out", wish(), few)
    document = json.loads((tmp_path / "out/golden.json").read_bytes())
    assert (document["entries"], canonical.as_float(document["tolerance"])) == ([], pytest.approx(1e-3))
    assert built.manifest.postprocess == "none"  # the file ends in shares already
    assert golden.check(Model.open(tmp_path / "out", runtime="onnxruntime")).how == "tolerance"


def test_logits_get_a_softmax(few, tmp_path):
    assert adopt([linear(tmp_path / "net.onnx")], tmp_path / "out", wish(), few).manifest.postprocess == "softmax"


def test_a_sound_model_with_three_outputs_agrees_in_every_runtime(tmp_path):
    files = [third_party.path("basic-pitch", name) for name in ("nmp.onnx", "nmp.tflite")]
    preprocess = Audio.from_json({"kind": "audio", "rate_hz": 22050, "length": 43844})
    time = np.arange(43844) / 22050
    tones = np.stack([np.sin(2 * np.pi * hz * time) * 0.5 for hz in (220, 440, 523.25, 880)]).astype(np.float32)
    asked = Wish("basic-pitch", "0.4.0", "other", preprocess)
    built = adopt(files, tmp_path / "out", asked, Given.of(tones, None, "tones.npz"))
    assert len(built.manifest.artefacts[0].outputs) == 3
    errors = {row.runtime: row.fidelity.relative_error for row in built.parity.judged if row.against == "onnxruntime"}
    assert errors["litert"] < 1e-5
    assert errors["tflite-runtime"] < 1e-3


def test_a_face_detector_finds_boxes_and_scores_by_shape(tmp_path):
    path = third_party.path("mediapipe", "face_detection_short_range.tflite")
    (tmp_path / "face.toml").write_text(FACE)
    said = adopt_inputs.read_said(tmp_path / "face.toml")
    given = adopt_inputs.random_inputs(said.preprocess, (128, 128, 3))
    asked = Wish("face", "1", "detection", said.preprocess, ("face",), said.postprocess)
    manifest = adopt([path], tmp_path / "out", asked, given).manifest
    assert {spec.name: spec.role for spec in manifest.artefacts[0].outputs} == {
        "regressors": "boxes",
        "classificators": "scores",
    }


FACE = """
[preprocess]
colour = "rgb"
resize = [128, 128]
scale = 0.00784313725490196
mean = [1.0]
[postprocess]
scores = "sigmoid"
[postprocess.boxes]
order = "xywh"
scales = [128, 128, 128, 128]
keypoints = 6
[[postprocess.boxes.anchors.layers]]
stride = 8
sizes = [[1, 1], [1, 1]]
[[postprocess.boxes.anchors.layers]]
stride = 16
sizes = [[1, 1], [1, 1], [1, 1], [1, 1], [1, 1], [1, 1]]
"""


# --- what is refused ---


def refused(error, words, *arguments, **options):
    folder = arguments[1].parent
    before = sorted(folder.iterdir())
    with pytest.raises(error, match=words) as refusal:
        adopt(*arguments, **options)
    assert "\n" not in str(refusal.value)
    assert sorted(folder.iterdir()) == before  # nothing is left behind


def node(kind, inputs, outputs=("y",), **attributes):
    return helper.make_node(kind, list(inputs), list(outputs), **attributes)


REFUSED = {
    "NaN": (
        lambda path: linear(path, node("Sqrt", ["z"])),
        RuntimeAdapterError,
        r"model.onnx in onnxruntime .*: \d+ of 24 numbers of output 'logits' are NaN",
    ),
    "one answer to all": (
        lambda path: linear(path, node("Mul", ["z", "zero"]), constants=[("zero", [0.0])]),
        ParityError,
        "onnxruntime .*: output 'logits' is the same for all 8 inputs",
    ),
    "a custom operator": (
        lambda path: linear(path, node("Spin", ["z"], domain="acme"), domains=("acme",)),
        UnsupportedOperatorError,
        r"net.onnx: custom operator 'acme.Spin', which no runtime here knows",
    ),
    "two inputs": (
        lambda path: linear(path, node("Add", ["z", "b"]), inputs=("x", "b")),
        ModelError,
        r"net.onnx: 2 inputs \(x, b\), one is supported",
    ),
    "a type that the runtime refuses": (
        lambda path: linear(path, node("Gather", ["z", "z"])),
        RuntimeAdapterError,
        "onnxruntime",
    ),
    "five numbers for three labels": (
        lambda path: linear(path, node("Concat", ["z", "z"], axis=1), out=("n", 6)),
        UsageError,
        r"net.onnx: 0 of its outputs have 3 numbers, one for each label: y \[0, 6\]; correct --labels",
    ),
    "an output of booleans": (
        lambda path: linear(path, node("IsNaN", ["z"]), kind=TensorProto.BOOL),
        ModelError,
        "net.onnx: tensor 'y' is bool",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_be_trusted_is_refused_in_one_line(few, tmp_path, case):
    make, error, words = REFUSED[case]
    refused(error, words, [make(tmp_path / "net.onnx")], tmp_path / "out", wish(), few)


def test_files_that_contradict_each_other_are_refused(compressed, few, tmp_path, bundle_folder):
    from export.tflite import writer

    plan, name = compressed.plan, compressed.plan.operations[-1].weight
    codes = plan.constants[name].codes[::-1].copy()
    other = replace(plan, constants={**plan.constants, name: replace(plan.constants[name], codes=codes)})
    writer.write(other, tmp_path / "net.tflite")
    files = [bundle_folder / "model.onnx", tmp_path / "net.tflite"]
    refused(
        ParityError,
        r"output 'logits' in litert: relative error [\d.]+, allowed 0.3",
        files,
        tmp_path / "out",
        wish(),
        few,
    )


@pytest.mark.parametrize("cut", [0.3, 0.9])
@pytest.mark.parametrize("name", ["model.onnx", "model.tflite"])
def test_a_truncated_file_is_refused(few, tmp_path, bundle_folder, name, cut):
    data = (bundle_folder / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(cut * len(data))])
    refused(ModelError, name, [tmp_path / name], tmp_path / "out", wish(), few)


def test_inputs_of_another_size_name_both(few, tmp_path, bundle_folder):
    words = r"makes inputs of shape \[8, 8, 1\], the file wants \[16, 16, 1\]; correct --preprocess"
    small = wish(preprocess=Preprocess(resize=(8, 8), scale=1 / 255))
    refused(UsageError, words, [bundle_folder / "model.tflite"], tmp_path / "out", small, few)


def test_integers_and_real_numbers_make_two_bundles(few, tmp_path, bundle_folder):
    files = [linear(tmp_path / "net.onnx"), bundle_folder / "model.tflite"]
    refused(
        ModelError,
        "outputs logits, embedding in model.tflite, y in net.onnx; make a bundle",
        files,
        tmp_path / "out",
        wish(),
        few,
    )


def test_a_file_that_no_target_reads_is_named(few, tmp_path, bundle_folder):
    asked = wish(targets=("coral-usb",))
    refused(UsageError, "no target reads model.onnx", [bundle_folder / "model.onnx"], tmp_path / "out", asked, few)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "a/b"}, "--name: 'a/b' is no model name"),
        ({"task": "magic"}, "--task: unknown task 'magic'; use one of classification, detection"),
        ({"labels": ()}, "--labels: classification without class names"),
        ({"task": "detection"}, r"task 'detection' without \[postprocess.boxes\]"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_before_anything_runs(few, tmp_path, bundle_folder, changes, words):
    refused(UsageError, words, [bundle_folder / "model.tflite"], tmp_path / "out", wish(**changes), few)


def test_weights_in_another_file_are_refused(few, tmp_path):
    path = linear(tmp_path / "net.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    refused(ModelError, "its weights lie in w.bin; save the model as one file", [path], tmp_path / "out", wish(), few)


def test_a_model_larger_than_its_target_is_refused(few, tmp_path, bundle_folder):
    import edge_contract.targets as targets

    text = targets._folder().joinpath("rpi4.toml").read_text().replace("model_kib = 524288", "model_kib = 2")
    (tmp_path / "tiny.toml").write_text(text)
    asked = wish(targets=(str(tmp_path / "tiny.toml"),))
    refused(BudgetError, "has 2 KiB for a model", [bundle_folder / "model.tflite"], tmp_path / "out", asked, few)


def test_roles_can_be_said_and_wrong_ones_are_refused(few, tmp_path):
    both = linear(tmp_path / "net.onnx", node("Identity", ["z"]))
    refused(
        UsageError,
        r"--role: q=logits; write NAME=ROLE with NAME one of y",
        [both],
        tmp_path / "out",
        wish(roles={"q": "logits"}),
        few,
    )
    made = adopt([both], tmp_path / "out", wish(roles={"y": "logits"}), few)
    assert made.manifest.artefacts[0].output("logits").name == "y"


# --- what a person gives ---


def test_inputs_come_from_npz_and_npy(tmp_path, samples):
    np.savez(tmp_path / "s.npz", x=samples.raw, y=samples.labels)
    np.save(tmp_path / "s.npy", samples.raw)
    both = adopt_inputs.read_inputs(tmp_path / "s.npz"), adopt_inputs.read_inputs(tmp_path / "s.npy")
    assert both[0].digest == both[1].digest
    assert (both[0].labels is not None, both[1].labels is None) == (True, True)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"z": np.zeros((9, 2))}, "arrays z; 'x' is missing"),
        ({"x": np.zeros((2, 4))}, r"inputs of shape \[2, 4\]; give at least 4"),
        ({"x": np.zeros((8, 4)), "y": np.zeros(7, int)}, r"8 inputs and labels int64 \[7\]"),
        ({"x": np.array([{}], object)}, "no array file"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(DataError, match=words):
        adopt_inputs.read_inputs(tmp_path / "s.npz")


def test_random_inputs_are_always_the_same():
    first, second = (adopt_inputs.random_inputs(Preprocess("rgb", (20, 30)), (20, 30, 3)) for _ in range(2))
    assert first.raw.shape == (16, 20, 30, 3)
    assert first.digest == second.digest


@pytest.mark.parametrize(
    ("text", "words"),
    [("a,,b", "class name ''"), ("a,b,a", "class name 'a'")],
)
def test_labels_that_are_none_are_refused(text, words):
    with pytest.raises(UsageError, match=words):
        adopt_inputs.read_labels(text)


def test_labels_are_read_from_a_file(tmp_path):
    (tmp_path / "names.txt").write_text("cat, tabby\ndog\n\n")
    assert adopt_inputs.read_labels(str(tmp_path / "names.txt")) == ("cat, tabby", "dog")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scale = 1", "unknown key 'scale'"),
        ("", r"no table \[preprocess\]"),
        ("[preprocess]\nscales = 1", "unknown key 'scales'"),
        ('postprocess = "best"\n[preprocess]', "unknown value 'best'"),
        ("[preprocess", "cannot be read"),
    ],
)
def test_a_description_that_is_none_is_refused(tmp_path, text, words):
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(UsageError, match=words):
        adopt_inputs.read_said(tmp_path / "p.toml")


def test_a_finished_bundle_can_be_changed_by_nobody(adopted, tmp_path):
    copy = shutil.copytree(adopted[0], tmp_path / "copy")
    data = bytearray((copy / "golden/outputs.npy").read_bytes())
    data[-1] ^= 1
    (copy / "golden/outputs.npy").write_bytes(data)
    with pytest.raises(Exception, match=r"outputs\.npy: file changed"):
        builder.verify(copy)
