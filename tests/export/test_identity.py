# SPDX-License-Identifier: Apache-2.0
"""The keystone: ONNX Runtime, LiteRT and PyTorch compute the same integers, in every tensor of every network."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.quantize import integer
from compress.quantize.step import quantize
from export.onnx import writer
from tests.support.identity import INTEGER_OPERATORS, codes_of, compare, hidden, in_onnx
from tests.support.quant_nets import Inverted, Net, conv, images, mobile, residual, separable, settled

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


class Gated(nn.Module):
    """Squeeze-and-excitation between two convolutions, with a gate of one's choice."""

    def __init__(self, act, gate):
        super().__init__()
        self.first, self.act, self.squeeze, self.gate = c(3, 8, 3), act, c(8, 8, 1), gate

    def forward(self, x):
        x = self.act(self.first(x))
        return x * self.gate(self.squeeze(F.adaptive_avg_pool2d(x, 1)))


class Joined(nn.Module):
    """Branches with different clamps, joined; one of them read by an addition too."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.d = c(3, 4, 3, padding=1), c(3, 6, 1), c(3, 4, 5, padding=2)

    def forward(self, x):
        a, b = F.relu(self.a(x)), self.b(x)
        return torch.cat([a, b, F.relu6(self.d(x)) + a, F.max_pool2d(b, 3, 1, 1)], 1)


class Product(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = c(3, 6, 3), c(3, 6, 3)

    def forward(self, x):
        return torch.sigmoid(self.a(x)) * F.relu(self.b(x)) + self.a(x)


OPERATORS = {
    "hard-swish": single(c(3, 8, 3), nn.Hardswish(), c(8, 8, 1), features=8),
    "hard-swish, then pool": single(c(3, 8, 3), nn.Hardswish(), nn.MaxPool2d(2), features=8),
    "SiLU": single(c(3, 8, 3), nn.SiLU(), c(8, 8, 1), features=8),
    "sigmoid": single(c(3, 8, 3), nn.Sigmoid(), features=8),
    "hard-sigmoid gate": single(Gated(nn.ReLU(), nn.Hardsigmoid()), features=8),
    "sigmoid gate of SiLU": single(Gated(nn.SiLU(), nn.Sigmoid()), features=8),
    "gate of hard-swish": single(Gated(nn.Hardswish(), nn.Hardsigmoid()), features=8),
    "product, sigmoid, sum": single(Product(), features=6),
    "joined channels": single(Joined(), features=20),
    "grouped": single(c(3, 6, 3), nn.ReLU(), c(6, 9, 3, groups=3), features=9),
    "explicit padding": single(nn.ZeroPad2d((0, 1, 0, 1)), c(3, 8, 3, 2), nn.ReLU(), features=8),
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
        assert np.ptp(first) > 10
    assert set(operators) <= INTEGER_OPERATORS


def test_series_are_identical(tmp_path):
    torch.manual_seed(3)
    body = (nn.Conv1d(3, 8, 5, 2, 2), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(8, 8, 3, groups=8), nn.Hardswish())
    net = nn.Sequential(*body, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    series = lambda count, seed: images(count, seed, 32).mean(2)  # noqa: E731
    found, operators = compare(quantize(net, series(96, 1)), series(150, 2), tmp_path)
    for first, second, third in found.values():
        assert np.array_equal(first, second)
        assert np.array_equal(second, third)
    assert set(operators) <= INTEGER_OPERATORS


def test_both_forms_of_onnx_hold_the_same_integers(tmp_path):
    plan, x = quantize(settled(mobile), images(64, 1)), images(50, 2)
    for is_qdq in (False, True):
        writer.write(plan, tmp_path / "net.onnx", is_qdq=is_qdq)
        found, operators = in_onnx(tmp_path / "net.onnx", codes_of(plan, x).numpy())
        assert np.array_equal(found["logits"], integer.run(plan, x)["logits"])
        assert set(operators) <= INTEGER_OPERATORS


def test_int8_onnx_holds_the_same_integers_without_the_shift(tmp_path):
    plan, x = quantize(settled(separable), images(64, 1)), images(50, 2)
    writer.write(plan, tmp_path / "s8.onnx", activation="int8")
    found, operators = in_onnx(tmp_path / "s8.onnx", codes_of(plan, x).numpy(), shift=0)
    assert np.array_equal(found["logits"], integer.run(plan, x)["logits"])
    assert set(operators) <= INTEGER_OPERATORS


def test_onnx_answers_do_not_depend_on_the_batch(tmp_path):
    plan, x = quantize(settled(residual), images(64, 1)), images(7, 2)
    writer.write(plan, tmp_path / "net.onnx")
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
