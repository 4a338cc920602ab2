# SPDX-License-Identifier: Apache-2.0
"""The weights that go with each channel of a group, whatever the layer keeps them like."""

import torch
from torch import Tensor

from compress.prune.graph import Group, Member
from compress.prune.layers import LAYERS, TRANSPOSED, is_depthwise

__all__ = ["slices", "sum_by_root", "weights"]


def slices(member: Member, weight: Tensor) -> Tensor:
    """Return the weight with the pruned side first and everything else flattened, [entries, rest].

    Example:
        >>> from torch import nn
        >>> layer = nn.ConvTranspose2d(2, 3, 1)  # keeps its weight as [in, out, 1, 1]
        >>> slices(Member("up", layer, "out", (0, 2), (0, 1)), layer.weight).shape
        torch.Size([2, 2])
    """
    first = 0
    if not is_depthwise(member.module):
        first = int((member.side == "in") != isinstance(member.module, TRANSPOSED))
    return weight.transpose(0, first).flatten(1)[torch.tensor(member.channels)]


def sum_by_root(member: Member, values: Tensor, width: int) -> Tensor:
    """Return values [..., entries] added up by the group's channel that each goes with, [..., width]."""
    empty = torch.zeros(*values.shape[:-1], width)
    return empty.index_add_(-1, torch.tensor(member.roots), values)


def weights(group: Group) -> list[tuple[Member, Tensor]]:
    """Return the group's convolutions and linear layers with their weights."""
    return [(m, m.module.weight) for m in group.members if isinstance(m.module, LAYERS)]
