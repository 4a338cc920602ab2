# SPDX-License-Identifier: Apache-2.0
"""A normalised TFLite file computes the same, and old runtimes compute it right or refuse it."""

import hashlib
import io
import json
import zipfile

import numpy as np
import pytest

from edge_contract import targets
from edge_contract.errors import ModelError
from export.normalise.draft import blank
from export.normalise.normaliser import SOURCE_KEY, normalise
from export.normalise.pads import same_padding
from export.tflite.encoder import encode
from export.tflite.reader import read
from export.tflite.walk import decode
from tests.support import converter_files, trap_files
from tests.support.tflite_runs import real, relative_error, run_here, run_old
from tests.zoo import third_party

PI = targets.load("rpi4")
THIRD_PARTY = [
    (package, name) for package, names in third_party.FOUND.items() for name in names if name.endswith("tflite")
]


def kinds(data):
    return [op.kind for op in read(data, "").main.operators]


def versions(data):
    return {op.kind: op.version for op in read(data, "").main.operators}


def normal(case, target=PI):
    return case.having(normalise(case.data, where="net.tflite", target=target).data)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Files that TensorFlow's converter writes."""
    return converter_files.make(tmp_path_factory.mktemp("converter"))


# Trap 2: per-channel FULLY_CONNECTED.


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"rows": 3}, {"signature": True}], ids=str)
def test_per_channel_dense_becomes_a_convolution_with_the_same_codes(options, tmp_path):
    raw = trap_files.dense_per_channel(**options)
    fixed = normal(raw)
    assert kinds(fixed.data) == ["RESHAPE", "CONV_2D", "RESHAPE"]
    (before, _), (after, refusal) = run_old([(raw.data, raw.inputs), (fixed.data, raw.inputs)], tmp_path)
    assert refusal == ""
    assert np.array_equal(before, after)
    assert np.array_equal(run_here(raw.data, raw.inputs), run_here(fixed.data, raw.inputs))
    assert np.abs(real(after, raw.data) - raw.answer).max() <= 0.3001  # half a step


def test_no_dense_layer_with_several_scales_is_left():
    for raw in (trap_files.dense_per_channel(), trap_files.dense_per_channel(equal_scales=True)):
        graph = read(normal(raw).data, "").main
        dense = [op for op in graph.operators if op.kind == "FULLY_CONNECTED"]
        assert all(len(graph.tensors[op.inputs[1]].scales) == 1 for op in dense)


def test_equal_scales_become_one_and_the_layer_stays():
    raw = trap_files.dense_per_channel(equal_scales=True)
    fixed = normal(raw)
    assert kinds(fixed.data) == ["FULLY_CONNECTED"]
    assert np.array_equal(run_here(raw.data, raw.inputs), run_here(fixed.data, raw.inputs))


def test_without_a_target_the_dense_layer_stays_and_a_warning_tells():
    found = normalise(trap_files.dense_per_channel().data, where="")
    assert kinds(found.data) == ["FULLY_CONNECTED"]
    assert found.warnings == (
        "1 per-channel int8 FULLY_CONNECTED: tflite-runtime 2.7 to 2.9 compute them wrong without an error",
    )
    assert normalise(trap_files.dense_per_channel(equal_scales=True).data, where="", target=PI).warnings == ()


# Trap 3: versions that are too low.


def test_a_dishonest_hybrid_dense_layer_is_wrong_on_old_runtimes_and_refused_once_normalised(tmp_path):
    raw = trap_files.dynamic()
    fixed = normal(raw)
    assert (versions(raw.data), versions(fixed.data)) == ({"FULLY_CONNECTED": 5}, {"FULLY_CONNECTED": 12})
    (before, loaded), (_, refusal) = run_old([(raw.data, raw.inputs), (fixed.data, raw.inputs)], tmp_path)
    assert loaded == ""
    assert relative_error(before, raw.answer) > 0.5  # nonsense, and no error: the trap
    assert "Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'" in refusal
    assert relative_error(run_here(fixed.data, raw.inputs), raw.answer) < 0.02


@pytest.mark.parametrize(("kind", "honest"), [("CONV_2D", 5), ("DEPTHWISE_CONV_2D", 6)])
def test_hybrid_convolutions_get_the_version_that_introduced_them(kind, honest, tmp_path):
    raw = trap_files.dynamic(kind)
    fixed = normal(raw)
    assert versions(fixed.data) == {kind: honest}
    ((old, _),) = run_old([(fixed.data, raw.inputs)], tmp_path)
    assert max(relative_error(found, raw.answer) for found in (old, run_here(fixed.data, raw.inputs))) < 0.02


