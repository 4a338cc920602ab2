# SPDX-License-Identifier: Apache-2.0
"""Which layer each operator of an exported program came from: the table that turns the one into the other."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

__all__ = ["LAYERS", "PLAIN", "Arguments", "Layer", "Lookup"]

Arguments = dict[str, Any]
Layer = tuple[type[nn.Module], tuple[Any, ...], dict[str, Any], dict[str, Tensor | None]]
"""(class, positional arguments, keyword arguments, tensors by their names in the layer)."""
aten = torch.ops.aten


class Lookup(Protocol):
    """Finds the parameter or buffer behind an argument, None for what is computed."""

    def __call__(self, node: Any) -> Tensor | None: ...


def _convolution(a: Arguments, find: Lookup) -> Layer | None:
    weight = find(a["weight"])
    if weight is None:
        return None
    rank, groups = weight.dim() - 2, int(a["groups"])
    words = {name: _tupled(a[name], rank) for name in ("stride", "padding", "dilation")}
    words |= {"groups": groups, "bias": a["bias"] is not None}
    values = {"weight": weight, "bias": find(a["bias"])}
    if a.get("transposed") or ("output_padding" in a and "transposed" not in a):
        words["output_padding"] = _tupled(a["output_padding"], rank)
        kinds: tuple[type[nn.Module], ...] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
        channels = weight.shape[0], weight.shape[1] * groups
    else:
        kinds, channels = (nn.Conv1d, nn.Conv2d, nn.Conv3d), (weight.shape[1] * groups, weight.shape[0])
    return kinds[rank - 1], (*channels, tuple(weight.shape[2:])), words, values


def _tupled(value: Any, rank: int) -> Any:
    """A text ("same") stays; one number stands for every dimension."""
    if isinstance(value, str):
        return value
    items = tuple(value)
    return items * rank if len(items) == 1 else items


def _linear(a: Arguments, find: Lookup) -> Layer | None:
    return _dense(find(a["weight"]), a["bias"], find)


def _dense(weight: Tensor | None, bias: Any, find: Lookup) -> Layer | None:
    if weight is None or weight.dim() != 2 or (bias is not None and find(bias) is None):
        return None
    values = {"weight": weight, "bias": find(bias)}
    return nn.Linear, (weight.shape[1], weight.shape[0]), {"bias": bias is not None}, values


def _addmm(a: Arguments, find: Lookup) -> Layer | None:
    """Bias + x · weightᵀ, which is what a linear layer becomes in the core operators."""
    if a["alpha"] != 1 or a["beta"] != 1:
        return None
    return _dense(find(_turned(a["mat2"])), a["self"], find)


def _mm(a: Arguments, find: Lookup) -> Layer | None:
    return _dense(find(_turned(a["mat2"])), None, find)


def _turned(node: Any) -> Any:
    """Return what a transposition turns, None if the node is none."""
    is_turn = isinstance(node, fx.Node) and node.target in {aten.permute.default, aten.t.default, aten.transpose.int}
    return node.args[0] if is_turn else None


def _batch_norm(a: Arguments, find: Lookup) -> Layer | None:
    mean, variance = find(a["running_mean"]), find(a["running_var"])
    if mean is None or variance is None:
        return None
    values = {"weight": find(a["weight"]), "bias": find(a["bias"]), "running_mean": mean, "running_var": variance}
    values["num_batches_tracked"] = torch.tensor(0)
    rank = len(a["input"].meta["val"].shape)
    kinds = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    words = {"eps": a["eps"], "momentum": a["momentum"], "affine": a["weight"] is not None}
    return kinds[rank], (mean.shape[0],), words, values


def _layer_norm(a: Arguments, find: Lookup) -> Layer | None:
    shape = tuple(a["normalized_shape"])
    values = {"weight": find(a["weight"]), "bias": find(a["bias"])}
    words = {"eps": a["eps"], "elementwise_affine": a["weight"] is not None, "bias": a["bias"] is not None}
    return nn.LayerNorm, (shape,), words, values


def _group_norm(a: Arguments, find: Lookup) -> Layer | None:
    weight = find(a["weight"])
    if weight is None:
        return None
    return (
        nn.GroupNorm,
        (a["num_groups"], weight.shape[0]),
        {"eps": a["eps"]},
        {"weight": weight, "bias": find(a["bias"])},
    )


def _embedding(a: Arguments, find: Lookup) -> Layer | None:
    weight = find(a["weight"])
    return None if weight is None else (nn.Embedding, tuple(weight.shape), {}, {"weight": weight})


def _prelu(a: Arguments, find: Lookup) -> Layer | None:
    weight = find(a["weight"])
    return None if weight is None else (nn.PReLU, (weight.numel(),), {}, {"weight": weight})


LAYERS: dict[Any, tuple[str, Callable[[Arguments, Lookup], Layer | None]]] = {
    # operator: (argument that is the layer's input, how the layer is read)
    aten.conv1d.default: ("input", _convolution),
    aten.conv1d.padding: ("input", _convolution),
    aten.conv2d.default: ("input", _convolution),
    aten.conv2d.padding: ("input", _convolution),
    aten.conv3d.default: ("input", _convolution),
    aten.conv_transpose1d.default: ("input", _convolution),
    aten.conv_transpose2d.input: ("input", _convolution),
    aten.convolution.default: ("input", _convolution),
    aten.linear.default: ("input", _linear),
    aten.addmm.default: ("mat1", _addmm),
    aten.mm.default: ("self", _mm),
    aten.batch_norm.default: ("input", _batch_norm),
    aten._native_batch_norm_legit_no_training.default: ("input", _batch_norm),  # noqa: SLF001
    aten.layer_norm.default: ("input", _layer_norm),
    aten.native_layer_norm.default: ("input", _layer_norm),
    aten.group_norm.default: ("input", _group_norm),
    aten.embedding.default: ("indices", _embedding),
    aten.prelu.default: ("self", _prelu),
}


def _pool(kind: type[nn.Module]) -> Callable[[Arguments], nn.Module]:
    def make(a: Arguments) -> nn.Module:
        words = {"kernel_size": _one(a["kernel_size"]), "padding": _one(a["padding"]), "ceil_mode": a["ceil_mode"]}
        words["stride"] = _one(a["stride"]) if a["stride"] else None
        for name in ("dilation", "count_include_pad", "divisor_override"):
            if name in a:
                words[name] = _one(a[name])
        return kind(**words)

    return make


def _one(value: Any) -> Any:
    """A list of one number is that number: layers of series take it so."""
    if not isinstance(value, list):
        return value
    return value[0] if len(value) == 1 else tuple(value)


def _is_default(words: Arguments, **defaults: Any) -> bool:
    return all(words[name] == value for name, value in defaults.items())


def _clamp(a: Arguments) -> nn.Module | None:
    bounds = a["min"], a.get("max")
    if bounds == (0, None):
        return nn.ReLU()
    return nn.ReLU6() if bounds == (0, 6) else None


def _hardtanh(a: Arguments) -> nn.Module:
    six = _is_default(a, min_val=0, max_val=6)
    return nn.ReLU6() if six else nn.Hardtanh(a["min_val"], a["max_val"])


def _flatten(a: Arguments) -> nn.Module:
    return nn.Flatten(a["start_dim"], a["end_dim"])


PLAIN: dict[Any, Callable[[Arguments], nn.Module | None]] = {
    # layers without parameters; None leaves the operator as a function
    aten.relu.default: lambda a: nn.ReLU(),
    aten.relu_.default: lambda a: nn.ReLU(),
    aten.relu6.default: lambda a: nn.ReLU6(),
    aten.hardtanh.default: _hardtanh,
    aten.hardtanh_.default: _hardtanh,
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.hardswish.default: lambda a: nn.Hardswish(),
    aten.hardswish_.default: lambda a: nn.Hardswish(),
    aten.hardsigmoid.default: lambda a: nn.Hardsigmoid(),
    aten.hardsigmoid_.default: lambda a: nn.Hardsigmoid(),
    aten.silu.default: lambda a: nn.SiLU(),
    aten.silu_.default: lambda a: nn.SiLU(),
    aten.sigmoid.default: lambda a: nn.Sigmoid(),
    aten.sigmoid_.default: lambda a: nn.Sigmoid(),
    aten.tanh.default: lambda a: nn.Tanh(),
    aten.gelu.default: lambda a: nn.GELU(a["approximate"]),
    aten.elu.default: lambda a: nn.ELU(a["alpha"]),
    aten.leaky_relu.default: lambda a: nn.LeakyReLU(a["negative_slope"]),
    aten.leaky_relu_.default: lambda a: nn.LeakyReLU(a["negative_slope"]),
    aten.dropout.default: lambda a: nn.Dropout(a["p"]),
    aten.dropout_.default: lambda a: nn.Dropout(a["p"]),
    aten.feature_dropout.default: lambda a: nn.Dropout2d(a["p"]),
    aten.flatten.using_ints: _flatten,
    aten.adaptive_avg_pool1d.default: lambda a: nn.AdaptiveAvgPool1d(_one(a["output_size"])),
    aten.adaptive_avg_pool2d.default: lambda a: nn.AdaptiveAvgPool2d(_one(a["output_size"])),
    aten.avg_pool1d.default: _pool(nn.AvgPool1d),
    aten.avg_pool2d.default: _pool(nn.AvgPool2d),
    aten.max_pool1d.default: _pool(nn.MaxPool1d),
    aten.max_pool2d.default: _pool(nn.MaxPool2d),
}
