# SPDX-License-Identifier: Apache-2.0
"""Bias correction: what rounding the weights adds to a layer's outputs on average is taken off its bias.

A layer whose weights are off by e gives outputs that are off by e · E[x] on average: with a few hundred weights each,
the roundings do not cancel. The mean input E[x] of each channel is seen in calibration, so the shift is known and costs
nothing to remove (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section
4.2, with measured instead of assumed means). ``matched`` does the same once both networks have been run: then what the
layers before it err is taken off too.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.quantize.graph import FloatOp

__all__ = ["corrected", "matched"]

_ROUNDS = 8
_FEWEST = 0.02  # share of a channel's values inside the clamp, below which its mean hardly moves with its bias


def corrected(op: FloatOp, codes: NDArray[np.int8], scales: NDArray[np.float32], mean: Tensor) -> Tensor:
    """Return the bias [out] of a conv2d or linear without the mean shift that its rounded weights cause.

    Padding counts as if it were ordinary input: at the borders the shift is a little smaller than what is taken off.

    Args:
        op: The layer in float.
        codes: Its rounded weights, of the shape of its weight.
        scales: [out] or [1].
        mean: Mean input per channel or feature, [in].

    Example:
        >>> op = FloatOp("linear", "head", ("x",), "y", (1,), weight=torch.tensor([[0.4]]), bias=torch.zeros(1))
        >>> corrected(op, np.array([[1]], np.int8), np.array([0.5], np.float32), torch.tensor([2.0])).round(decimals=2)
        tensor([-0.2000], dtype=torch.float64)
    """
    assert op.weight is not None
    assert op.bias is not None
    per_output = np.broadcast_to(scales.astype(np.float64), (len(codes),)).reshape(-1, *[1] * (codes.ndim - 1))
    error = torch.from_numpy(codes * per_output) - op.weight.double()
    by_input = error if error.dim() == 2 else error.sum((2, 3))
    if op.kind == "conv2d" and op.attributes["groups"][0] != 1:
        shift = by_input[:, 0] * mean.double().repeat_interleave(len(codes) // len(mean))
    else:
        shift = by_input @ mean.double()
    return op.bias.double() - shift


def matched(op: FloatOp, answers: Tensor, targets: Tensor) -> Tensor:
    """Return the bias [out], float64, with which the mean of every channel after the clamp is the wanted one.

    Newton's method, as the mean of clamped values grows with the bias by the share that is not clamped. A channel
    that is nearly always clamped gets the mean before the clamp matched instead.

    Args:
        op: The layer in float.
        answers: Its outputs [N, out, …] with rounded weights and its own bias, before the clamp.
        targets: The float network's, before the clamp too.

    Example:
        >>> op = FloatOp("linear", "head", ("x",), "y", (1,), bias=torch.tensor([1.0]), low=0.0)
        >>> matched(op, torch.tensor([[-4.0], [2.0]]), torch.tensor([[-9.0], [3.0]]))
        tensor([2.], dtype=torch.float64)
    """
    assert op.bias is not None
    found, wanted = (values.transpose(0, 1).flatten(1) for values in (answers, targets))
    plain = (wanted - found).mean(1, dtype=torch.float64)
    if np.isinf(op.low) and np.isinf(op.high):
        return op.bias.double() + plain
    aim = wanted.clamp(op.low, op.high).mean(1, dtype=torch.float64)
    shift = torch.zeros_like(plain)
    for _ in range(_ROUNDS):
        moved = found + shift.float().unsqueeze(1)
        inside = ((moved > op.low) & (moved < op.high)).double().mean(1)
        gap = aim - moved.clamp(op.low, op.high).mean(1, dtype=torch.float64)
        shift += torch.where(inside >= _FEWEST, gap / inside.clamp(min=_FEWEST), 0.0)
    after = (found + shift.float().unsqueeze(1)).clamp(op.low, op.high).mean(1, dtype=torch.float64)
    before = (found + plain.float().unsqueeze(1)).clamp(op.low, op.high).mean(1, dtype=torch.float64)
    is_better = (inside >= _FEWEST) & ((after - aim).abs() <= (before - aim).abs())
    return op.bias.double() + torch.where(is_better, shift, plain)
