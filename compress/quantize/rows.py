# SPDX-License-Identifier: Apache-2.0
"""What a layer sees as rows: each output value is one row of inputs times the weights, plus the bias."""

from torch import Tensor
from torch.nn import functional as F

from compress.quantize.graph import FloatOp, pad_asymmetric

__all__ = ["by_group", "groups_of", "input_rows", "output_rows"]


def groups_of(op: FloatOp) -> int:
    """Return how many groups of outputs read inputs of their own: 1, or the channels of a depthwise convolution."""
    return op.attributes["groups"][0] if op.kind == "conv2d" else 1


def by_group(op: FloatOp, weight: Tensor) -> Tensor:
    """Return weights [out, in / groups, …] as [groups, out / groups, row length]."""
    return weight.reshape(groups_of(op), -1, weight[0].numel())


def input_rows(op: FloatOp, x: Tensor) -> Tensor:
    """Return what a conv2d or linear multiplies with its weights: [groups, rows, row length], one row an output pixel.

    Example:
        >>> op = FloatOp("linear", "head", ("x",), "y", (1,))
        >>> input_rows(op, Tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
        [[[1.0, 2.0], [3.0, 4.0]]]
    """
    if op.kind == "linear":
        return x.unsqueeze(0)
    a = op.attributes
    assert op.weight is not None
    padded, kernel = pad_asymmetric(x, a["padding"], 0.0), tuple(op.weight.shape[2:])
    patches = F.unfold(padded, kernel, dilation=a["dilation"], stride=a["stride"])  # [N, in · kernel, pixels]
    count, groups = patches.shape[0], groups_of(op)
    return patches.reshape(count, groups, -1, patches.shape[-1]).permute(1, 0, 3, 2).flatten(1, 2)


def output_rows(op: FloatOp, y: Tensor) -> Tensor:
    """Return a layer's output [N, out, …] in the same order: [groups, rows, out / groups]."""
    pixels = y.flatten(2) if y.dim() > 2 else y.unsqueeze(2)
    count, groups = pixels.shape[0], groups_of(op)
    return pixels.reshape(count, groups, -1, pixels.shape[-1]).permute(1, 0, 3, 2).flatten(1, 2)
