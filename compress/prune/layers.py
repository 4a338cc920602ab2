# SPDX-License-Identifier: Apache-2.0
"""The kinds of layers that pruning knows: those it cuts, those whose channels it leaves, those it refuses."""

from typing import Final

from torch import nn

from edge_contract.errors import UnsupportedOperatorError

__all__ = ["LAYERS", "NORMS", "PER_CHANNEL", "TRANSPOSED", "is_depthwise", "refuse", "whole_reason", "widths"]

TRANSPOSED: Final = (nn.ConvTranspose1d, nn.ConvTranspose2d)
LAYERS: Final = (nn.Conv1d, nn.Conv2d, *TRANSPOSED, nn.Linear)
NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d)
PER_CHANNEL: Final = (*NORMS, nn.PReLU)
"""Layers with some numbers for each channel, which simply go with it."""


def is_depthwise(module: nn.Module) -> bool:
    """Say whether each channel has a filter of its own: the channels that come in are those that go out.

    Example:
        >>> is_depthwise(nn.Conv2d(4, 4, 3, groups=4)), is_depthwise(nn.Conv2d(1, 1, 3))
        (True, False)
    """
    return isinstance(module, LAYERS) and getattr(module, "groups", 1) == getattr(module, "out_channels", 0) > 1


def widths(module: nn.Module) -> tuple[int, int]:
    """Return the inputs and outputs of a convolution or linear layer.

    Example:
        >>> widths(nn.Conv1d(3, 8, 5)), widths(nn.Linear(4, 2))
        ((3, 8), (4, 2))
    """
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    assert isinstance(module, (nn.Conv1d, nn.Conv2d, *TRANSPOSED))
    return module.in_channels, module.out_channels


_REFUSED: Final = {
    nn.RNNBase: "its gates share one hidden state that feeds back into itself, so no single unit can go",
    nn.MultiheadAttention: "its heads are packed into one weight; write attention with nn.Linear and its MLPs shrink",
}
_WHOLE: Final = {
    nn.LayerNorm: "LayerNorm centres all features together",
    nn.GroupNorm: "GroupNorm centres the channels of a group together",
    nn.Embedding: "an embedding's features are not cut",
}


def refuse(model: nn.Module) -> None:
    """Refuse a network with a layer beside which no pruning is safe.

    Raises:
        UnsupportedOperatorError: There is one; names it, with the reason.

    Example:
        >>> refuse(nn.Sequential(nn.Conv2d(4, 8, 1, groups=2)))
        Traceback (most recent call last):
        edge_contract.errors.UnsupportedOperatorError: 0: a convolution of 2 groups cannot lose single channels; use \
groups = 1 or one group for each channel
    """
    for name, module in model.named_modules():
        where = name or "the model itself"
        if isinstance(module, LAYERS) and 1 < getattr(module, "groups", 1) < widths(module)[1]:
            what = f"a convolution of {module.groups} groups cannot lose single channels"
            raise UnsupportedOperatorError(what, where=where, fix="use groups = 1 or one group for each channel")
        for kind, reason in _REFUSED.items():
            if isinstance(module, kind):
                what = f"pruning does not handle {type(module).__name__}: {reason}"
                raise UnsupportedOperatorError(what, where=where, fix="leave out the prune step")


def whole_reason(module: object) -> str | None:
    """Return why channels that pass through this layer stay, None where they need not.

    Example:
        >>> whole_reason(nn.LayerNorm(4)), whole_reason(nn.ReLU())
        ('LayerNorm centres all features together', None)
    """
    if isinstance(module, nn.Parameter):
        return "a parameter outside of any layer goes with these channels"
    if not isinstance(module, nn.Module) or isinstance(module, (*LAYERS, *PER_CHANNEL)):
        return None
    known = next((reason for kind, reason in _WHOLE.items() if isinstance(module, kind)), None)
    if known is None and next(module.parameters(recurse=False), None) is not None:
        return f"{type(module).__name__} has parameters that pruning does not know"
    return known
