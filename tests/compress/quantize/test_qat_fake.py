# SPDX-License-Identifier: Apache-2.0
"""Fake quantization: the integers' own values forward; the paper's gradients, and PyTorch's, backward."""

import math

import pytest
import torch

from compress.quantize import semantics
from compress.quantize.fake import fake_activation, fake_weight
from compress.quantize.learned_steps import LearnedSteps


def leaf(values):
    return torch.as_tensor(values, dtype=torch.float32).requires_grad_()


@pytest.mark.parametrize(("scale", "zero"), [(0.013, -128), (0.2, -7), (0.5, 127)])
def test_forward_gives_what_the_codes_give_back(scale, zero):
    x = torch.randn(4, 3, 5, 5) * 20
    expected = semantics.dequantize(semantics.quantize(x, semantics.float32(scale), zero), scale, zero)
    assert torch.equal(fake_activation(x, torch.tensor(scale), torch.tensor(float(zero))), expected)


def test_step_gradient_by_the_papers_equation():
    # Equation 3: -v + round(v) inside, the limit outside; here v = 2.4, -0.3, 300, -200 with codes -128..127.
    step, x = leaf(0.5), torch.tensor([[1.2, -0.15, 150.0, -100.0]])
    fake_activation(x, step, torch.tensor(0.0)).sum().backward()
    expected = (2 - 2.4) + (0 + 0.3) + 127 - 128
    assert float(step.grad) * math.sqrt(4 * 127) == pytest.approx(expected, abs=1e-4)


def test_zero_point_gradient_by_the_papers_equation():
    # LSQ+: saturated values move against the zero point, a step for each; the others do not.
    zero, x = leaf(10.0), torch.tensor([[1.0, 500.0, -500.0, 700.0]])
    (fake_activation(x, torch.tensor(0.5), zero) * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert float(zero.grad) * math.sqrt(4 * 127) == pytest.approx(-0.5 * (2 + 3 + 4), rel=1e-5)


@pytest.mark.parametrize("shape", [(8, 6), (4, 3, 6, 5)])
def test_activation_gradients_are_pytorchs(shape):
    generator = torch.Generator().manual_seed(1)
    values, slope = (torch.randn(shape, generator=generator) for _ in range(2))
    values = (values * 3).to(memory_format=torch.channels_last) if len(shape) == 4 else values * 3
    mine, step, zero = leaf(values), leaf(0.017), leaf(40.0)
    (fake_activation(mine, step, zero) * slope).sum().backward()
    theirs, scale, offset = leaf(values), leaf([0.017]), leaf([40.0])  # torch 2.13 rounds negative ones to -39
    factor = 1 / math.sqrt(values[0].numel() * 127)
    fake = torch._fake_quantize_learnable_per_tensor_affine(theirs, scale, offset, -128, 127, factor)
    (fake * slope).sum().backward()
    assert torch.allclose(mine.grad, theirs.grad)
    assert float(step.grad) == pytest.approx(float(scale.grad), rel=1e-3)
    assert float(zero.grad) == pytest.approx(float(offset.grad), rel=1e-3)


def test_weight_gradients_are_pytorchs():
    generator = torch.Generator().manual_seed(2)
    values, slope = (torch.randn(4, 3, 2, 2, generator=generator) for _ in range(2))
    first = [0.05, 0.3, 0.1, 0.7]  # some channels saturate at 7 steps, some do not
    mine, steps = leaf(values), leaf(first)
    (fake_weight(mine, steps, 7) * slope).sum().backward()
    theirs, scales = leaf(values), leaf(first)
    factor = 1 / math.sqrt(12 * 7)
    fake = torch._fake_quantize_learnable_per_channel_affine(theirs, scales, torch.zeros(4), 0, -7, 7, factor)
    (fake * slope).sum().backward()
    assert torch.allclose(fake_weight(mine, steps, 7), fake, atol=1e-6)
    assert torch.allclose(mine.grad, theirs.grad)
    assert torch.allclose(steps.grad, scales.grad, rtol=1e-3)


def test_one_step_for_a_whole_layer_sums_over_it():
    weight, step = leaf([[0.3, 9.0], [-9.0, 0.1]]), leaf([1.0])
    (fake_weight(weight, step, 7) * torch.tensor([[1.0, 1.0], [1.0, 10.0]])).sum().backward()
    assert float(step.grad[0]) * math.sqrt(4 * 7) == pytest.approx(-0.3 + 7 - 7 - 1.0, rel=1e-5)
    assert weight.grad.tolist() == [[1.0, 0.0], [0.0, 10.0]]


def test_frozen_steps_have_no_gradient_and_do_not_move():
    steps = LearnedSteps(torch.tensor([0.5, 2.0]), torch.ones(2))
    torch.nn.init.constant_(steps.theta, 0.1)
    steps.adopt(torch.tensor([0.6, 2.4]), freeze=True)
    assert not steps().requires_grad
    assert steps().tolist() == pytest.approx([0.6, 2.4])
    assert steps.asked().tolist() == pytest.approx([0.5 * math.exp(0.1), 2.0 * math.exp(0.1)])  # as it was asked for
    steps.adopt(torch.tensor([0.6, 2.4]), freeze=True)
    assert steps.asked().tolist() == pytest.approx([0.5 * math.exp(0.1), 2.0 * math.exp(0.1)])


def test_given_steps_stay_while_others_learn():
    steps = LearnedSteps(torch.tensor([0.5, 2.0]), torch.tensor([3.0, 0.0]))
    steps().sum().backward()
    assert steps.theta.grad.tolist() == pytest.approx([0.5 * 3.0, 0.0])