def test_tensorflows_dynamic_range_file_made_dishonest_is_caught(converted, tmp_path):
    """As the stock quantizer of 2025 writes it: everything right but the versions."""
    data = trap_files.claiming(converted["conv_dynamic"], {"FULLY_CONNECTED": 5, "CONV_2D": 1})
    image = np.random.default_rng(5).standard_normal((1, 16, 16, 3)).astype(np.float32)
    fixed = normalise(data, where="", target=PI).data
    (before, loaded), (_, refusal) = run_old([(data, image), (fixed, image)], tmp_path)
    answer = run_here(converted["conv_float"], image)
    assert loaded == ""
    assert relative_error(before, answer) > 0.5
    assert "'FULLY_CONNECTED' version '12'" in refusal
    assert relative_error(run_here(fixed, image), answer) < 0.05


# Trap 4: constants behind the flatbuffer; alignment.


def test_constants_come_into_the_flatbuffer_and_nothing_else_changes(tmp_path):
    raw = trap_files.swish_net()
    moved = raw.having(trap_files.outside(raw.data))
    assert sum(t.is_external for t in read(moved.data, "").main.tensors) == 2
    found = normalise(moved.data, where="")
    assert found.changes[0] == "2 constants moved into the flatbuffer"
    assert not any(t.is_external for t in read(found.data, "").main.tensors)
    ((old, refusal),) = run_old([(found.data, raw.inputs)], tmp_path)
    assert refusal == ""
    assert np.array_equal(old, run_here(raw.data, raw.inputs))


# PAD.


@pytest.mark.parametrize(("pads", "size", "stride"), [
    (((0, 1), (0, 1)), 8, 2), (((1, 1), (1, 1)), 8, 1), (((1, 1), (1, 1)), 9, 2), (((0, 0), (0, 0)), 9, 3),
])  # fmt: skip
def test_a_pad_that_same_means_is_folded_and_every_code_stays(pads, size, stride):
    raw = trap_files.padded(pads=pads, size=size, stride=stride)
    fixed = normal(raw, None)
    assert kinds(fixed.data) == ["CONV_2D"]
    assert np.array_equal(run_here(raw.data, raw.inputs), run_here(fixed.data, raw.inputs))


def test_a_padv2_of_the_zero_point_is_folded_too():
    raw = trap_files.padded(zero=7)
    fixed = normal(raw, None)
    assert kinds(fixed.data) == ["CONV_2D"]
    assert np.array_equal(run_here(raw.data, raw.inputs), run_here(fixed.data, raw.inputs))


OTHERS = [((1, 0), (1, 0)), ((1, 1), (1, 1)), ((0, 1), (1, 0)), ((2, 2), (1, 1))]


@pytest.mark.parametrize("options", [*({"pads": pads} for pads in OTHERS), {"zero": 0}], ids=str)
def test_a_pad_that_same_does_not_mean_stays(options):
    raw = trap_files.padded(**options)
    fixed = normal(raw, None)
    assert kinds(fixed.data)[0].startswith("PAD")
    assert np.array_equal(run_here(raw.data, raw.inputs), run_here(fixed.data, raw.inputs))


def test_a_pad_that_is_an_output_or_feeds_others_stays():
    root, _ = decode(trap_files.padded().data, "")
    root["subgraphs"][0]["outputs"] = (5, 2)
    assert kinds(normalise(encode(root), where="").data) == ["PAD", "CONV_2D"]
    root, _ = decode(trap_files.padded().data, "")
    graph = root["subgraphs"][0]
    root["operator_codes"].append(blank("OperatorCode") | {"builtin_code": 101, "deprecated_builtin_code": 101})
    graph["tensors"].append(dict(graph["tensors"][2]))
    graph["operators"].append(blank("Operator") | {"opcode_index": 2, "inputs": (2,), "outputs": (6,)})
    graph["outputs"] = (5, 6)
    assert kinds(normalise(encode(root), where="").data) == ["PAD", "CONV_2D", "ABS"]


@pytest.mark.parametrize("size", range(1, 14))
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_padding_gives_the_size_that_same_promises(size, kernel, stride):
    before, after = same_padding(size, kernel, stride, 1)
    assert (size + before + after - kernel) // stride + 1 >= -(-size // stride)
    assert after - before in (0, 1)


# Hard-swish.


def test_hard_swish_becomes_fast_operators_within_a_step(tmp_path):
    for raw in (trap_files.swish_net(), trap_files.swish_net(producer=False)):
        fixed = normal(raw)
        assert kinds(fixed.data)[-3:] == ["ADD", "MUL", "MUL"]
        ((old, refusal),) = run_old([(fixed.data, raw.inputs)], tmp_path)
        here, kernel = (run_here(case.data, raw.inputs).astype(int) for case in (fixed, raw))
        assert refusal == ""
        assert np.abs(here - kernel).max() <= 1
        assert np.mean(here != kernel) < 0.05
        # half an output step, half a gate step at |x| = 3, and half a step of the convolution before
        assert np.abs(real(here, raw.data) - raw.answer).max() <= 0.025 + 3 / 510 + 0.07
        assert np.abs(old - here).max() <= 1


