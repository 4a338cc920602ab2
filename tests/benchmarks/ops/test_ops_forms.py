# SPDX-License-Identifier: Apache-2.0
"""Kinds, alignment, grouped medians, the bytes of an ONNX file, and both profilers' events in their written form."""

import json
import random

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.ops import read
from benchmarks.ops.align import align
from benchmarks.ops.kinds import KINDS, of_onnx, of_tflite, of_xnnpack, plain_name
from benchmarks.ops.litert_c import DEFAULT, DELEGATE_PROFILED, OPERATOR, Event
from benchmarks.ops.litert_profile import Written
from benchmarks.ops.litert_profile import parse as parse_litert
from benchmarks.ops.onnx_file import Node, nodes
from benchmarks.ops.onnx_profile import parse
from benchmarks.ops.profile import OpTime, Profile, middle
from edge_contract.errors import MeasurementError


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        ("Convolution (NHWC, QC8) IGEMM", "conv"),
        ("Convolution (NHWC, F32) DWConv", "depthwise"),
        ("Fully Connected (NC, QS8, QC8W) GEMM", "dense"),
        ("Dynamic Fully Connected (NC, F32) GEMM", "dense"),
        ("Add (ND)", "add"),
        ("Multiply (ND)", "mul"),
        ("Mean (ND) Reduce2", "reduce"),
        ("Static Reshape (NC)", "reshape"),
        ("Max Pooling (NHWC, F32)", "pool"),
        ("Global Average Pooling (NWC, QS8)", "pool"),
        ("Constant Pad (ND, X32)", "pad"),
        ("Resize Bilinear (NHWC)", "resize"),
        ("Depth To Space (NHWC, X32) Transpose", "transpose"),
        ("Clamp (NC)", "activation"),
        ("PReLU (ND)", "activation"),
        ("Softmax (NC, F32)", "softmax"),
        ("Convert (NC, F32, QS8)", "quantize"),
        ("Deconvolution (NHWC, F32) IGEMM", "deconv"),
        ("Batch Matrix Multiply (NC, F32) GEMM", "matmul"),
        ("Subtract (ND)", "elementwise"),
        ("Something new", "other"),
    ],
)
def test_kernels_of_xnnpack(tag, kind) -> None:
    assert of_xnnpack(tag) == kind and kind in KINDS


def test_operators_of_onnx_runtime_and_tflite() -> None:
    assert [of_onnx(op) for op in ("Conv", "FusedConv", "QGemm", "ReorderOutput", "NhwcMaxPool")] == [
        "conv", "conv", "dense", "reorder", "pool",
    ]  # fmt: skip
    assert of_onnx("QLinearConv", [(1, 7, 7, 72), (72, 1, 3, 3)]) == "depthwise"  # NHWC inside of the runtime
    assert of_onnx("QLinearConv", [(1, 28, 28, 1), (16, 1, 3, 3)]) == "conv"  # one input channel only
    assert of_onnx("Conv", [(1, 1, 28, 28), (16, 1, 3, 3)]) == "conv"
    assert [of_tflite(op) for op in ("CONV_2D", "TfLiteXNNPackDelegate", "DELEGATE", "Custom")] == [
        "conv", "delegate", "delegate", "other",
    ]  # fmt: skip
    assert plain_name("/features/conv_nchwc_kernel_time") == "/features/conv"


def test_names_of_the_file_find_their_kernels() -> None:
    file = ["conv", "activation", "depthwise", "conv", "add", "reduce", "reshape", "dense", "softmax"]
    ran = ["conv", "depthwise", "dense", "add", "reduce", "reshape", "dense", "softmax"]
    assert align(ran, file) == [0, 2, 3, 4, 5, 6, 7, 8]
    assert align(["quantize", *ran], file) == [None, 0, 2, 3, 4, 5, 6, 7, 8]
    assert align([], file) == [] and align(ran, []) == [None] * len(ran)


def test_an_alignment_keeps_the_order_and_is_as_long_as_any() -> None:
    draw = random.Random(1)
    for _ in range(30):
        kinds = [
            [draw.choice(["conv", "depthwise", "add", "pool"]) for _ in range(draw.randint(0, 9))] for _ in range(2)
        ]
        found = [place for place in align(*kinds) if place is not None]
        assert found == sorted(set(found))
        alone = [place for place in align(kinds[0], kinds[0]) if place is not None]
        assert alone == list(range(len(kinds[0])))


def test_grouped_medians_are_nearer_to_the_truth_than_plain_ones() -> None:
    draw = np.random.default_rng(0)
    for true in (0.3, 0.8, 1.6, 7.4):
        begin = draw.uniform(0, 1000, 4001)
        cut = (np.floor(begin + true) - np.floor(begin)).astype(int)
        assert middle(list(map(int, cut))) == pytest.approx(true, abs=0.12)
        noisy = true + draw.uniform(0, 1, 4001)  # XNNPACK cuts the difference itself
        floored = np.floor(noisy).astype(int)
        assert middle(list(map(int, floored)), floored=True) == pytest.approx(float(np.median(noisy)), abs=0.12)


