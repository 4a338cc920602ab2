# SPDX-License-Identifier: Apache-2.0
"""The keystone: ONNX Runtime, LiteRT and PyTorch compute the same integers, in every tensor of every network."""

import collections

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import nn

from compress.quantize import integer, semantics
from compress.quantize.step import quantize
from export import onnx_writer, tflite_writer
from tests.support.quant_nets import Inverted, Net, conv, images, mobile, residual, separable, settled

INTEGER_OPERATORS = {
    "QLinearConv", "QLinearAdd", "QLinearGlobalAveragePool", "QGemm", "MaxPool", "NhwcMaxPool", "Flatten", "Transpose",
}  # fmt: skip


def hidden(plan):
    return tuple(op.output for op in plan.operations if op.output not in plan.outputs.values())


def in_onnx(path, codes, shift=128):
    """Run a file in ONNX Runtime; return name → signed codes, and the operators of its optimised graph."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimised.onnx"))
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    # On ARM this is the default; on x86 ONNX Runtime leaves int8 activations in float unless it is told.
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    fed = (codes + shift).astype(np.uint8 if shift else np.int8)
    found = dict(zip([o.name for o in session.get_outputs()], session.run(None, {"input": fed}), strict=True))
    operators = collections.Counter(n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node)
    return {name: values.astype(np.int16) - shift for name, values in found.items()}, operators


def in_litert(path, codes):
    """Run a file in LiteRT, one input at a time; return name → codes, channels first."""
    lite = Interpreter(model_path=str(path), num_threads=1)
    lite.allocate_tensors()
    found = collections.defaultdict(list)
    for one in codes:
        lite.set_tensor(lite.get_input_details()[0]["index"], one.transpose(1, 2, 0)[None].astype(np.int8))
        lite.invoke()
        for detail in lite.get_output_details():
            found[detail["name"]].append(lite.get_tensor(detail["index"])[0].copy())
    stacked = {name: np.stack(rows).astype(np.int16) for name, rows in found.items()}
    return {name: v.transpose(0, 3, 1, 2) if v.ndim == 4 else v for name, v in stacked.items()}


def codes_of(plan, x):
    source = plan.activations[plan.input]
    return semantics.quantize(x, source.scale, source.zero_point)


def compare(plan, x, folder, extra=()):
    """Return per shown tensor the codes of ONNX Runtime, LiteRT and PyTorch, and ONNX Runtime's operators."""
    onnx_writer.write(plan, folder / "net.onnx", extra=extra)
    tflite_writer.write(plan, folder / "net.tflite", extra=extra)
    codes = codes_of(plan, x)
    first, operators = in_onnx(folder / "net.onnx", codes.numpy())
    second, third = in_litert(folder / "net.tflite", codes.numpy()), integer.evaluate(plan, codes)
    shown = {**{name: name for name in extra}, **plan.outputs}
    return {n: (first[n], second[n], third[tensor].numpy()) for n, tensor in shown.items()}, operators


ZOO = {"mobile": mobile, "residual": residual, "separable": separable}


@pytest.mark.parametrize("name", ZOO)
def test_no_integer_differs_in_any_tensor(name, tmp_path):
    plan = quantize(settled(ZOO[name], seed=2), images(128, 1))
    found, _ = compare(plan, images(60, 2), tmp_path, hidden(plan))
    assert sum(first.size for first, _, _ in found.values()) > 1_000_000
    for tensor, (first, second, third) in found.items():
        assert np.array_equal(first, second), f"ONNX Runtime and LiteRT differ in {tensor}"
        assert np.array_equal(second, third), f"LiteRT and PyTorch differ in {tensor}"


def test_ten_thousand_logits_and_the_features_before_them_are_identical(tmp_path):
    plan = quantize(settled(mobile, seed=4), images(128, 1))
    found, operators = compare(plan, images(1000, 2), tmp_path)
    assert found["logits"][0].size == 10_000
    for first, second, third in found.values():
        assert np.array_equal(first, second)
        assert np.array_equal(second, third)
        assert np.ptp(first) > 100  # they use the range: equality is not that of constants
    assert set(operators) <= INTEGER_OPERATORS  # no float leftover
    assert operators["QLinearConv"] == 16


def test_additions_would_differ_without_scales_free_of_ties(tmp_path):
    """The measurement behind ``tie_free``: with observed scales the additions of the two runtimes part."""
    differing = {}
    for tie_free in (False, True):
        total = 0
        for seed in (0, 3):
            plan = quantize(settled(mobile, seed=seed), images(128, 1), tie_free=tie_free)
            sums = tuple(op.output for op in plan.operations if op.kind == "add")
            found, _ = compare(plan, images(300, 5), tmp_path, sums)
            total += sum(int((found[name][0] != found[name][1]).sum()) for name in sums)
        differing[tie_free] = total
    assert differing[True] == 0
    assert differing[False] > 0