def test_hard_swish_is_left_alone_without_a_target():
    assert kinds(normal(trap_files.swish_net(), None).data) == ["CONV_2D", "HARD_SWISH"]


def test_the_factor_of_a_sixth_passes_every_code_on():
    """The last MUL has the multiplier 1: shown as an output, the product before it has the same codes."""
    root, _ = decode(normal(trap_files.swish_net()).data, "")
    graph = root["subgraphs"][0]
    product, result = graph["operators"][-1]["inputs"][0], graph["operators"][-1]["outputs"][0]
    shown = []
    for tensor in (product, result):
        graph["outputs"], root["signature_defs"] = (tensor,), None
        shown.append(run_here(encode(root), trap_files.swish_net().inputs))
    assert len(np.unique(shown[0])) > 100
    assert np.array_equal(*shown)


# TensorFlow's converter and other people's files.


@pytest.mark.parametrize("name", ["conv_int8", "conv_float", "conv_dynamic", "dense_free_batch"])
def test_converter_files_compute_the_same_here_and_on_the_old_runtime(converted, name, tmp_path):
    raw = converted[name]
    fixed = normalise(raw, where=name, target=PI)
    source = read(raw, name).main.tensors[read(raw, name).main.inputs[0]]
    noise = np.random.default_rng(3).standard_normal(source.shape)
    inputs = (
        np.clip(np.rint(noise * 40), -128, 127).astype(np.int8) if source.dtype == "int8" else noise.astype(np.float32)
    )
    before, after = run_here(raw, inputs), run_here(fixed.data, inputs)
    assert np.array_equal(before, after)
    jobs = run_old([(raw, inputs), (fixed.data, inputs)], tmp_path)
    if name == "conv_dynamic":
        assert all("'FULLY_CONNECTED' version '12'" in refusal for _, refusal in jobs)
    else:
        assert np.array_equal(jobs[0][0], jobs[1][0])
    assert fixed.warnings == ()


def test_a_converted_network_with_hard_swish_stays_within_a_few_steps(converted, tmp_path):
    raw, fixed = converted["swish_int8"], normalise(converted["swish_int8"], where="", target=PI).data
    assert "HARD_SWISH" not in kinds(fixed)
    image = np.random.default_rng(4).integers(-128, 128, (1, 16, 16, 3)).astype(np.int8)
    ((old, refusal),) = run_old([(fixed, image)], tmp_path)
    here, kernel = run_here(fixed, image).astype(int), run_here(raw, image).astype(int)
    assert refusal == ""
    assert max(np.abs(here - kernel).max(), np.abs(here - old).max()) <= 3


@pytest.mark.parametrize(("package", "name"), THIRD_PARTY)
def test_third_party_files_compute_the_same_and_shrink(package, name):
    raw = third_party.path(package, name).read_bytes()
    found = normalise(raw, where=name, target=PI)
    source = read(raw, name).main.tensors[read(raw, name).main.inputs[0]]
    inputs = np.random.default_rng(0).random(source.shape).astype(np.float32)
    assert np.array_equal(run_here(raw, inputs), run_here(found.data, inputs))
    assert len(found.data) < len(raw)


def test_pads_of_a_face_detector_are_folded():
    raw = third_party.path("mediapipe", "face_detection_full_range_sparse.tflite").read_bytes()
    found = normalise(raw, where="")
    assert "36 PAD folded into the SAME padding of convolutions" in found.changes
    assert kinds(raw).count("PAD") - kinds(found.data).count("PAD") == 36


def test_files_packed_behind_a_model_stay_readable():
    raw = third_party.path("mediapipe", "selfie_segmentation.tflite").read_bytes()
    data = normalise(raw, where="").data
    with zipfile.ZipFile(io.BytesIO(raw)) as before, zipfile.ZipFile(io.BytesIO(data)) as after:
        assert [(n, before.read(n)) for n in before.namelist()] == [(n, after.read(n)) for n in after.namelist()]
        assert after.namelist()


def zipped(data, *, counted_from_file):
    """A model with labels packed behind it, in both ways in which tools count offsets."""
    file = io.BytesIO(data if counted_from_file else b"")
    with zipfile.ZipFile(file, "a" if counted_from_file else "w") as archive:
        archive.writestr("labels.txt", "cat\ndog\n")
        archive.writestr("words.txt", "one\ntwo\n" * 50, zipfile.ZIP_DEFLATED)
    return file.getvalue() if counted_from_file else data + file.getvalue()