def model(tmp_path):
    weights = [("w", (8, 3, 3, 3)), ("d", (8, 1, 3, 3))]
    tensors = [numpy_helper.from_array(np.full(shape, 0.1, np.float32), name) for name, shape in weights]
    made = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="act"),
        helper.make_node("Conv", ["b", "d"], ["y"], name="second", group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Identity", ["y"], ["z"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 3, 16, 16]), ("z", None))]
    graph = helper.make_graph(made, "g", ends[:1], ends[1:], tensors)
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_the_bytes_of_an_onnx_file_are_read_as_onnx_reads_them(tmp_path) -> None:
    path = model(tmp_path)
    assert nodes(path) == {
        "first": Node("first", "Conv", "a", ((8, 3, 3, 3),)),
        "act": Node("act", "Relu", "b", ()),
        "second": Node("second", "Conv", "y", ((8, 1, 3, 3),)),
    }
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(MeasurementError, match="no ONNX file"):
        nodes(cut)


def trace(*runs: list[int]) -> list[dict]:
    """Events as ONNX Runtime writes them: the nodes of a run, then the executor, then the run."""
    events = [{"cat": "Session", "name": "session_initialization", "dur": 9000, "ts": 0}]
    at = 10_000
    for times in runs:
        begin = at
        for k, dur in enumerate(times):
            name = ("conv_nchwc_kernel_time", "_token_4_kernel_time")[k]
            words = {"op_name": ("Conv", "QLinearConv")[k], "provider": ("CPUExecutionProvider", "Own")[k]}
            words["input_type_shape"] = [{"float": [1, 8, 7, 7]}, {"float": [8, 8, 3, 3]}]
            events.append({"cat": "Node", "name": f"{name[:-12]}_fence_before", "dur": 0, "ts": at, "args": {}})
            events.append({"cat": "Node", "name": name, "dur": dur, "ts": at, "args": words})
            at += dur + 3
        events.append({"cat": "Session", "name": "SequentialExecutor::Execute", "dur": at - begin, "ts": begin})
        events.append({"cat": "Session", "name": "model_run", "dur": at - begin + 5, "ts": begin - 2})
    return events


def test_the_events_of_onnx_runtime() -> None:
    file = {"_token_4": Node("_token_4", "QLinearConv", "y", ((8, 1, 3, 3),))}
    ops, inside, total = parse(trace([900, 90], [10, 30], [10, 30], [12, 30]), 1, file)
    assert [(op.kind, op.name, op.runs, op.delegated) for op in ops] == [
        ("conv", "conv", 3, False), ("depthwise", "y", 3, True),
    ]  # fmt: skip
    assert ops[0].median_us == pytest.approx(10.25) and ops[1].median_us == 30.0
    assert sum(op.share for op in ops) == pytest.approx(1.0, abs=1e-4)
    assert (inside, total) == (pytest.approx(46.25), pytest.approx(40.25))
    with pytest.raises(MeasurementError, match="no run behind the first 4"):
        parse(trace([1, 2]), 4)
    with pytest.raises(MeasurementError, match="different operators"):
        parse(trace([1, 2], [1]), 0)


def test_the_events_of_litert() -> None:
    def run(*times: int) -> list[Event]:
        inner = [Event(tag, DELEGATE_PROFILED, k, us) for k, (tag, us) in enumerate(zip(tags, times, strict=True))]
        shell = Event("TfLiteXNNPackDelegate", OPERATOR, 3, sum(times))
        ends = [Event("Invoke", 32, 0, 1 << 32), Event("LiteRT::Run[Buffer sync]", DEFAULT, 0, 2)]
        return [
            Event("LiteRT::Run[buffer registration]", DEFAULT, 0, 9),
            Event("Invoke", DEFAULT, 0, 60),
            *inner,
            shell,
            *ends,
        ]

    tags = ("Convolution (NHWC, QC8) IGEMM", "Fully Connected (NC, QS8, QC8W) GEMM")
    file = [Written("CONV_2D", "stem", ((1, 8, 8, 1),), ((1, 4, 4, 6),)), Written("FULLY_CONNECTED", "head", (), ())]
    ops, inside, total = parse_litert([*run(500, 50), *run(20, 3), *run(20, 3)], file, 1)
    assert [(op.kind, op.name, op.median_us, op.delegated) for op in ops] == [
        ("conv", "stem", 20.5, True), ("dense", "head", 3.5, True),
    ]  # fmt: skip
    assert (inside, total) == (60.0, 24.0)
    own = [Event("Invoke", DEFAULT, 0, 9), Event("FULLY_CONNECTED", OPERATOR, 1, 4)]
    ops, _, _ = parse_litert(own, file, 0)
    assert (ops[0].name, ops[0].median_us, ops[0].delegated) == ("head", 4.0, False)
    with pytest.raises(MeasurementError, match="no run"):
        parse_litert([], file, 0)
    with pytest.raises(MeasurementError, match="different operators"):
        parse_litert([*run(1, 2), *own], file, 0)


def stored() -> Profile:
    ops = (
        OpTime(0, "conv", "Conv", "a", ((1, 3, 8, 8),), ((1, 8, 8, 8),), 30.0, 0.75, 9, False),
        OpTime(1, "add", "Add", "", (), (), 10.0, 0.25, 9, True),
    )
    return Profile("m.onnx", "0" * 64, "onnxruntime", "1", 2, "onnxruntime", 50.0, 60.0, 55.0, 40.0, 9, 3, 1.0, ops)


def test_a_profile_is_stored_and_read(tmp_path) -> None:
    path = tmp_path / "ops.json"
    path.write_text(json.dumps(stored().to_json()))
    assert read(path) == stored()
    assert stored().cover == 0.8 and stored().delegated == 0.25
    assert stored().by_kind() == {"conv": (1, 30.0, 0.75), "add": (1, 10.0, 0.25)}
    text = stored().to_text(1)
    assert "Conv  [a]  1×3×8×8 → 1×8×8×8" in text and "80 % of the whole" in text and "trust the order" in text
    for broken, words in (("{", "no JSON"), ("{}", "schema"), (json.dumps({"schema": "strop.ops/1"}), "missing")):
        path.write_text(broken)
        with pytest.raises(MeasurementError, match=words):
            read(path)
