# SPDX-License-Identifier: Apache-2.0
"""Which channels to remove so that costs are met.

Three scopes. ``global`` takes the channels of the lowest scores, over all groups together. ``layer`` takes the same
share of each. ``saving`` weighs what a block of channels is worth against what its removal saves now, block after
block: a knapsack filled greedily, so that channels go where the network spends its time.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.prune.ledger import Kept, Ledger
from edge_contract.errors import BudgetError

__all__ = ["SCOPES", "Limits", "choose"]

SCOPES = ("global", "layer", "saving")


@dataclass(frozen=True)
class Limits:
    """What pruning may do.

    Attributes:
        targets: What may stay of each cost, in its unit; all must be met.
        full: The costs that the shares in messages refer to.
        round_to: Kept widths are multiples of it (kernels work in blocks of channels), where the group is that wide.
        most: Largest share of one group's channels that may go; keeps every layer alive.
        scope: ``global``, ``layer`` or ``saving``.
    """

    targets: Mapping[str, float]
    full: Mapping[str, float]
    round_to: int = 1
    most: float = 0.9
    scope: str = "global"

    def rounded(self, width: int, wanted: int) -> int:
        """Return a width rounded up to a block, within what the group and ``most`` allow."""
        least = max(1, math.ceil(width * (1 - self.most)))
        block = self.round_to if width >= self.round_to else 1
        return min(width, math.ceil(max(wanted, least) / block) * block)

    def narrower(self, width: int, now: int) -> int:
        """Return the next smaller width that a group of this width may keep; ``now`` if there is none."""
        block = self.round_to if width >= self.round_to else 1
        return min(now, max(self.rounded(width, 1), (now - 1) // block * block))

    def unmet(self, ledger: Ledger, kept: Kept) -> list[str]:
        """Return the costs that are above their target; a millionth is left for rounding."""
        return [kind for kind, limit in self.targets.items() if ledger.total(kind, kept) > limit * (1 + 1e-6)]


def choose(ledger: Ledger, scores: Mapping[str, Tensor], limits: Limits) -> dict[str, tuple[int, ...]]:
    """Return the channels to remove from each group, so that the most remains within the limits.

    Args:
        ledger: Costs of the uncut model.
        scores: Scores by group, comparable between groups, [width] each.
        limits: Targets, rounding, floor, scope.

    Raises:
        BudgetError: Even the smallest network that the limits allow costs more; says what came closest.
    """
    _check(ledger, scores, limits)
    kept = _greedy(ledger, scores, limits) if limits.scope == "saving" else _threshold(ledger, scores, limits)
    return {
        name: tuple(sorted(torch.argsort(values, stable=True)[: len(values) - kept[name]].tolist()))
        for name, values in scores.items()
        if kept[name] < len(values)
    }


def _check(ledger: Ledger, scores: Mapping[str, Tensor], limits: Limits) -> None:
    least = {name: limits.rounded(len(values), 1) for name, values in scores.items()}
    for kind, limit in limits.targets.items():
        closest = ledger.total(kind, least)
        if closest > limit * (1 + 1e-6):
            full = limits.full[kind]
            what = f"{limit / full:.0%} of the {kind} asked for, {closest / full:.0%} came closest"
            raise BudgetError(what, where="prune", fix="raise the target or most, or lower round_to")


def _threshold(ledger: Ledger, scores: Mapping[str, Tensor], limits: Limits) -> dict[str, int]:
    """Return kept widths for the smallest threshold on the scores that meets the targets."""
    ranked = dict(scores)
    if limits.scope == "layer":
        ranked = {name: (values.argsort().argsort() + 0.5) / len(values) for name, values in scores.items()}
    thresholds = [-1.0, *sorted({float(value) for values in ranked.values() for value in values})]

    def widths(place: int) -> dict[str, int]:
        return {n: limits.rounded(len(v), int((v > thresholds[place]).sum())) for n, v in ranked.items()}

    low, high = 0, len(thresholds) - 1  # costs fall with the threshold, so the first that fits is found by halving
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if not limits.unmet(ledger, widths(middle)) else (middle + 1, high)
    return widths(low)


def _greedy(ledger: Ledger, scores: Mapping[str, Tensor], limits: Limits) -> dict[str, int]:
    """Return kept widths after removing, again and again, the block that is worth least for what it saves.

    A block's worth is the sum of its scores, its saving the sum over the unmet targets of the share of the cost.

    Reference:
        Shen et al. 2022, "Structural pruning via latency-saliency knapsack", section 3.2: the same objective, with
        savings that are looked up again after each removal.
    """
    ordered = {name: values.sort().values.double() for name, values in scores.items()}
    kept = {name: len(values) for name, values in ordered.items()}
    unmet = limits.unmet(ledger, kept)
    ratios: dict[str, float] = {}
    stale = set(kept)

    def ratio(name: str) -> float:
        width, now = len(ordered[name]), kept[name]
        after = limits.narrower(width, now)
        if after >= now:
            return math.inf
        worth = float(ordered[name][width - now : width - after].sum())
        saving = sum(ledger.saved(kind, kept, name, after) / limits.full[kind] for kind in unmet)
        return worth / max(saving, 1e-12)  # what saves nothing comes last, but before nothing at all

    while unmet:
        ratios |= {name: ratio(name) for name in stale}
        name = min(ratios, key=ratios.__getitem__)
        kept[name] = limits.narrower(len(ordered[name]), kept[name])
        left = limits.unmet(ledger, kept)
        stale, unmet = (ledger.neighbours(name) if left == unmet else set(kept)), left
    return _given_back(ledger, ordered, kept, limits)


def _given_back(ledger: Ledger, ordered: Mapping[str, Tensor], kept: dict[str, int], limits: Limits) -> dict[str, int]:
    """Give blocks back that the last removals made affordable again, the most worthy first."""
    while True:
        wider = {}
        for name, values in ordered.items():
            block = limits.round_to if len(values) >= limits.round_to else 1
            width = min(len(values), (kept[name] // block + 1) * block)
            if width > kept[name] and not limits.unmet(ledger, {**kept, name: width}):
                wider[name] = float(values[len(values) - width : len(values) - kept[name]].sum()), width
        if not wider:
            return kept
        name = max(wider, key=lambda one: wider[one][0])
        kept[name] = wider[name][1]