@pytest.mark.parametrize("counted_from_file", [True, False])
def test_packed_files_move_with_their_offsets(counted_from_file):
    raw = zipped(trap_files.dense_per_channel().data, counted_from_file=counted_from_file)
    data = normalise(raw, where="", target=PI).data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.read("labels.txt") == b"cat\ndog\n"
        assert archive.read("words.txt") == b"one\ntwo\n" * 50
    # strict readers do not guess: offsets count from the file's start
    assert data[int.from_bytes(data[-6:-2], "little") :].startswith(b"PK\1\2")
    assert normalise(data, where="", target=PI).data == data


# What holds for every file.


@pytest.fixture(params=["dense", "swish", "padded", "dynamic", "outside", "int8", "face"])
def any_file(request):
    makers = {
        "dense": lambda: trap_files.dense_per_channel().data,
        "swish": lambda: trap_files.swish_net(shown=True).data,
        "padded": lambda: trap_files.padded().data,
        "dynamic": lambda: trap_files.dynamic().data,
        "outside": lambda: trap_files.outside(trap_files.swish_net().data),
        "int8": lambda: request.getfixturevalue("converted")["conv_int8"],
        "face": lambda: third_party.path("mediapipe", "face_detection_short_range.tflite").read_bytes(),
    }
    return makers[request.param]()


@pytest.mark.parametrize("target", [None, PI], ids=["any", "rpi4"])
def test_normalising_twice_changes_nothing_more(any_file, target):
    once = normalise(any_file, where="", target=target)
    twice = normalise(once.data, where="", target=target)
    assert twice.data == once.data
    assert twice.changes == ()


def test_inputs_outputs_and_signatures_keep_their_names(any_file):
    before, after = read(any_file, ""), read(normalise(any_file, where="", target=PI).data, "")
    for side in ("inputs", "outputs"):
        names = [[m.main.tensors[t].name for t in getattr(m.main, side)] for m in (before, after)]
        assert names[0] == names[1]
        for ours, theirs in zip(before.signatures, after.signatures, strict=True):
            assert list(getattr(ours, side)) == list(getattr(theirs, side))
            named = [
                [m.main.tensors[t].name for t in getattr(s, side).values()]
                for m, s in ((before, ours), (after, theirs))
            ]
            assert named[0] == named[1]


def test_the_source_is_noted_once_and_survives(any_file):
    digest = hashlib.sha256(any_file).hexdigest()
    once = normalise(any_file, where="").data
    for data in (once, normalise(once, where="", target=PI).data):
        model = read(data, "")
        assert json.loads(model.metadata[SOURCE_KEY]) == {"sha256": digest}
        assert "min_runtime_version" not in model.metadata


def test_only_what_is_read_is_kept(any_file):
    graph = read(normalise(any_file, where="", target=PI).data, "").main
    used = {*graph.inputs, *graph.outputs, *(t for op in graph.operators for t in (*op.inputs, *op.outputs))}
    assert used - {-1} == set(range(len(graph.tensors)))
    inner = [t for t in graph.tensors if t.index not in {*graph.inputs, *graph.outputs}]
    assert all(len(t.name) <= len(f"t{t.index}") for t in inner)


def test_equal_constants_are_kept_once_and_buffer_0_stays_empty():
    net = trap_files.Net()
    x, table = (
        net.tensor("input", (1, 4, 4, 2), "int8", None, [0.05]),
        np.array([(0, 0), (1, 1), (1, 1), (0, 0)], np.int32),
    )
    for step in range(3):
        y = net.tensor(f"y{step}", (1, 6 + 2 * step, 6 + 2 * step, 2), "int8", None, [0.05])
        net.operator("PAD", 2, [x if step == 0 else y - 2, net.constant(f"pads{step}", table)], y, "PadOptions")
    found = normalise(net.finish((x,), (y,)), where="")
    root, _ = decode(found.data, "")
    assert "2 second copies of constants left out" in found.changes
    assert [len(buffer["data"] or b"") for buffer in root["buffers"]] == [0, 32, 77]
    assert run_here(found.data, np.zeros((1, 4, 4, 2), np.int8)).shape == (1, 10, 10, 2)


def test_fields_of_a_newer_schema_are_not_silently_lost():
    root, _ = decode(trap_files.padded().data, "")
    root["external_buffers"] = [blank("ExternalBuffer") | {"id": 1}]
    with pytest.raises(ModelError, match="net: cannot be rewritten: its constants lie in other files; use it as it is"):
        normalise(encode(root), where="net")
    with pytest.raises(
        ModelError, match=r"cannot be rewritten: it uses newer fields \(Model\); use it as it is, or update"
    ):
        normalise(trap_files.newer(trap_files.padded().data, 11), where="net")


def test_a_damaged_file_is_refused_like_by_the_reader():
    with pytest.raises(ModelError, match="net: not a TFLite file"):
        normalise(b"nothing", where="net")
