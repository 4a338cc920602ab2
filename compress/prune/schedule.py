# SPDX-License-Identifier: Apache-2.0
"""Which channels to remove so that a cost is met: the channels with the lowest scores, over all groups together.

The cost of any choice follows from the widths alone, so the search needs no pruned copies: a layer keeps
(kept outputs / outputs) × (kept inputs / inputs) of its products.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.cost import Cost
from compress.prune.graph import Group
from edge_contract.errors import BudgetError

__all__ = ["Limits", "choose", "estimate"]

Kept = Mapping[str, int]
"""Channels that stay, by group."""


@dataclass(frozen=True)
class Limits:
    """What pruning may do.

    Attributes:
        cost: ``macs`` or ``parameters``.
        share: Share of the cost that may stay, 0 to 1.
        round_to: Kept widths are multiples of it (kernels work in blocks of channels), where the group is that wide.
        most: Largest share of one group's channels that may go; keeps every layer alive.
        whole: Score one ranking over all groups (``global``), or remove the same share of each (``layer``).
    """

    cost: str
    share: float
    round_to: int = 1
    most: float = 0.9
    scope: str = "global"


def estimate(cost: Cost, groups: tuple[Group, ...], kept: Kept, *, kind: str) -> float:
    """Return MACs or parameters after every group has shrunk to its kept width.

    Args:
        cost: Of the unpruned model.
        groups: All groups.
        kept: Channels that stay, by group; a group left out stays whole.
        kind: ``macs`` or ``parameters``.
    """
    removed: dict[tuple[str, str], float] = defaultdict(float)
    modules: dict[str, nn.Module] = {}
    for group in groups:
        gone = group.width - kept.get(group.name, group.width)
        for member in group.members:
            removed[member.layer, member.side] += gone * member.per_channel
            modules[member.layer] = member.module
    total = 0.0
    for layer in cost.layers:
        module = modules.get(layer.name)
        if module is None:
            total += layer.macs if kind == "macs" else layer.parameters
            continue
        total += _layer(layer.macs, module, removed[layer.name, "out"], removed[layer.name, "in"], kind)
    return total


def _layer(macs: int, module: nn.Module, out_gone: float, in_gone: float, kind: str) -> float:
    if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
        return 2 * (module.num_features - out_gone) if kind == "parameters" and module.affine else 0.0
    assert isinstance(module, (nn.Conv2d, nn.Linear))
    depthwise = isinstance(module, nn.Conv2d) and module.groups == module.out_channels > 1
    outputs, inputs = module.weight.shape[:2]
    out_kept = 1 - out_gone / outputs
    in_kept = 1.0 if depthwise else 1 - in_gone / inputs
    if kind == "macs":
        return macs * out_kept * in_kept
    bias = 0 if module.bias is None else module.bias.numel() * out_kept
    return module.weight.numel() * out_kept * in_kept + bias


def _keep(width: int, wanted: int, limits: Limits) -> int:
    """Round a width up to a block, within what the group and ``most`` allow."""
    least = max(1, math.ceil(width * (1 - limits.most)))
    block = limits.round_to if width >= limits.round_to else 1
    return min(width, math.ceil(max(wanted, least) / block) * block)


def _widths(scores: Mapping[str, Tensor], threshold: float, limits: Limits) -> dict[str, int]:
    """Return kept widths when everything up to a threshold goes."""
    kept = {}
    for name, values in scores.items():
        wanted = int((values > threshold).sum())
        kept[name] = _keep(len(values), wanted, limits)
    return kept


def _ranked(scores: Mapping[str, Tensor], scope: str) -> dict[str, Tensor]:
    """Return scores for a global ranking, or ranks within the layer, which remove the same share of each."""
    if scope == "global":
        return dict(scores)
    return {name: (values.argsort().argsort() + 0.5) / len(values) for name, values in scores.items()}


def choose(
    cost: Cost, groups: tuple[Group, ...], scores: Mapping[str, Tensor], limits: Limits
) -> dict[str, tuple[int, ...]]:
    """Return the channels to remove from each group, so that the most remains within the limit.

    The threshold on the scores is the smallest one that meets the cost.

    Args:
        cost: Of the unpruned model.
        groups: All groups.
        scores: Normalised scores by group, [width] each.
        limits: Target, rounding, floor.

    Raises:
        BudgetError: Even the smallest network that the limits allow costs more; says what came closest.
    """
    full = cost.macs if limits.cost == "macs" else cost.parameters
    ranked = _ranked(scores, limits.scope)
    thresholds = [-1.0, *sorted({float(value) for values in ranked.values() for value in values})]

    def share(threshold: float) -> float:
        return estimate(cost, groups, _widths(ranked, threshold, limits), kind=limits.cost) / full

    if share(thresholds[-1]) > limits.share:
        what = f"{limits.share:.0%} of the {limits.cost} asked for, {share(thresholds[-1]):.0%} came closest"
        raise BudgetError(what, where="prune", fix="raise the target or most, or lower round_to")
    low, high = 0, len(thresholds) - 1  # share() falls with the threshold, so the first that fits is found by halving
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if share(thresholds[middle]) <= limits.share else (middle + 1, high)
    kept = _widths(ranked, thresholds[low], limits)
    return {
        name: tuple(sorted(torch.argsort(values, stable=True)[: len(values) - kept[name]].tolist()))
        for name, values in ranked.items()
        if kept[name] < len(values)
    }
