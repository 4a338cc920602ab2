# SPDX-License-Identifier: Apache-2.0
"""What a factorised layer looks like, and how it takes the layer's place: plain layers in an ``nn.Sequential``.

The place keeps the layer's name, so ``body.conv`` becomes ``body.conv.reduce``, ``body.conv.expand`` and so on, which
torch.export, torch-pruning and the quantizer read like any other layers.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.edits import Change
from compress.recipe_table import nearest
from edge_contract.errors import ModelError

__all__ = ["CONVOLUTIONS", "LAYERS", "apply", "fill", "most_ranks", "replace", "thin"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
LAYERS = (*CONVOLUTIONS, nn.Linear)
Layer = nn.Conv1d | nn.Conv2d | nn.Linear


def apply(model: nn.Module, changes: Sequence[Change]) -> nn.Module:
    """Give a fresh network the shape that ``factorize`` gave another one; weights are then loaded by the caller.

    Args:
        model: Changed in place and returned.
        changes: (layer, ``svd`` | ``spatial-svd`` | ``tucker-2``, ranks).

    Raises:
        ModelError: A record does not fit the network; names the layer.

    Example:
        >>> net = apply(nn.Sequential(nn.Linear(8, 6)), [("0", "svd", (2,))])
        >>> {name: list(value.shape) for name, value in net.state_dict().items()}
        {'0.reduce.weight': [2, 8], '0.expand.weight': [6, 2], '0.expand.bias': [6]}
    """
    for layer, how, ranks in changes:
        module = dict(model.named_modules()).get(layer)
        if module is None:
            names = [name for name, found in model.named_modules() if type(found) in LAYERS]
            raise ModelError("there is no such layer", where=layer, fix=nearest(layer, names, verb="use"))
        replace(model, module, thin(module, how, ranks, where=layer))
    return model


def replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module in every place where another one stands."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)


def most_ranks(module: nn.Module, how: str) -> tuple[int, ...]:
    """Return the ranks at which nothing is lost; empty if the layer has no such factorisation.

    Example:
        >>> most_ranks(nn.Conv2d(4, 8, 3), "spatial-svd"), most_ranks(nn.Linear(4, 8), "tucker-2")
        ((12,), ())
    """
    if type(module) not in LAYERS or getattr(module, "groups", 1) != 1:
        return ()
    weight: Any = module.weight
    outputs, inputs, *kernel = weight.shape
    if how == "svd":
        return (min(outputs, weight[0].numel()),)
    if how == "spatial-svd" and len(kernel) == 2 and min(kernel) > 1:
        return (min(inputs * kernel[0], outputs * kernel[1]),)
    if how == "tucker-2" and any(size > 1 for size in kernel):
        return (inputs, outputs)
    return ()


def thin(module: nn.Module, how: str, ranks: Sequence[int], *, where: str = "") -> nn.Sequential:
    """Return the layers that take a layer's place, of its type and device, with weights still to be filled in.

    Raises:
        ModelError: The layer has no such factorisation, or not of these ranks.
    """
    most = most_ranks(module, how)
    if not most:
        what = f"{type(module).__name__} has no factorisation '{how}'"
        raise ModelError(what, where=where, fix="take it out of ranks, or use another method")
    if len(ranks) != len(most) or any(not 0 < rank <= full for rank, full in zip(ranks, most, strict=True)):
        what = f"ranks {list(ranks)} of a layer that has at most {list(most)}"
        raise ModelError(what, where=where, fix="give 1 or more, up to these")
    if isinstance(module, nn.Linear):
        return _linear(module, ranks[0])
    assert isinstance(module, CONVOLUTIONS)
    return {"svd": _channel, "spatial-svd": _spatial, "tucker-2": _tucker}[how](module, ranks)


def fill(layers: nn.Sequential, factors: Sequence[Tensor], bias: Tensor | None) -> None:
    """Give thin layers their weights, in order, and the last one the bias."""
    with torch.no_grad():
        for layer, weight in zip(layers, factors, strict=True):
            layer.weight.copy_(weight.reshape(layer.weight.shape))  # type: ignore[operator,arg-type]
        if bias is not None:
            layers[-1].bias.copy_(bias)  # type: ignore[operator]


def _linear(module: nn.Linear, rank: int) -> nn.Sequential:
    words: dict[str, Any] = {"device": module.weight.device, "dtype": module.weight.dtype}
    reduce = nn.Linear(module.in_features, rank, bias=False, **words)
    expand = nn.Linear(rank, module.out_features, bias=module.bias is not None, **words)
    return nn.Sequential(OrderedDict(reduce=reduce, expand=expand))


def _conv(like: nn.Conv1d | nn.Conv2d, inputs: int, outputs: int, axes: Sequence[int], *, is_last: bool) -> nn.Module:
    """Return a convolution that works along some of the axes of another one, and is 1 wide along the others."""
    n = len(like.kernel_size)

    def along(values: Sequence[int], neutral: int) -> tuple[int, ...]:
        return tuple(values[axis] if axis in axes else neutral for axis in range(n))

    padding: Any = like.padding if isinstance(like.padding, str) else along(like.padding, 0)
    if not axes:
        padding = 0
    words: dict[str, Any] = {"device": like.weight.device, "dtype": like.weight.dtype, "padding": padding}
    words |= {"stride": along(like.stride, 1), "dilation": along(like.dilation, 1), "padding_mode": like.padding_mode}
    words |= {"kernel_size": along(like.kernel_size, 1), "bias": is_last and like.bias is not None}
    return type(like)(inputs, outputs, **words)


def _channel(module: nn.Conv1d | nn.Conv2d, ranks: Sequence[int]) -> nn.Sequential:
    axes = range(len(module.kernel_size))
    reduce = _conv(module, module.in_channels, ranks[0], axes, is_last=False)
    expand = _conv(module, ranks[0], module.out_channels, (), is_last=True)
    return nn.Sequential(OrderedDict(reduce=reduce, expand=expand))


def _spatial(module: nn.Conv1d | nn.Conv2d, ranks: Sequence[int]) -> nn.Sequential:
    vertical = _conv(module, module.in_channels, ranks[0], (0,), is_last=False)
    horizontal = _conv(module, ranks[0], module.out_channels, (1,), is_last=True)
    return nn.Sequential(OrderedDict(vertical=vertical, horizontal=horizontal))


def _tucker(module: nn.Conv1d | nn.Conv2d, ranks: Sequence[int]) -> nn.Sequential:
    reduce = _conv(module, module.in_channels, ranks[0], (), is_last=False)
    core = _conv(module, ranks[0], ranks[1], range(len(module.kernel_size)), is_last=False)
    expand = _conv(module, ranks[1], module.out_channels, (), is_last=True)
    return nn.Sequential(OrderedDict(reduce=reduce, core=core, expand=expand))
