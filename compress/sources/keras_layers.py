# SPDX-License-Identifier: Apache-2.0
"""What each Keras layer becomes: the table of all that can be read from a Keras file."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from compress.sources import keras_windows as windows
from compress.sources.assembly import filled
from compress.sources.keras_net import Array, Builder, Step, Value
from compress.sources.keras_windows import tensor

__all__ = ["LAYERS"]

Recipe = Callable[[Builder, Step], Value]
_ACTIVATIONS: Final[dict[str, Callable[[], nn.Module]]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "hard_sigmoid": nn.Hardsigmoid,
    "hard_silu": nn.Hardswish,
    "hard_swish": nn.Hardswish,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
}


def _activated(b: Builder, step: Step, x: Value) -> Value:
    """Append the activation that a layer has in its configuration."""
    name = step.config.get("activation") or "linear"
    return x if name == "linear" else _activation(b, step, x, name, part=str(name))


def _activation(b: Builder, step: Step, x: Value, name: Any, part: str = "") -> Value:
    if name == "linear":
        return x
    if name == "softmax":
        return _softmax(b, step, x, part)
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise step.unsupported(f"activation {name!r}", f"use one of {', '.join(_ACTIVATIONS)}")
    return Value(b.add(step, _ACTIVATIONS[name](), x.node, part), x.shape, x.order)


def _softmax(b: Builder, step: Step, x: Value, part: str) -> Value:
    if step.id == b.output:
        b.is_softmax_dropped = True
        b.notes.append(f"the softmax of '{step.name}' was left out: training and integers work on the logits")
        return x
    x = b.keras_order(x)
    return Value(b.add(step, nn.Softmax(1), x.node, part), x.shape)


def _with_activation(recipe: Recipe) -> Recipe:
    def both(b: Builder, step: Step) -> Value:
        return _activated(b, step, recipe(b, step))

    return both


def _dense(b: Builder, step: Step) -> Value:
    """On maps and series a dense layer is a 1×1 convolution."""
    x, kernel, bias = b.source(step), step.weights["kernel"], step.weights.get("bias")
    if len(x.shape) > 1:
        return _pointwise(b, step, x, kernel, bias)
    weight = _reordered(kernel, x.order).T
    values = {"weight": tensor(weight), "bias": None if bias is None else tensor(bias)}
    layer = filled(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None, values=values)
    return Value(b.add(step, layer, x.node), step.shape)


def _reordered(rows: Array, order: tuple[int, ...]) -> Array:
    """Return the rows [H·W·C, …] of a weight in our order, [C·H·W, …]."""
    if not order:
        return rows
    rest = rows.shape[1:]
    return np.moveaxis(rows.reshape(*order, *rest), len(order) - 1, 0).reshape(-1, *rest)


def _pointwise(b: Builder, step: Step, x: Value, kernel: Array, bias: Array | None) -> Value:
    rank = len(x.shape) - 1
    if rank > 2:
        raise step.unsupported(f"a dense layer on {rank + 1} dimensions")
    weight = tensor(kernel.T.reshape(*kernel.T.shape, *[1] * rank))
    values = {"weight": weight, "bias": None if bias is None else tensor(bias)}
    kind = (nn.Conv1d, nn.Conv2d)[rank - 1]
    layer = filled(kind, weight.shape[1], weight.shape[0], 1, bias=bias is not None, values=values)
    return Value(b.add(step, layer, x.node), step.shape)


def _batch_norm(b: Builder, step: Step) -> Value:
    x, config = b.source(step), step.config
    _check_axis(step, x, config["axis"])
    mean, variance = step.weights["moving_mean"], step.weights["moving_variance"]
    gamma, beta = step.weights.get("gamma", np.ones_like(mean)), step.weights.get("beta", np.zeros_like(mean))
    vectors = {"weight": gamma, "bias": beta, "running_mean": mean, "running_var": variance}
    values = {name: tensor(_reordered(vector, x.order)) for name, vector in vectors.items()}
    values["num_batches_tracked"] = torch.tensor(0)
    kind = nn.BatchNorm2d if len(x.shape) == 3 else nn.BatchNorm1d
    words = {"eps": float(config["epsilon"]), "momentum": 1 - float(config["momentum"])}
    layer = filled(kind, len(mean), values=values, **words)
    return Value(b.add(step, layer, x.node), step.shape, x.order)


def _check_axis(step: Step, x: Value, axis: Any) -> None:
    axes = axis if isinstance(axis, list | tuple) else [axis]
    if len(axes) != 1 or axes[0] not in (-1, len(x.shape)):
        raise step.unsupported(f"axis {axis}", "use the last axis")


def _layer_norm(b: Builder, step: Step) -> Value:
    x = b.keras_order(b.source(step))
    _check_axis(step, x, step.config["axis"])
    if len(x.shape) != 1:
        raise step.unsupported("a layer normalisation of maps", "use BatchNormalization")
    size = x.shape[0]
    values = {"weight": tensor(step.weights.get("gamma", np.ones(size)))}
    values["bias"] = tensor(step.weights.get("beta", np.zeros(size)))
    layer = filled(nn.LayerNorm, size, eps=float(step.config["epsilon"]), values=values)
    return Value(b.add(step, layer, x.node), step.shape)


def _relu(b: Builder, step: Step) -> Value:
    x, most, slope = b.source(step), step.config.get("max_value"), float(step.config.get("negative_slope") or 0)
    if float(step.config.get("threshold") or 0) or (slope and most is not None):
        raise step.unsupported("a ReLU with a threshold or two bends", "use ReLU or ReLU6")
    if slope:
        layer: nn.Module = nn.LeakyReLU(slope)
    elif most is None:
        layer = nn.ReLU()
    else:
        layer = nn.ReLU6() if float(most) == 6 else nn.Hardtanh(0.0, float(most))
    return Value(b.add(step, layer, x.node), x.shape, x.order)


def _prelu(b: Builder, step: Step) -> Value:
    x, alpha = b.source(step), step.weights["alpha"]
    if alpha.size != alpha.shape[-1] or x.order:
        raise step.unsupported("a slope for each place", "use shared_axes=[1, 2]")
    layer = filled(nn.PReLU, alpha.size, values={"weight": tensor(alpha.reshape(-1))})
    return Value(b.add(step, layer, x.node), x.shape)


def _simple(make: Callable[[dict[str, Any]], nn.Module]) -> Recipe:
    """A layer that treats every number alike."""

    def recipe(b: Builder, step: Step) -> Value:
        x = b.source(step)
        return Value(b.add(step, make(step.config), x.node), x.shape, x.order)

    return recipe


def _same(b: Builder, step: Step) -> Value:
    """A layer that does nothing outside Keras' own training."""
    return b.source(step)


