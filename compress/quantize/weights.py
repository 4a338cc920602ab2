# SPDX-License-Identifier: Apache-2.0
"""Scales and integers of weights and biases, once the scales of the tensors around them are final."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.quantize.bias import corrected
from compress.quantize.graph import FloatOp
from compress.quantize.plan import Constant
from compress.quantize.semantics import WEIGHT_HIGH, fixed_point_multiplier
from edge_contract.errors import ModelError, UnsupportedOperatorError

__all__ = ["added_constant", "constants", "weight_limit", "weight_scales"]

FOUR_BITS_HIGH = 7
_BIAS_LIMIT = 2.0**30
_FINEST_MULTIPLIER = 2.0**-21  # a channel finer than that moves no output; with it |bias| < 255 × 2**21 < 2**30


def weight_limit(op: FloatOp) -> int:
    """Return the largest code of a layer's weights: 127, or 7 with four bits."""
    return WEIGHT_HIGH if op.weight_bits == 8 else FOUR_BITS_HIGH


def weight_scales(op: FloatOp) -> NDArray[Any]:
    """Return the scales of the weights: [out] of a convolution, [1] of a linear layer (old runtimes read no others)."""
    assert op.weight is not None
    if op.steps is not None:
        return op.steps.numpy().astype(np.float32)
    largest = op.weight.double().abs().flatten(1).amax(1)
    scales = (largest if op.kind == "conv2d" else largest.amax().reshape(1)) / weight_limit(op)
    coarsest = float(scales.max()) or 2.0**-40
    # A channel of zeros has no scale of its own: the layer's coarsest one is as exact for it.
    return torch.where(scales > 0, scales, coarsest).numpy().astype(np.float32)


def constants(
    op: FloatOp, steps: tuple[float, float], notes: list[str], mean: Tensor | None = None, *, fixed_point: bool
) -> tuple[Constant, Constant]:
    """Return the weight and the bias of one layer, rounded to their scales.

    Args:
        op: A conv2d or linear.
        steps: Scales of its input and output.
        notes: Grows by a sentence where a scale had to grow.
        mean: Mean input per channel, for bias correction (``bias``); None leaves the bias as it is.
        fixed_point: Choose multipliers that kernels with double rounding compute alike (``semantics``).

    Raises:
        ModelError: Scales beyond float32.
        UnsupportedOperatorError: A layer so wide that its int32 sums may overflow.
    """
    chosen = _grown_scales(op, *steps, notes, fixed_point=fixed_point)
    assert op.weight is not None
    assert op.bias is not None
    source = np.float32(steps[0])
    product = (source * np.broadcast_to(chosen, (op.weight.shape[0],))).astype(np.float32)
    weight = _rounded(op, chosen) if op.codes is None else op.codes.numpy()
    wanted = op.bias.double() if mean is None else corrected(op, weight, chosen, mean)
    bias = np.rint(wanted.numpy() / product.astype(np.float64)).astype(np.int32)
    _check_sums(op, weight, bias)
    axis = 0 if op.kind == "conv2d" else None
    bias_scales = product if axis == 0 else product[:1]
    return (
        Constant(f"{op.name}.weight", weight, chosen, axis, 4 if op.weight_bits == 4 else 0),
        Constant(f"{op.name}.bias", bias, bias_scales, axis),
    )


def _rounded(op: FloatOp, scales: NDArray[Any]) -> NDArray[Any]:
    assert op.weight is not None
    shape, limit = (-1, *([1] * (op.weight.dim() - 1))), weight_limit(op)
    codes = np.rint(op.weight.double().numpy() / scales.astype(np.float64).reshape(shape))
    return np.clip(codes, -limit, limit).astype(np.int8)


def _check_sums(op: FloatOp, weight: NDArray[Any], bias: NDArray[Any]) -> None:
    largest = np.abs(weight.astype(np.int64)).reshape(weight.shape[0], -1).sum(1) * 255 + np.abs(bias.astype(np.int64))
    if largest.max() >= 2**31:
        what = "its sums may overflow int32"
        raise UnsupportedOperatorError(what, where=f"layer '{op.name}'", fix="split it into two layers")


def _grown_scales(
    op: FloatOp, source: float, target: float, notes: list[str], *, fixed_point: bool
) -> NDArray[np.float32]:
    """Weight scales [out] or [1], large enough for the bias in int32, and moved to multipliers that round alike."""
    assert op.bias is not None
    wanted = weight_scales(op)
    needed = op.bias.double().abs().numpy() / (source * _BIAS_LIMIT)
    needed = needed if op.kind == "conv2d" else needed.max(keepdims=True)
    grown = np.maximum(wanted, np.maximum(needed, max(target / source * _FINEST_MULTIPLIER, 2.0**-100)))
    count = int((grown > wanted).sum())
    if count:
        notes.append(f"layer '{op.name}': {count} weight scales grown, so that the bias fits in int32")
    if fixed_point and op.low == 0.0:  # it works for positive sums only
        ratio = target / source
        grown = np.array([fixed_point_multiplier(float(scale) / ratio) * ratio for scale in grown])
    final: NDArray[np.float32] = grown.astype(np.float32)
    products = np.float32(source) * final
    if not np.isfinite(products).all() or (products < 2.0**-120).any():
        raise ModelError("scales leave the range of float32", where=f"layer '{op.name}'", fix="rescale its weights")
    return final


def added_constant(op: FloatOp, unit: float) -> Constant:
    """Return the constant of an add_constant: a multiple of ``unit`` near its value, as one int8 code."""
    assert op.weight is not None
    value = float(op.weight[0])
    nearest = round(value / unit) * unit
    return Constant(f"{op.name}.constant", np.array([127], np.int8), np.array([nearest / 127], np.float32), None)
