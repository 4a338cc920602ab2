# SPDX-License-Identifier: Apache-2.0
"""Bias correction: the mean shift that rounding causes, in closed form and measured."""

import numpy as np
import pytest
import torch

from compress.quantize.bias import corrected, matched
from compress.quantize.graph import FloatOp


def linear(weight, bias, **more):
    return FloatOp("linear", "l", ("x",), "y", (len(bias),), torch.tensor(weight), torch.tensor(bias), **more)


def test_corrected_bias_makes_the_mean_output_what_it_was():
    torch.manual_seed(0)
    weight, x = torch.randn(5, 7), torch.rand(200, 7)
    codes = torch.round(weight / 0.1).numpy().astype(np.int8)
    op = FloatOp("linear", "l", ("x",), "y", (5,), weight, torch.randn(5))
    bias = corrected(op, codes, np.array([0.1], np.float32), x.mean(0))
    before = (x @ weight.T + op.bias).double().mean(0)
    after = (x.double() @ torch.from_numpy(codes * np.float64(np.float32(0.1))).T + bias).mean(0)
    assert after.tolist() == pytest.approx(before.tolist(), abs=1e-6)


def test_corrected_bias_of_a_depthwise_layer_uses_its_own_channel():
    attributes = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": (2,)}
    weight = torch.tensor([0.4, 0.9]).view(2, 1, 1, 1)
    op = FloatOp("conv2d", "l", ("x",), "y", (2, 1, 1), weight, torch.zeros(2), attributes)
    bias = corrected(
        op, np.array([[[[1]]], [[[2]]]], np.int8), np.array([0.5, 0.5], np.float32), torch.tensor([10.0, 1.0])
    )
    assert bias.tolist() == pytest.approx([-1.0, -0.1], abs=1e-6)


def test_matched_mean_without_a_clamp_is_the_difference():
    op = linear([[1.0], [1.0]], [0.5, -0.5])
    answers, targets = torch.tensor([[1.0, 2.0], [3.0, 2.0]]), torch.tensor([[2.0, 0.0], [4.0, 1.0]])
    assert matched(op, answers, targets).tolist() == [1.5, -2.0]


@pytest.mark.parametrize("high", [float("inf"), 6.0])
def test_matched_mean_is_that_behind_the_clamp(high):
    generator = torch.Generator().manual_seed(0)
    targets = 3 * torch.randn(500, 4, 3, 3, generator=generator)
    answers = targets * torch.tensor([1.3, 0.8, 1.0, 1.1]).view(1, 4, 1, 1) - 0.7
    op = linear([[1.0]] * 4, [0.0] * 4, low=0.0, high=high)
    bias = matched(op, answers, targets)
    after = (answers.double() + bias.view(1, 4, 1, 1)).clamp(0, high).mean((0, 2, 3))
    assert after.tolist() == pytest.approx(targets.double().clamp(0, high).mean((0, 2, 3)).tolist(), abs=1e-3)


def test_channel_that_is_always_clamped_is_matched_before_the_clamp():
    op = linear([[1.0]], [0.0], low=0.0)
    assert matched(op, torch.full((10, 1), -5.0), torch.full((10, 1), -4.0)).tolist() == [1.0]