def _random(b: Builder, step: Step) -> Value:
    b.notes.append(f"'{step.name}' ({step.kind}) was left out: name an augment function in [data]")
    return b.source(step)


def _operation(name: str) -> Recipe:
    """An activation that was called as a function."""
    return lambda b, step: _activation(b, step, b.source(step), name)


def _arithmetic(function: Any) -> Recipe:
    """A sum, product or the like of tensors, or of a tensor and a number."""

    def recipe(b: Builder, step: Step) -> Value:
        operands, order = _operands(b, step)
        node = operands[0]
        for other in operands[1:]:
            node = b.made.function(function, node, other)
        return Value(node, step.shape, order)

    return recipe


def _operands(b: Builder, step: Step) -> tuple[list[Any], tuple[int, ...]]:
    values = [b.values[item["step"]] if "step" in item else item for item in step.inputs]
    tensors = [value for value in values if isinstance(value, Value)]
    if len({value.order for value in tensors}) > 1:
        tensors = [b.keras_order(value) for value in tensors]
    if len({len(value.shape) for value in tensors}) != 1:
        raise step.unsupported("operands of different ranks", "reshape the smaller one to [1, 1, channels]")
    queue = iter(tensors)
    operands = [next(queue).node if isinstance(value, Value) else _number(step, value) for value in values]
    return operands, tensors[0].order


