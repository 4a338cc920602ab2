# SPDX-License-Identifier: Apache-2.0
"""Two compression reports side by side."""

import math
from dataclasses import dataclass
from typing import Any

from compress.evaluate import Difference, Score
from compress.report import CompressionReport, ModelRow
from edge_contract.errors import DataError

__all__ = ["Compared", "compare", "unpaired_difference"]


@dataclass(frozen=True)
class Compared:
    """One kind of model (``float``, ``int8``, …) in both reports; ``change`` is the second minus the first."""

    name: str
    first: ModelRow
    second: ModelRow
    change: Difference

    def to_json(self) -> dict[str, Any]:
        rows = {"first": self.first.to_json(), "second": self.second.to_json()}
        return {"name": self.name, **rows, "change": self.change.to_json()}


def unpaired_difference(first: Score, second: Score) -> Difference:
    """Return second minus first, in points, with Newcombe's hybrid interval for independent shares.

    With Wilson intervals (l₁, u₁), (l₂, u₂): lower end d - sqrt((p₂ - l₂)² + (u₁ - p₁)²), upper end
    d + sqrt((u₂ - p₂)² + (p₁ - l₁)²). On one test split it is wider than a paired interval would be.

    Example:
        >>> from compress.evaluate import score
        >>> str(unpaired_difference(score(48, 80), score(56, 70)))
        '+20.00 points [+5.24, +33.39]'

    Reference:
        Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10,
        whose table II, example (a), has 56/70 against 48/80: 0.0524 to 0.3339.
    """
    p1, p2 = first.accuracy, second.accuracy
    below = math.hypot(p2 - second.low, first.high - p1)
    above = math.hypot(second.high - p2, p1 - first.low)
    difference = p2 - p1
    return Difference(100 * difference, 100 * (difference - below), 100 * (difference + above))


def compare(first: CompressionReport, second: CompressionReport) -> tuple[Compared, ...]:
    """Return what both reports measured on the test split, in the first one's order.

    Raises:
        DataError: They were measured on different data, or have no model in common.
    """
    if first.data_digest != second.data_digest:
        what = f"'{first.name}' and '{second.name}' were measured on different data"
        raise DataError(what, fix="run both recipes with the same [data]")
    pairs = [(row, second.row(row.name)) for row in first.test]
    found = tuple(
        Compared(row.name, row, other, unpaired_difference(row.score, other.score))
        for row, other in pairs
        if other is not None
    )
    if not found:
        raise DataError("no model was measured in both reports", fix="compare two finished runs")
    return found
