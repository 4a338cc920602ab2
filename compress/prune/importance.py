# SPDX-License-Identifier: Apache-2.0
"""How much each channel of a group matters: one score a channel, small ones go first.

Scores of one criterion are made comparable between groups by dividing by the group's mean, so that a global
ranking does not empty the layers whose weights happen to be small.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from compress.prune.graph import Group, Member
from edge_contract.errors import ModelError

__all__ = ["CRITERIA", "bn_scale", "magnitude", "normalised", "taylor"]


def _slices(member: Member, weight: Tensor) -> Tensor:
    """Return the weight with the pruned side first and everything else flattened, [entries, rest]."""
    rows = weight if member.side == "out" or _is_depthwise(member.module) else weight.transpose(0, 1)
    return rows.flatten(1)[torch.tensor(member.channels)]


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == module.out_channels > 1


def _sum_by_root(member: Member, values: Tensor, width: int) -> Tensor:
    return torch.zeros(width).index_add_(0, torch.tensor(member.roots), values)


def _weights(group: Group) -> list[tuple[Member, Tensor]]:
    layers = (nn.Conv2d, nn.Linear)
    return [(m, m.module.weight) for m in group.members if isinstance(m.module, layers)]


@torch.no_grad()
def magnitude(group: Group) -> Tensor:
    """Return the L2 norm of everything that goes with each channel, [width].

    s_c = sqrt(sum over the group's layers of ||W_c||²).

    Example:
        >>> layer = nn.Linear(2, 2, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        >>> magnitude(Group("l", 2, (Member("l", layer, "out", (0, 1), (0, 1)),))).tolist()
        [5.0, 1.0]

    Reference:
        Li et al. 2017, "Pruning filters for efficient ConvNets", with L2 and coupled layers added up as in
        Fang et al. 2023, "DepGraph", section 3.4.
    """
    total = torch.zeros(group.width)
    for member, weight in _weights(group):
        total += _sum_by_root(member, _slices(member, weight).square().sum(1), group.width)
    return total.sqrt()


@torch.no_grad()
def taylor(group: Group) -> Tensor:
    """Return the first-order estimate of how much the loss changes without each channel, [width].

    s_c = |sum over the weights w of channel c of w · ∂L/∂w|, added up over the group's layers. Gradients must
    have been accumulated before.

    Raises:
        ModelError: A layer has no gradient.

    Example:
        >>> layer = nn.Linear(2, 2, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        >>> layer.weight.grad = torch.tensor([[1.0, -1.0], [9.0, 2.0]])
        >>> taylor(Group("l", 2, (Member("l", layer, "out", (0, 1), (0, 1)),))).tolist()
        [1.0, 2.0]

    Reference:
        Molchanov et al. 2019, "Importance estimation for neural network pruning", equation 8 before the square.
    """
    total = torch.zeros(group.width)
    for member, weight in _weights(group):
        if weight.grad is None:
            raise ModelError("no gradient reaches this layer", where=member.layer, fix="use method = 'magnitude'")
        total += _sum_by_root(member, _slices(member, weight * weight.grad).sum(1), group.width).abs()
    return total


@torch.no_grad()
def bn_scale(group: Group) -> Tensor:
    """Return the size of the batch normalisation's scale of each channel, [width].

    s_c = sum over the group's batch normalisations of |γ_c|.

    Raises:
        ModelError: The group has no batch normalisation with a scale.

    Example:
        >>> bn = nn.BatchNorm2d(2)
        >>> _ = bn.weight.data.copy_(torch.tensor([-2.0, 0.5]))
        >>> bn_scale(Group("bn", 2, (Member("bn", bn, "out", (0, 1), (0, 1)),))).tolist()
        [2.0, 0.5]

    Reference:
        Liu et al. 2017, "Learning efficient convolutional networks through network slimming", section 3.
    """
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    found = [(m, m.module.weight) for m in group.members if isinstance(m.module, norms) and m.module.affine]
    if not found:
        fix = "use method = 'taylor' or 'magnitude'"
        raise ModelError("no batch normalisation follows this layer", where=group.name, fix=fix)
    total = torch.zeros(group.width)
    for member, weight in found:
        total += _sum_by_root(member, weight[torch.tensor(member.channels)].abs(), group.width)
    return total


CRITERIA: Final[dict[str, Callable[[Group], Tensor]]] = {
    "taylor": taylor,
    "magnitude": magnitude,
    "bn-scale": bn_scale,
}


def normalised(scores: Tensor) -> Tensor:
    """Return scores divided by their mean; a group of zeros stays zero.

    Example:
        >>> normalised(torch.tensor([1.0, 3.0])).tolist()
        [0.5, 1.5]
    """
    mean = float(scores.mean())
    return scores / mean if mean > 0 else torch.zeros_like(scores)