def _number(step: Step, item: dict[str, Any]) -> float:
    array = step.weights.get(item.get("array", ""))
    if array is not None and array.size == 1:
        return float(array.reshape(-1)[0])
    number = item.get("number")
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise step.unsupported("an operand that is no number", "use a Rescaling or Normalization layer")
    return float(number)


def _average(b: Builder, step: Step) -> Value:
    found = _arithmetic(torch.add)(b, step)
    return Value(b.made.function(torch.mul, found.node, 1 / len(step.inputs)), found.shape, found.order)


def _concatenate(b: Builder, step: Step) -> Value:
    values = [b.keras_order(b.values[item["step"]]) for item in step.inputs if "step" in item]
    rank = len(values[0].shape) + 1
    axis = int(step.config.get("axis", -1)) % rank
    axis = 1 if axis == rank - 1 else axis + 1
    return Value(b.made.function(torch.cat, [value.node for value in values], axis), step.shape)


def _flatten(b: Builder, step: Step) -> Value:
    x = b.source(step)
    return x if len(x.shape) == 1 else _flattened(b, step, x)


def _flattened(b: Builder, step: Step, x: Value) -> Value:
    places = int(np.prod(x.shape[:-1]))
    # One place, or one channel: both orders are the same.
    order = () if places == 1 or x.shape[-1] == 1 else x.shape
    return Value(b.add(step, nn.Flatten(), x.node), step.shape, order)


def _reshape(b: Builder, step: Step) -> Value:
    x, after = b.source(step), step.shape
    if len(after) == 1 and len(x.shape) > 1:
        return _flattened(b, step, x)
    x = b.keras_order(x)
    if len(x.shape) == 1 and after[-1] == x.shape[0]:
        if x.pooled is not None and len(after) == x.pooled_rank:
            return Value(x.pooled, after)  # squeeze and excitation: what was pooled was a map already
        node = x.node
        for _ in after[1:]:
            node = b.made.function(torch.unsqueeze, node, -1)
        return Value(node, after)
    node = b.made.function(torch.movedim, x.node, 1, -1) if len(x.shape) > 1 else x.node
    node = b.made.function(torch.reshape, node, (-1, *after))
    return Value(b.made.function(torch.movedim, node, -1, 1), after)


def _zero_padding(b: Builder, step: Step) -> Value:
    pads = step.config["padding"]
    if step.kind.endswith("1D"):
        before, after = pads if isinstance(pads, list | tuple) else (pads, pads)
        return Value(b.add(step, nn.ZeroPad1d((before, after)), b.source(step).node), step.shape)
    (top, bottom), (left, right) = pads
    return Value(b.add(step, nn.ZeroPad2d((left, right, top, bottom)), b.source(step).node), step.shape)


def _cropping(b: Builder, step: Step) -> Value:
    (top, bottom), (left, right) = step.config["cropping"]
    return Value(b.add(step, nn.ZeroPad2d((-left, -right, -top, -bottom)), b.source(step).node), step.shape)


def _up_sampling(b: Builder, step: Step) -> Value:
    size, mode = step.config["size"], step.config.get("interpolation", "nearest")
    if mode not in ("nearest", "bilinear"):
        raise step.unsupported(f"interpolation '{mode}'", "use nearest or bilinear")
    factor = tuple(float(one) for one in size) if isinstance(size, list | tuple) else float(size)
    return Value(b.add(step, nn.Upsample(scale_factor=factor, mode=mode), b.source(step).node), step.shape)


def _affine(b: Builder, step: Step, factor: Array, offset: Array) -> Value:
    """Scale and shift each channel, as a 1×1 convolution of its own, which can be trained and folded."""
    x = b.keras_order(b.source(step))
    channels, rank = x.shape[-1], len(x.shape) - 1
    if any(one.size not in (1, channels) for one in (factor, offset)) or rank > 2:
        raise step.unsupported("factors that are not one, or one for each channel")
    values = {
        name: tensor(np.broadcast_to(one.reshape(-1), (channels,)))
        for name, one in (("weight", factor), ("bias", offset))
    }
    if rank == 0:
        node = b.made.function(torch.mul, x.node, b.made.constant(f"scale_{step.id}", values["weight"]))
        return Value(b.made.function(torch.add, node, b.made.constant(f"offset_{step.id}", values["bias"])), x.shape)
    values["weight"] = values["weight"].reshape(channels, 1, *[1] * rank)
    layer = filled((nn.Conv1d, nn.Conv2d)[rank - 1], channels, channels, 1, groups=channels, values=values)
    return Value(b.add(step, layer, x.node), x.shape)


