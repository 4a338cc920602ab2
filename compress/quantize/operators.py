# SPDX-License-Identifier: Apache-2.0
"""What each PyTorch operator becomes: the table of all that can be quantized."""

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from compress.quantize.graph import FloatOp
from compress.quantize.reader import Arguments, Handler, Reader, layer_of, unsupported

__all__ = ["HANDLERS"]

aten = torch.ops.aten


def _pair(values: Any) -> tuple[int, int]:
    items = [values] if isinstance(values, int) else list(values)
    return (items[0], items[0]) if len(items) == 1 else (items[0], items[1])


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _conv2d(r: Reader, n: Node, a: Arguments) -> None:
    w, b, groups = r.tensor(a["weight"]), r.tensor(a["bias"]), int(a["groups"])
    if w is None:
        raise unsupported(n, "a convolution whose weight is computed", "store the weight as a parameter")
    if groups != 1 and groups != _shape(a["input"])[1]:
        fix = "use groups=1 or one group per input channel"
        raise unsupported(n, f"a grouped convolution ({groups} groups)", fix)
    dilation = _pair(a["dilation"])
    padding = _conv_padding(a["padding"], _pair(w.shape[2:]), dilation)
    attributes = {"stride": _pair(a["stride"]), "padding": padding, "dilation": dilation, "groups": (groups,)}
    r.emit(n, "conv2d", (a["input"],), weight=w, bias=_bias(b, w), attributes=attributes)


def _bias(bias: Tensor | None, weight: Tensor) -> Tensor:
    return torch.zeros(weight.shape[0]) if bias is None else bias


def _conv_padding(padding: Any, kernel: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int, int, int]:
    """[top, left, bottom, right]; PyTorch's "same" (stride 1 only) puts the odd pixel at the end."""
    if padding == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2
    if padding == "valid":
        return 0, 0, 0, 0
    top, left = _pair(padding)
    return top, left, top, left


def _linear(r: Reader, n: Node, a: Arguments) -> None:
    w, b = r.tensor(a["weight"]), r.tensor(a["bias"])
    if w is None or len(_shape(n)) != 2:
        raise unsupported(n, "a linear layer on more than two dimensions", "flatten to [batch, features] before it")
    r.emit(n, "linear", (a["input"],), weight=w, bias=_bias(b, w))


def _batch_norm(r: Reader, n: Node, a: Arguments) -> None:
    mean, variance = r.tensor(a["running_mean"]), r.tensor(a["running_var"])
    if a["training"] or mean is None or variance is None:
        raise unsupported(n, "a BatchNorm without running statistics", "train it with track_running_stats, then eval()")
    gamma, beta = r.tensor(a["weight"]), r.tensor(a["bias"])
    factor = (torch.ones_like(mean) if gamma is None else gamma).double() / torch.sqrt(variance.double() + a["eps"])
    offset = (torch.zeros_like(mean) if beta is None else beta).double() - mean.double() * factor
    r.emit(n, "batch_norm", (a["input"],), weight=factor, bias=offset)


def _clamp(r: Reader, n: Node, a: Arguments) -> None:
    """ReLU, ReLU6, hardtanh and clamp, whose bounds have different names."""
    low = a.get("min", a.get("min_val", 0.0))
    high = a.get("max", a.get("max_val", 6.0 if n.target is aten.relu6.default else None))
    if low != 0:
        raise unsupported(n, f"a clamp to [{low}, {high}]", "use ReLU or ReLU6")
    r.emit(n, "clamp", (a["self"],), low=0.0, high=float("inf") if high is None else float(high))


def _add(r: Reader, n: Node, a: Arguments) -> None:
    operands = (a["self"], a["other"])
    shapes = [_shape(operand) for operand in operands if isinstance(operand, Node)]
    if a["alpha"] != 1 or len(shapes) != 2 or shapes[0] != shapes[1]:
        raise unsupported(n, "an addition of different shapes or with a factor", "add two tensors of one shape")
    r.emit(n, "add", operands)


def _mean(r: Reader, n: Node, a: Arguments) -> None:
    source, dims = a["self"], a["dim"]
    shape = _shape(source)
    if len(shape) != 4 or sorted(d % 4 for d in dims or ()) != [2, 3]:
        raise unsupported(n, f"a mean over dimensions {dims}", "use AdaptiveAvgPool2d(1)")
    if a["keepdim"]:
        r.emit(n, "global_pool", (source,))
        return
    pooled, layer, channels = f"{n.name}_pooled", layer_of(n), shape[1]
    r.operations.append(FloatOp("global_pool", layer, (r.name(source),), pooled, (channels, 1, 1)))
    r.operations.append(FloatOp("flatten", layer, (pooled,), n.name, (channels,)))


