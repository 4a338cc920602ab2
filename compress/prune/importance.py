# SPDX-License-Identifier: Apache-2.0
"""How much each channel of a group matters: one score a channel, small ones go first.

A criterion looks at the weights, at their gradients (accumulated before), or at the gradients of the gates: the factors
1 that each channel could be multiplied by, for each sample (``compress.prune.gates``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from compress.prune.graph import Group
from compress.prune.layers import NORMS, is_depthwise
from compress.prune.slices import slices, sum_by_root, weights
from edge_contract.errors import ModelError

__all__ = ["CRITERIA", "Criterion", "bn_scale", "fpgm", "hessian", "lamp", "magnitude", "normalised", "taylor"]


@torch.no_grad()
def magnitude(group: Group) -> Tensor:
    """Return the L2 norm of everything that goes with each channel, [width].

    s_c = sqrt(sum over the group's layers of ||W_c||²).

    Example:
        >>> from torch import nn
        >>> from compress.prune.graph import Member
        >>> layer = nn.Linear(2, 2, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        >>> magnitude(Group("l", 2, (Member("l", layer, "out", (0, 1), (0, 1)),))).tolist()
        [5.0, 1.0]

    Reference:
        Li et al. 2017, "Pruning filters for efficient ConvNets", with L2 and coupled layers added up as in
        Fang et al. 2023, "DepGraph", section 3.4.
    """
    total = torch.zeros(group.width)
    for member, weight in weights(group):
        total += sum_by_root(member, slices(member, weight).square().sum(1), group.width)
    return total.sqrt()


@torch.no_grad()
def lamp(group: Group) -> Tensor:
    """Return each channel's share of the energy that would be left if it were the next to go, [width].

    s_c = m_c² / sum of m_j² over the channels j with m_j ≥ m_c, where m is ``magnitude``. The largest channel has 1 in
    every group, so scores compare between layers without a further norm, and no layer empties.

    Example:
        >>> from torch import nn
        >>> from compress.prune.graph import Member
        >>> layer = nn.Linear(1, 3, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[1.0], [-2.0], [2.0]]))
        >>> [round(v, 3) for v in lamp(Group("l", 3, (Member("l", layer, "out", (0, 1, 2), (0, 1, 2)),))).tolist()]
        [0.111, 0.5, 1.0]

    Reference:
        Lee et al. 2021, "Layer-adaptive sparsity for the magnitude-based pruning", equation 4, with a channel in the
        place of a weight.
    """
    energy = magnitude(group).square()
    order = energy.argsort(stable=True)
    left = energy[order].flip(0).cumsum(0).flip(0)  # of the channel and of all that come after it
    scores = torch.zeros_like(energy)
    scores[order] = energy[order] / left.clamp_min(torch.finfo(left.dtype).tiny)
    return scores


@torch.no_grad()
def fpgm(group: Group) -> Tensor:
    """Return how far each channel's filter lies from all others of its layer, [width]: the most replaceable go first.

    s_c = sum over the layers that make the group's channels of sum_j ||W_c - W_j||. A filter near the geometric median
    can be expressed by the others, however large it is.

    Example:
        >>> from torch import nn
        >>> from compress.prune.graph import Member
        >>> layer = nn.Linear(1, 3, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[1.0], [2.0], [5.0]]))
        >>> fpgm(Group("l", 3, (Member("l", layer, "out", (0, 1, 2), (0, 1, 2)),))).tolist()
        [5.0, 4.0, 7.0]

    Reference:
        He et al. 2019, "Filter pruning via geometric median for deep neural networks acceleration", equation 7.
    """
    total = torch.zeros(group.width)
    for member, weight in weights(group):
        if member.side != "out" or is_depthwise(member.module):
            continue
        filters = slices(member, weight)
        total += sum_by_root(member, torch.cdist(filters, filters).sum(1), group.width)
    return total


@torch.no_grad()
def taylor(group: Group) -> Tensor:
    """Return the first-order estimate of how much the loss changes without each channel, [width].

    s_c = |sum over the weights w of channel c of w · ∂L/∂w|, added up over the group's layers. Gradients must
    have been accumulated before.

    Raises:
        ModelError: A layer has no gradient.

    Example:
        >>> from torch import nn
        >>> from compress.prune.graph import Member
        >>> layer = nn.Linear(2, 2, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        >>> layer.weight.grad = torch.tensor([[1.0, -1.0], [9.0, 2.0]])
        >>> taylor(Group("l", 2, (Member("l", layer, "out", (0, 1), (0, 1)),))).tolist()
        [1.0, 2.0]

    Reference:
        Molchanov et al. 2019, "Importance estimation for neural network pruning", equation 8 before the square.
    """
    total = torch.zeros(group.width)
    for member, weight in weights(group):
        if weight.grad is None:
            raise ModelError("no gradient reaches this layer", where=member.layer, fix="use method = 'magnitude'")
        total += sum_by_root(member, slices(member, weight * weight.grad).sum(1), group.width).abs()
    return total


@torch.no_grad()
def bn_scale(group: Group) -> Tensor:
    """Return the size of the batch normalisation's scale of each channel, [width].

    s_c = sum over the group's batch normalisations of |γ_c|.

    Raises:
        ModelError: The group has no batch normalisation with a scale.

    Example:
        >>> from torch import nn
        >>> from compress.prune.graph import Member
        >>> bn = nn.BatchNorm2d(2)
        >>> _ = bn.weight.data.copy_(torch.tensor([-2.0, 0.5]))
        >>> bn_scale(Group("bn", 2, (Member("bn", bn, "out", (0, 1), (0, 1)),))).tolist()
        [2.0, 0.5]

    Reference:
        Liu et al. 2017, "Learning efficient convolutional networks through network slimming", section 3.
    """
    found = [(m, m.module.weight) for m in group.members if isinstance(m.module, NORMS) and m.module.affine]
    if not found:
        fix = "use method = 'hessian' or 'magnitude', or name it in keep"
        raise ModelError("no batch normalisation follows this layer", where=group.name, fix=fix)
    total = torch.zeros(group.width)
    for member, weight in found:
        total += sum_by_root(member, weight[torch.tensor(member.channels)].abs(), group.width)
    return total


def hessian(gates: Tensor) -> Tensor:
    """Return the second-order estimate of how much the loss rises without each channel, [width].

    s_c = ½ · H_cc with H_cc = mean over the samples of g², g the gradient of that sample's loss with respect to the
    channel's gate. With labels drawn from the network's own answers the mean is the diagonal of the Fisher matrix,
    which is the Hessian of the divergence from the present answers; there the first order vanishes, and removing a
    channel (its gate goes from 1 to 0) costs s_c.

    Args:
        gates: Gradients g, [samples, width].

    Example:
        >>> hessian(torch.tensor([[1.0, 0.0], [3.0, -2.0]])).tolist()
        [2.5, 1.0]

    Reference:
        LeCun, Denker & Solla 1990, "Optimal brain damage", equation 5, with a gate for each group of coupled channels
        as in Liu et al. 2021, "Group Fisher pruning for practical network compression", equations 3 to 6.
    """
    return 0.5 * gates.square().mean(0)


def normalised(scores: Tensor) -> Tensor:
    """Return scores divided by their mean; a group of zeros stays zero.

    Example:
        >>> normalised(torch.tensor([1.0, 3.0])).tolist()
        [0.5, 1.5]
    """
    mean = float(scores.mean())
    return scores / mean if mean > 0 else torch.zeros_like(scores)


@dataclass(frozen=True)
class Criterion:
    """A criterion of importance.

    Attributes:
        score: Group → scores [width], or gradients of the gates → scores.
        needs: ``weights``, ``gradients`` or ``gates``.
        is_absolute: Scores of different groups compare as they are: they are a share, or a rise of the loss. Others are
            divided by their group's mean, so that a global ranking does not empty the layers of small weights.
    """

    score: Callable[..., Tensor]
    needs: str = "weights"
    is_absolute: bool = False


CRITERIA: Final[Mapping[str, Criterion]] = {
    "taylor": Criterion(taylor, "gradients"),
    "magnitude": Criterion(magnitude),
    "bn-scale": Criterion(bn_scale),
    "lamp": Criterion(lamp, is_absolute=True),
    "fpgm": Criterion(fpgm),
    "hessian": Criterion(hessian, "gates", is_absolute=True),
}