def _rescaling(b: Builder, step: Step) -> Value:
    numbers = (np.asarray(step.config[name], np.float32) for name in ("scale", "offset"))
    return _affine(b, step, *numbers)


def _normalization(b: Builder, step: Step) -> Value:
    mean, variance = (np.asarray(step.weights.get(n, step.config.get(n)), np.float32) for n in ("mean", "variance"))
    if step.config.get("invert") or mean.dtype == object:
        raise step.unsupported("an inverted normalisation")
    deviation = np.maximum(np.sqrt(variance), np.float32(1e-7))
    return _affine(b, step, 1 / deviation, -mean / deviation)


LAYERS: Final[dict[str, Recipe]] = {
    "Conv1D": _with_activation(windows.conv),
    "Conv2D": _with_activation(windows.conv),
    "DepthwiseConv1D": _with_activation(windows.depthwise),
    "DepthwiseConv2D": _with_activation(windows.depthwise),
    "SeparableConv1D": _with_activation(windows.separable),
    "SeparableConv2D": _with_activation(windows.separable),
    "Conv1DTranspose": _with_activation(windows.transposed),
    "Conv2DTranspose": _with_activation(windows.transposed),
    "Dense": _with_activation(_dense),
    "MaxPooling1D": windows.pool,
    "MaxPooling2D": windows.pool,
    "AveragePooling1D": windows.pool,
    "AveragePooling2D": windows.pool,
    "GlobalAveragePooling1D": windows.global_pool,
    "GlobalAveragePooling2D": windows.global_pool,
    "GlobalMaxPooling1D": windows.global_pool,
    "GlobalMaxPooling2D": windows.global_pool,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Activation": lambda b, step: _activation(b, step, b.source(step), step.config["activation"]),
    "ReLU": _relu,
    "LeakyReLU": _simple(lambda config: nn.LeakyReLU(float(config["negative_slope"]))),
    "ELU": _simple(lambda config: nn.ELU(float(config["alpha"]))),
    "PReLU": _prelu,
    "Softmax": lambda b, step: _activation(b, step, b.source(step), "softmax"),
    "Dropout": _simple(lambda config: nn.Dropout(float(config["rate"]))),
    "SpatialDropout1D": _simple(lambda config: nn.Dropout1d(float(config["rate"]))),
    "SpatialDropout2D": _simple(lambda config: nn.Dropout2d(float(config["rate"]))),
    "Add": _arithmetic(torch.add),
    "Subtract": _arithmetic(torch.sub),
    "Multiply": _arithmetic(torch.mul),
    "Maximum": _arithmetic(torch.maximum),
    "Minimum": _arithmetic(torch.minimum),
    "Divide": _arithmetic(torch.div),
    "TrueDivide": _arithmetic(torch.div),
    "Average": _average,
    "Concatenate": _concatenate,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "ZeroPadding1D": _zero_padding,
    "ZeroPadding2D": _zero_padding,
    "Cropping2D": _cropping,
    "UpSampling1D": _up_sampling,
    "UpSampling2D": _up_sampling,
    "Rescaling": _rescaling,
    "Normalization": _normalization,
    "Identity": _same,
    "InputLayer": _same,
    "ActivityRegularization": _same,
    "GaussianNoise": _random,
    "GaussianDropout": _random,
    "RandomFlip": _random,
    "RandomRotation": _random,
    "RandomZoom": _random,
    "RandomTranslation": _random,
    "RandomContrast": _random,
    "RandomBrightness": _random,
    "Relu": _operation("relu"),
    "Relu6": _operation("relu6"),
    "Sigmoid": _operation("sigmoid"),
    "Tanh": _operation("tanh"),
    "Silu": _operation("silu"),
    "HardSigmoid": _operation("hard_sigmoid"),
    "HardSilu": _operation("hard_silu"),
}
