# SPDX-License-Identifier: Apache-2.0
"""Layers that slide over height and width, or over time: convolutions and pools, with the padding of Keras.

"same" in Keras gives ceil(size / stride) outputs and puts the odd one of the padding at the end, which PyTorch cannot
do with a stride: such padding becomes a layer of its own.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.sources.assembly import filled
from compress.sources.keras_net import Array, Builder, Step, Value

__all__ = ["conv", "depthwise", "global_pool", "pool", "same_padding", "separable", "transposed"]

Pads = list[tuple[int, int]]
_CONVS = (nn.Conv1d, nn.Conv2d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d)
_ZEROS: Any = (nn.ZeroPad1d, nn.ZeroPad2d)
_CONSTANTS: Any = (nn.ConstantPad1d, nn.ConstantPad2d)


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Return how many zeros Keras puts before and after.

    Example:
        >>> same_padding(28, 3, 1), same_padding(28, 3, 2), same_padding(27, 3, 2)
        ((1, 1), (0, 1), (1, 1))
    """
    reach = dilation * (kernel - 1) + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def _check_form(step: Step) -> None:
    if step.config.get("data_format", "channels_last") != "channels_last":
        raise step.unsupported("channels first", "build it with data_format='channels_last'")


def _pads(step: Step, x: Value, kernel: tuple[int, ...]) -> Pads:
    config, sizes = step.config, x.shape[:-1]
    dilation = _numbers(config.get("dilation_rate", 1), len(sizes))
    strides = _numbers(config["strides"], len(sizes))
    match config["padding"]:
        case "valid":
            return [(0, 0)] * len(sizes)
        case "same":
            return [same_padding(*one) for one in zip(sizes, kernel, strides, dilation, strict=True)]
        case "causal":
            return [(dilation[0] * (kernel[0] - 1), 0)]
    raise step.unsupported(f"padding '{config['padding']}'")


def _numbers(value: Any, count: int) -> tuple[int, ...]:
    return (int(value),) * count if isinstance(value, int) else tuple(int(one) for one in value)


def _flat(pads: Pads) -> tuple[int, ...]:
    """Return the padding as PyTorch's padding layers want it: the last dimension first."""
    return tuple(number for pair in reversed(pads) for number in pair)


def tensor(array: Array) -> Tensor:
    """Return a weight as a tensor of its own."""
    return torch.from_numpy(np.array(array, np.float32, order="C"))


def _convolution(b: Builder, step: Step, x: Value, weight: Tensor, *, groups: int, part: str = "") -> Value:
    """Convolve with weight [out, in / groups, …]; ``part`` names the half of a separable convolution."""
    _check_form(step)
    kernel = tuple(weight.shape[2:])
    rank, is_point = len(kernel), part == "pointwise"
    pads = [(0, 0)] * rank if is_point else _pads(step, x, kernel)
    node, is_even = x.node, all(before == after for before, after in pads)
    if not is_even:
        node = b.add(step, _ZEROS[rank - 1](_flat(pads)), node, "pad")
    words: dict[str, Any] = {"groups": groups, "padding": tuple(before if is_even else 0 for before, _ in pads)}
    if not is_point:
        words["stride"] = _numbers(step.config["strides"], rank)
        words["dilation"] = _numbers(step.config.get("dilation_rate", 1), rank)
    bias = None if part == "depthwise" else step.weights.get("bias")
    values = {"weight": weight, "bias": None if bias is None else tensor(bias)}
    channels = weight.shape[1] * groups, weight.shape[0]
    layer = filled(_CONVS[rank - 1], *channels, kernel, bias=bias is not None, values=values, **words)
    return Value(b.add(step, layer, node, part), step.shape)


def conv(b: Builder, step: Step) -> Value:
    """Conv1D and Conv2D; a kernel is [*size, in / groups, out]."""
    kernel = step.weights["kernel"]
    weight = tensor(np.moveaxis(kernel, (-1, -2), (0, 1)))
    return _convolution(b, step, b.source(step), weight, groups=int(step.config.get("groups", 1)))


def _per_channel(kernel: Array) -> Tensor:
    """Turn a depthwise kernel [*size, channels, multiplier] into [channels · multiplier, 1, *size]."""
    moved = np.moveaxis(kernel, (-2, -1), (0, 1))
    return tensor(moved.reshape(-1, 1, *moved.shape[2:]))