def _adaptive_pool(r: Reader, n: Node, a: Arguments) -> None:
    height, width = _shape(a["self"])[2:]
    out_h, out_w = _pair(a["output_size"])
    if (out_h, out_w) == (1, 1):
        r.emit(n, "global_pool", (a["self"],))
        return
    if height % out_h or width % out_w:
        fix = "use AdaptiveAvgPool2d(1) or a size that divides it"
        raise unsupported(n, f"an adaptive pool from {height}×{width} to {out_h}×{out_w}", fix)
    kernel = (height // out_h, width // out_w)
    _average(r, n, a["self"], {"kernel": kernel, "stride": kernel, "padding": (0, 0, 0, 0)}, kernel[0] * kernel[1])


def _avg_pool(r: Reader, n: Node, a: Arguments) -> None:
    window = _window(a)
    if a["ceil_mode"] or (any(window["padding"]) and not a["count_include_pad"]):
        raise unsupported(n, "ceil_mode or count_include_pad=False with padding", "use padding=0 and ceil_mode=False")
    kernel = window["kernel"]
    _average(r, n, a["self"], window, a["divisor_override"] or kernel[0] * kernel[1])


def _average(r: Reader, n: Node, source: Node, window: dict[str, tuple[int, ...]], divisor: int) -> None:
    """An average pool is a depthwise convolution with equal weights: one rounding rule less to agree on."""
    channels = _shape(source)[1]
    weight = torch.full((channels, 1, *window["kernel"]), 1.0 / divisor)
    attributes = {"stride": window["stride"], "padding": window["padding"], "dilation": (1, 1), "groups": (channels,)}
    r.emit(n, "conv2d", (source,), weight=weight, bias=torch.zeros(channels), attributes=attributes)


def _window(a: Arguments) -> dict[str, tuple[int, ...]]:
    kernel, padding = _pair(a["kernel_size"]), _pair(a["padding"])
    return {"kernel": kernel, "stride": _pair(a["stride"]) if a["stride"] else kernel, "padding": (*padding, *padding)}


def _max_pool(r: Reader, n: Node, a: Arguments) -> None:
    if a["ceil_mode"] or _pair(a["dilation"]) != (1, 1):
        raise unsupported(n, "a max pool with ceil_mode or dilation", "use ceil_mode=False and dilation=1")
    r.emit(n, "max_pool", (a["self"],), attributes=_window(a))


def _reshape(r: Reader, n: Node, a: Arguments) -> None:
    before, after = _shape(a["self"]), _shape(n)
    if before == after:
        r.skip(n, a["self"])
    elif len(after) == 2 and after[0] == before[0]:
        r.emit(n, "flatten", (a["self"],))
    else:
        raise unsupported(n, f"a reshape from {list(before)} to {list(after)}", "use flatten(1) before the last layers")


def _same_tensor(r: Reader, n: Node, a: Arguments) -> None:
    r.skip(n, a["self"])


def _dropout(r: Reader, n: Node, a: Arguments) -> None:
    if a["train"]:
        raise unsupported(n, "a dropout in training mode", "call model.eval() before the export")
    r.skip(n, a["input"])


HANDLERS: dict[Any, Handler] = {
    aten.conv2d.default: _conv2d,
    aten.conv2d.padding: _conv2d,
    aten.linear.default: _linear,
    aten.batch_norm.default: _batch_norm,
    aten.relu.default: _clamp,
    aten.relu_.default: _clamp,
    aten.relu6.default: _clamp,
    aten.hardtanh.default: _clamp,
    aten.hardtanh_.default: _clamp,
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.add.Tensor: _add,
    aten.add_.Tensor: _add,
    aten.mean.dim: _mean,
    aten.adaptive_avg_pool2d.default: _adaptive_pool,
    aten.avg_pool2d.default: _avg_pool,
    aten.max_pool2d.default: _max_pool,
    aten.flatten.using_ints: _reshape,
    aten.view.default: _reshape,
    aten.reshape.default: _reshape,
    aten.squeeze.default: _reshape,
    aten.squeeze.dim: _reshape,
    aten.squeeze.dims: _reshape,
    aten.contiguous.default: _same_tensor,
    aten.clone.default: _same_tensor,
    aten.alias.default: _same_tensor,
    aten.detach.default: _same_tensor,
    aten.dropout.default: _dropout,
    aten.dropout_.default: _dropout,
}
