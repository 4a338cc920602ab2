# SPDX-License-Identifier: Apache-2.0
"""Intervals of predictions that hold without assumptions about errors: cross-conformal, left out family by family.

Theory of operation: each measurement is predicted by a fit that never saw its family, and keeps the size r of its error
in logarithms. A candidate is predicted by all of those fits; the interval reaches from a low quantile of
log(prediction) − r to a high quantile of log(prediction) + r (the jackknife+ of Barber et al. 2021, by groups: CV+).
Models of one family err alike, so that ten of them are not ten witnesses. Each family therefore weighs the same, one
further weight stands for the candidate's own family, and an end that this weight would decide is infinite: with fewer
than nine families there is no 90 % interval for a family that was never measured (Dunn, Wasserman & Ramdas 2022, "Two
layer hierarchical models"; Lee, Barber & Willett 2023). For candidates of families that were measured each measurement
weighs the same.
"""

import math
from collections import Counter
from collections.abc import Sequence

from edge_contract.errors import UsageError

__all__ = ["families_needed", "interval"]


def families_needed(coverage: float) -> int:
    """Return how many families give a finite interval for a family that was not measured.

    Example:
        >>> families_needed(0.9), families_needed(0.8)
        (9, 4)
    """
    return math.ceil(round(coverage / (1 - coverage), 9))


def interval(
    predicted: Sequence[float], errors: Sequence[float], families: Sequence[str], *, coverage: float, is_known: bool
) -> tuple[float, float]:
    """Return the ends of the interval in milliseconds; 0 and infinity where the measurements do not suffice.

    Args:
        predicted: The candidate's milliseconds by the fit that left out the family of measurement i, [n].
        errors: |log(measured / predicted)| of measurement i by that very fit, [n].
        families: Of measurement i, [n].
        coverage: 0.9, say.
        is_known: The candidate belongs to one of the families.

    Raises:
        UsageError: The three differ in length, or are empty.

    Example:
        >>> low, high = interval([2.0] * 99, [0.1] * 99, ["a"] * 99, coverage=0.9, is_known=True)
        >>> round(low, 3), round(high, 3)
        (1.81, 2.21)
        >>> interval([2.0] * 99, [0.1] * 99, ["a"] * 99, coverage=0.9, is_known=False)
        (0.0, inf)
    """
    if not predicted or not len(predicted) == len(errors) == len(families):
        raise UsageError(f"{len(predicted)} predictions, {len(errors)} errors", where="interval")
    counts = Counter(families)
    total = len(families) + 1 if is_known else len(counts) + 1
    weights = [1.0 / total if is_known else 1.0 / (total * counts[family]) for family in families]
    logs = [math.log(value) for value in predicted]
    low = _quantile([-(value - r) for value, r in zip(logs, errors, strict=True)], weights, coverage)
    high = _quantile([value + r for value, r in zip(logs, errors, strict=True)], weights, coverage)
    return math.exp(-low), math.exp(high)


def _quantile(values: Sequence[float], weights: Sequence[float], share: float) -> float:
    """Return the least value with that share of the weight at or below it; missing weight is at infinity."""
    reached = 0.0
    for value, weight in sorted(zip(values, weights, strict=True)):
        reached += weight
        if reached >= share - 1e-12:
            return value
    return math.inf
