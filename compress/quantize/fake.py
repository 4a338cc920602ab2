# SPDX-License-Identifier: Apache-2.0
"""Fake quantization with learned steps: a float32 value as its integer code would give it back, and gradients for both.

Rounding has no slope, so the gradient passes it unchanged where the code is inside its limits and stops where it
saturates. The step's own gradient follows from the same rule applied to step × round(x / step): the rounding error in
steps inside the limits, the limit itself outside. Summed against the incoming gradient g that is

    dL/dstep = (Σ g · output - Σ g · inside · x) / step,

two inner products. It is scaled by 1 / sqrt(values × largest code): then clipping the gradient's norm does not stop the
weights for the sake of a few steps whose gradients are sums over a whole tensor.

Forward are four passes in place over a fresh tensor: on a CPU that is many times faster than PyTorch's own operator.

Reference:
    Esser et al., "Learned Step Size Quantization", 2020, equations 1 to 5 and section 2.2 (the factor); Bhalgat et al.,
    "LSQ+: Improving low-bit quantization through learnable offsets and better initialization", 2020 (the zero point).
"""

from math import prod, sqrt
from typing import Any

import torch
from torch import Tensor

from compress.quantize.semantics import HIGH, LOW

__all__ = ["fake_activation", "fake_weight"]


def fake_activation(x: Tensor, step: Tensor, zero: Tensor) -> Tensor:
    """Return x [N, ...] as int8 codes with one step and zero point give it back.

    Args:
        x: Real values.
        step: Positive scalar, real per code; its gradient is the scaled one of LSQ.
        zero: Scalar, the code of zero, rounded here; its gradient is LSQ+'s with the same factor.

    Example:
        >>> x, step = torch.tensor([[0.26, 300.0]], requires_grad=True), torch.tensor(0.1, requires_grad=True)
        >>> fake_activation(x, step, torch.tensor(-128.0))
        tensor([[ 0.3000, 25.5000]], grad_fn=<_FakeActivationBackward>)
        >>> fake_activation(x, step, torch.tensor(-128.0)).sum().backward()
        >>> x.grad, round(float(step.grad) * (2 * 127) ** 0.5, 3)  # 3 - 2.6 inside, 255 outside
        (tensor([[1., 0.]]), 255.4)
    """
    fake: Tensor = _FakeActivation.apply(  # type: ignore[no-untyped-call]
        x, step, zero, 1.0 / sqrt(max(prod(x.shape[1:]), 1) * HIGH)
    )
    return fake


def fake_weight(weight: Tensor, steps: Tensor, limit: int) -> Tensor:
    """Return weights [out, ...] as codes in -limit..limit with their steps give them back.

    Args:
        weight: Real values.
        steps: Positive, [out], or [1] for all.
        limit: The largest code: 127, or 7 with four bits.

    Example:
        >>> fake_weight(torch.tensor([[0.26, -1.0]]), torch.tensor([0.1]), 7)
        tensor([[ 0.3000, -0.7000]])
    """
    values = weight.numel() // steps.numel()
    fake: Tensor = _FakeWeight.apply(  # type: ignore[no-untyped-call]
        weight, steps, limit, 1.0 / sqrt(values * limit)
    )
    return fake


class _FakeActivation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, zero: Tensor, factor: float) -> Tensor:
        s, z = float(step), round(float(zero))
        low, high = LOW - z, HIGH - z
        output = (x / s).round_().clamp_(low, high).mul_(s)
        if step.requires_grad:
            ctx.save_for_backward(x, output)
        else:
            ctx.save_for_backward(x)
        ctx.numbers = s, low * s, high * s, factor
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        (grad,), (x, *saved) = grads, ctx.saved_tensors
        s, low, high, factor = ctx.numbers
        passed = torch.ops.aten.hardtanh_backward(grad, x, low, high)
        of_step = of_zero = None
        if ctx.needs_input_grad[1]:
            of_step = (_inner(grad, saved[0]) - _inner(passed, x)) * (factor / s)
        if ctx.needs_input_grad[2]:
            of_zero = (passed.sum() - grad.sum()) * (factor * s)
        return passed, of_step, of_zero, None


class _FakeWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, steps: Tensor, limit: int, factor: float) -> Tensor:
        wide = steps.view(-1, *[1] * (weight.dim() - 1))
        output = (weight / wide).round_().clamp_(-limit, limit).mul_(wide)
        ctx.save_for_backward(weight, wide, output)
        ctx.numbers = limit, factor
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor | None, None, None]:
        (grad,), (weight, wide, output) = grads, ctx.saved_tensors
        limit, factor = ctx.numbers
        passed = grad * (weight.abs() <= limit * wide)
        of_steps = None
        if ctx.needs_input_grad[1]:
            sums = (grad * output - passed * weight).flatten(1).sum(1)
            of_steps = (sums if wide.numel() > 1 else sums.sum().view(1)) * (factor / wide.flatten())
        return passed, of_steps, None, None


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Σ a · b; maps are laid out channels last, so that neither is copied."""
    if a.dim() == 4:
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    return torch.dot(a.reshape(-1), b.reshape(-1))