def depthwise(b: Builder, step: Step) -> Value:
    """DepthwiseConv1D and DepthwiseConv2D; newer files call the kernel ``kernel``."""
    kernel = step.weights.get("depthwise_kernel", step.weights.get("kernel"))
    assert kernel is not None
    return _convolution(b, step, b.source(step), _per_channel(kernel), groups=kernel.shape[-2])


def separable(b: Builder, step: Step) -> Value:
    """SeparableConv1D and SeparableConv2D: a depthwise and a pointwise convolution."""
    first, second = step.weights["depthwise_kernel"], step.weights["pointwise_kernel"]
    between = _convolution(b, step, b.source(step), _per_channel(first), groups=first.shape[-2], part="depthwise")
    weight = tensor(np.moveaxis(second, (-1, -2), (0, 1)))
    return _convolution(b, step, between, weight, groups=1, part="pointwise")


def transposed(b: Builder, step: Step) -> Value:
    """Conv1DTranspose and Conv2DTranspose; a kernel is [*size, out, in], and what is too much is cut off."""
    _check_form(step)
    x, kernel = b.source(step), step.weights["kernel"]
    weight = tensor(np.moveaxis(kernel, (-1, -2), (0, 1)))
    rank, bias = weight.dim() - 2, step.weights.get("bias")
    words: dict[str, Any] = {"stride": _numbers(step.config["strides"], rank), "bias": bias is not None}
    words["dilation"] = _numbers(step.config.get("dilation_rate", 1), rank)
    if step.config.get("output_padding") is not None:
        raise step.unsupported("output_padding", "leave it out")
    values = {"weight": weight, "bias": None if bias is None else tensor(bias)}
    layer = filled(
        _TRANSPOSED[rank - 1], weight.shape[0], weight.shape[1], tuple(weight.shape[2:]), values=values, **words
    )
    node = b.add(step, layer, x.node)
    sizes = [
        (size - 1) * stride + dilation * (kernel - 1) + 1
        for size, stride, dilation, kernel in zip(
            x.shape, words["stride"], words["dilation"], weight.shape[2:], strict=False
        )
    ]
    over = [full - wanted for full, wanted in zip(sizes, step.shape, strict=False)]
    # "same" gives size × stride; the odd one of what is too much goes at the end; too little is filled with zeros.
    pads = [(-(one // 2), one // 2 - one) if one > 0 else (0, -one) for one in over]
    if any(one != (0, 0) for one in pads):
        node = b.add(step, _ZEROS[rank - 1](_flat(pads)), node, "crop")
    return Value(node, step.shape)


def pool(b: Builder, step: Step) -> Value:
    """MaxPooling and AveragePooling; padding never counts in an average, nor wins a maximum."""
    _check_form(step)
    x, is_max = b.source(step), step.kind.startswith("Max")
    rank = len(x.shape) - 1
    kernel = _numbers(step.config["pool_size"], rank)
    stride = _numbers(step.config["strides"], rank)
    pads = _pads(step, x, kernel)
    words: dict[str, Any] = {"kernel_size": kernel, "stride": stride}
    node = x.node
    if all(before == after for before, after in pads):
        words["padding"] = tuple(before for before, _ in pads)
    elif all(pad == (0, 0) or (pad == (0, 1) and step_ > 1) for pad, step_ in zip(pads, stride, strict=True)):
        words["ceil_mode"] = True  # the last window hangs over by one
    elif is_max:
        node = b.add(step, _CONSTANTS[rank - 1](_flat(pads), float("-inf")), node, "pad")
    else:
        raise step.unsupported(f"an average with padding {pads}", "use padding='valid'")
    kinds: tuple[Any, ...] = (nn.MaxPool1d, nn.MaxPool2d) if is_max else (nn.AvgPool1d, nn.AvgPool2d)
    if not is_max:
        words["count_include_pad"] = False
    if rank == 1:
        words = {key: value[0] if isinstance(value, tuple) else value for key, value in words.items()}
    return Value(b.add(step, kinds[rank - 1](**words), node), step.shape)


def global_pool(b: Builder, step: Step) -> Value:
    """GlobalAveragePooling and GlobalMaxPooling."""
    _check_form(step)
    x = b.source(step)
    rank = len(x.shape) - 1
    kinds: tuple[Any, ...] = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
    if "Max" in step.kind:
        kinds = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)
    pooled = b.add(step, kinds[rank - 1](1), x.node)
    if step.config.get("keepdims"):
        return Value(pooled, step.shape)
    return Value(b.add(step, nn.Flatten(), pooled, "flat"), step.shape, pooled=pooled, pooled_rank=rank + 1)
