# SPDX-License-Identifier: Apache-2.0
"""Operators over windows and shapes, read from an exported graph: pools, means, padding, flattening."""

import torch

from compress.quantize.graph import FloatOp
from compress.quantize.layers import pair
from compress.quantize.reader import Arguments, Node, Reader, canonical, layer_of, shape_of, unsupported

__all__ = ["adaptive_pool", "avg_pool", "max_pool", "mean", "pad", "reshape"]

Window = dict[str, tuple[int, ...]]


def mean(r: Reader, n: Node, a: Arguments) -> None:
    """Emit a mean over all of height and width (or the length of a series)."""
    source, dims = a["self"], a["dim"]
    shape = shape_of(source)
    rank = len(shape)
    if rank not in (3, 4) or sorted(d % rank for d in dims or ()) != list(range(2, rank)):
        raise unsupported(n, f"a mean over dimensions {dims}", "use AdaptiveAvgPool2d(1)")
    if a["keepdim"]:
        r.emit(n, "global_pool", (source,))
        return
    pooled, layer, channels = f"{n.name}_pooled", layer_of(n), shape[1]
    r.operations.append(FloatOp("global_pool", layer, (r.name(source),), pooled, (channels, 1, 1)))
    r.operations.append(FloatOp("flatten", layer, (pooled,), n.name, (channels,)))


def adaptive_pool(r: Reader, n: Node, a: Arguments) -> None:
    """Emit a global pool, or an average pool where the size is a divisor."""
    before, after = canonical(shape_of(a["self"])[1:]), canonical(shape_of(n)[1:])
    if after[1:] == (1, 1):
        r.emit(n, "global_pool", (a["self"],))
        return
    if before[1] % after[1] or before[2] % after[2]:
        fix = "use AdaptiveAvgPool2d(1) or a size that divides it"
        raise unsupported(n, f"an adaptive pool from {before[1]}×{before[2]} to {after[1]}×{after[2]}", fix)
    kernel = (before[1] // after[1], before[2] // after[2])
    _average(r, n, a["self"], {"kernel": kernel, "stride": kernel, "padding": (0, 0, 0, 0)}, kernel[0] * kernel[1])


def avg_pool(r: Reader, n: Node, a: Arguments) -> None:
    """Emit an average pool."""
    window = _window(n, a)
    if a["ceil_mode"] or (any(window["padding"]) and not a["count_include_pad"]):
        raise unsupported(n, "ceil_mode or count_include_pad=False with padding", "use padding=0 and ceil_mode=False")
    kernel = window["kernel"]
    _average(r, n, a["self"], window, a.get("divisor_override") or kernel[0] * kernel[1])


def _average(r: Reader, n: Node, source: Node, window: Window, divisor: int) -> None:
    """An average pool is a depthwise convolution with equal weights: one rounding rule less to agree on."""
    channels = shape_of(source)[1]
    weight = torch.full((channels, 1, *window["kernel"]), 1.0 / divisor)
    attributes = {"stride": window["stride"], "padding": window["padding"], "dilation": (1, 1), "groups": (channels,)}
    r.emit(n, "conv2d", (source,), weight=weight, bias=torch.zeros(channels), attributes=attributes)


def _window(n: Node, a: Arguments) -> Window:
    is_series = len(shape_of(n)) == 3
    kernel = pair(a["kernel_size"], is_series=is_series)
    padding = pair(a["padding"], is_series=is_series, neutral=0)
    stride = pair(a["stride"], is_series=is_series) if a["stride"] else kernel
    return {"kernel": kernel, "stride": stride, "padding": (*padding, *padding)}


def max_pool(r: Reader, n: Node, a: Arguments) -> None:
    """Emit a max pool."""
    if a["ceil_mode"] or pair(a["dilation"]) != (1, 1):
        raise unsupported(n, "a max pool with ceil_mode or dilation", "use ceil_mode=False and dilation=1")
    r.emit(n, "max_pool", (a["self"],), attributes=_window(n, a))


def pad(r: Reader, n: Node, a: Arguments) -> None:
    """Emit zero padding of height and width, which the convolution behind it takes over."""
    amounts = [*a["pad"], 0, 0, 0, 0][:4]  # left, right, top, bottom
    is_zero = a.get("mode", "constant") == "constant" and not a["value"]
    if not is_zero or len(a["pad"]) > 4 or min(amounts) < 0 or len(shape_of(n)) not in (3, 4):
        raise unsupported(n, "a padding that is not zeros around a map", "use zero padding before a convolution")
    left, right, top, bottom = amounts
    r.emit(n, "pad", (a["self"],), attributes={"padding": (top, left, bottom, right)})


def reshape(r: Reader, n: Node, a: Arguments) -> None:
    """Emit a flatten, or nothing where the plan's shape stays."""
    before, after = shape_of(a["self"]), shape_of(n)
    if before[0] == after[0] and canonical(before[1:]) == canonical(after[1:]):
        r.skip(n, a["self"])
    elif len(after) == 2 and after[0] == before[0]:
        r.emit(n, "flatten", (a["self"],))
    else:
        raise unsupported(n, f"a reshape from {list(before)} to {list(after)}", "use flatten(1) before the last layers")
