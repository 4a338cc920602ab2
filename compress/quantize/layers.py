# SPDX-License-Identifier: Apache-2.0
"""Layers with weights, read from an exported graph: convolutions, linear layers, batch normalisation."""

from typing import Any

import torch
from torch import Tensor

from compress.quantize.reader import Arguments, Node, Reader, shape_of, unsupported

__all__ = ["batch_norm", "conv1d", "conv2d", "linear", "pair"]

_MOST_GROUPS = 8  # a grouped convolution is written as a dense one with zeros: as many times the work


def pair(values: Any, *, is_series: bool = False, neutral: int = 1) -> tuple[int, int]:
    """Return (height, width) of a number, one or two numbers; a series has the neutral element as its height.

    Example:
        >>> pair(3), pair([1, 2]), pair([5], is_series=True)
        ((3, 3), (1, 2), (1, 5))
    """
    items = [values] if isinstance(values, int) else list(values)
    if is_series:
        return neutral, items[0]
    return (items[0], items[0]) if len(items) == 1 else (items[0], items[1])


def conv2d(r: Reader, n: Node, a: Arguments) -> None:
    """Emit a convolution of maps."""
    _convolution(r, n, a, _weight(r, n, a), is_series=False)


def conv1d(r: Reader, n: Node, a: Arguments) -> None:
    """Emit a convolution of series as one of maps of height 1: both runtimes have no other kernels."""
    _convolution(r, n, a, _weight(r, n, a).unsqueeze(2), is_series=True)


def _weight(r: Reader, n: Node, a: Arguments) -> Tensor:
    weight = r.tensor(a["weight"])
    if weight is None:
        raise unsupported(n, "a layer whose weight is computed", "store the weight as a parameter")
    return weight


def _convolution(r: Reader, n: Node, a: Arguments, weight: Tensor, *, is_series: bool) -> None:
    groups, channels = int(a["groups"]), shape_of(a["input"])[1]
    if groups not in (1, channels):
        weight, groups = _dense(n, weight, groups), 1
    dilation = pair(a["dilation"], is_series=is_series)
    padding = _padding(a["padding"], (weight.shape[2], weight.shape[3]), dilation, is_series=is_series)
    steps = {"stride": pair(a["stride"], is_series=is_series), "dilation": dilation}
    bias = _bias(r.tensor(a["bias"]), weight)
    r.emit(n, "conv2d", (a["input"],), weight=weight, bias=bias, attributes=steps | padding | {"groups": (groups,)})


def _dense(n: Node, weight: Tensor, groups: int) -> Tensor:
    """Spread grouped weights [out, in / groups, …] over all inputs: no old runtime and no Edge TPU has groups."""
    if groups > _MOST_GROUPS:
        fix = f"use at most {_MOST_GROUPS} groups, or one group per channel"
        raise unsupported(n, f"a grouped convolution ({groups} groups)", fix)
    parts = weight.chunk(groups)
    wide = weight.new_zeros(weight.shape[0], weight.shape[1] * groups, *weight.shape[2:])
    for i, part in enumerate(parts):
        rows, columns = part.shape[:2]
        wide[i * rows : (i + 1) * rows, i * columns : (i + 1) * columns] = part
    return wide


def _bias(bias: Tensor | None, weight: Tensor) -> Tensor:
    return torch.zeros(weight.shape[0]) if bias is None else bias


def _padding(
    padding: Any, kernel: tuple[int, int], dilation: tuple[int, int], *, is_series: bool
) -> dict[str, tuple[int, int, int, int]]:
    """[top, left, bottom, right]; PyTorch's "same" (stride 1 only) puts the odd pixel at the end."""
    if padding == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        before = [t // 2 for t in total]
        return {"padding": (before[0], before[1], total[0] - before[0], total[1] - before[1])}
    top, left = (0, 0) if padding == "valid" else pair(padding, is_series=is_series, neutral=0)
    return {"padding": (top, left, top, left)}


def linear(r: Reader, n: Node, a: Arguments) -> None:
    """Emit a fully-connected layer on [batch, features]."""
    weight = _weight(r, n, a)
    if len(shape_of(n)) != 2:
        raise unsupported(n, "a linear layer on more than two dimensions", "flatten to [batch, features] before it")
    r.emit(n, "linear", (a["input"],), weight=weight, bias=_bias(r.tensor(a["bias"]), weight))


def batch_norm(r: Reader, n: Node, a: Arguments) -> None:
    """Emit a factor and an offset per channel, in float64."""
    mean, variance = r.tensor(a["running_mean"]), r.tensor(a["running_var"])
    if a["training"] or mean is None or variance is None:
        raise unsupported(n, "a BatchNorm without running statistics", "train it with track_running_stats, then eval()")
    gamma, beta = r.tensor(a["weight"]), r.tensor(a["bias"])
    factor = (torch.ones_like(mean) if gamma is None else gamma).double() / torch.sqrt(variance.double() + a["eps"])
    offset = (torch.zeros_like(mean) if beta is None else beta).double() - mean.double() * factor
    r.emit(n, "batch_norm", (a["input"],), weight=factor, bias=offset)