def single(*layers, features, flat=False):
    ends = [nn.Flatten()] if flat else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return lambda: nn.Sequential(*layers, *ends, nn.Linear(features, 5))


def c(*args, **kwargs):
    return nn.Conv2d(*args, **kwargs)


OPERATORS = {
    "stride 2, even size: explicit pad": single(c(3, 8, 3, 2, 1), nn.ReLU(), features=8),
    "5×5, stride 2": single(c(3, 8, 5, 2, 2), nn.ReLU(), features=8),
    "valid": single(c(3, 8, 3), features=8),
    "more padding than a kernel needs": single(c(3, 8, 2, 2, 1), nn.ReLU(), features=8),
    "dilated": single(c(3, 8, 3, padding=2, dilation=2), features=8),
    "depthwise with multiplier 2": single(c(3, 4, 1), c(4, 8, 3, 2, 1, groups=4), nn.ReLU(), features=8),
    "one-channel depthwise": single(c(3, 1, 1), c(1, 6, 3, padding=1), nn.ReLU(), features=6),
    "separable kernels": single(c(3, 8, (1, 5), padding=(0, 2)), c(8, 8, (5, 1), (2, 1), (2, 0)), features=8),
    "padded 1×1": single(c(3, 8, 1, padding=2), nn.ReLU(), features=8),
    "max pool": single(c(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), features=8),
    "padded max pool of signed codes": single(c(3, 8, 3, padding=1), nn.MaxPool2d(3, 2, 1), features=8),
    "padded average pool": single(c(3, 8, 3, padding=1), nn.AvgPool2d(3, 2, 1), features=8),
    "average pool to 2×2, flattened": single(c(3, 8, 3), nn.AdaptiveAvgPool2d(2), features=32, flat=True),
    "flatten of a map": single(c(3, 6, 3, 2, 1), nn.ReLU(), features=6 * 64, flat=True),
    "BatchNorm alone": single(nn.BatchNorm2d(3), c(3, 8, 3), nn.ReLU6(), nn.BatchNorm2d(8), features=8),
    "two linear layers": single(c(3, 4, 3, 2), nn.Flatten(), nn.Linear(196, 16), nn.ReLU(), features=16, flat=True),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_single_operator_is_identical_and_runs_on_integers(name, tmp_path):
    plan = quantize(settled(OPERATORS[name], seed=1, size=16), images(96, 1, 16))
    found, operators = compare(plan, images(150, 2, 16), tmp_path)
    for first, second, third in found.values():
        assert np.array_equal(first, second)
        assert np.array_equal(second, third)
        assert np.ptp(first) > 20
    assert set(operators) <= INTEGER_OPERATORS


def test_int8_onnx_holds_the_same_integers_without_the_shift(tmp_path):
    plan, x = quantize(settled(separable), images(64, 1)), images(50, 2)
    onnx_writer.write(plan, tmp_path / "s8.onnx", activation="int8")
    found, operators = in_onnx(tmp_path / "s8.onnx", codes_of(plan, x).numpy(), shift=0)
    assert np.array_equal(found["logits"], integer.run(plan, x)["logits"])
    assert set(operators) <= INTEGER_OPERATORS


def test_onnx_answers_do_not_depend_on_the_batch(tmp_path):
    plan, x = quantize(settled(residual), images(64, 1)), images(7, 2)
    onnx_writer.write(plan, tmp_path / "net.onnx")
    codes = codes_of(plan, x).numpy()
    together, _ = in_onnx(tmp_path / "net.onnx", codes)
    apart = [in_onnx(tmp_path / "net.onnx", codes[i : i + 1])[0]["logits"] for i in range(7)]
    assert np.array_equal(together["logits"], np.concatenate(apart))


def test_percentile_plan_is_identical_too(tmp_path):
    torch.manual_seed(1)
    build = lambda: Net(conv(3, 8, stride=2), Inverted(8, 8, 1, 2), features=8)  # noqa: E731
    plan = quantize(settled(build), images(64, 1), observer="percentile", percentile=99.5)
    found, _ = compare(plan, images(100, 2), tmp_path)
    assert np.array_equal(found["logits"][0], found["logits"][1])
    assert np.array_equal(found["logits"][1], found["logits"][2])
