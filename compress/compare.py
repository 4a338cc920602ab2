# SPDX-License-Identifier: Apache-2.0
"""Two compression reports side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compress.evaluate import Difference, Score, paired_difference
from compress.report import CompressionReport, ModelRow, StepReport
from compress.report_parts import unpack
from edge_contract.errors import DataError

__all__ = [
    "Compared",
    "ComparedLayer",
    "ComparedStep",
    "compare",
    "compare_layers",
    "compare_steps",
    "unpaired_difference",
]


@dataclass(frozen=True)
class Compared:
    """One kind of model (``float``, ``int8``, …) in both reports; ``change`` is the second minus the first.

    ``is_paired`` if it was counted sample by sample, which makes its interval much narrower.
    """

    name: str
    first: ModelRow
    second: ModelRow
    change: Difference
    is_paired: bool = False

    def to_json(self) -> dict[str, Any]:
        rows = {"first": self.first.to_json(), "second": self.second.to_json()}
        return {"name": self.name, **rows, "change": self.change.to_json(), "paired": self.is_paired}


@dataclass(frozen=True)
class ComparedStep:
    """The same kind of step in both reports, on the validation split; None where one report has no such step."""

    kind: str
    first: StepReport | None
    second: StepReport | None
    change: Difference | None = None
    is_paired: bool = False

    def to_json(self) -> dict[str, Any]:
        numbers = {
            name: None if step is None else step.number
            for name, step in (("first", self.first), ("second", self.second))
        }
        change = None if self.change is None else self.change.to_json()
        return {"kind": self.kind, **numbers, "change": change, "paired": self.is_paired}


@dataclass(frozen=True)
class ComparedLayer:
    """One layer of both results; None where a report has no such layer, or no integers to compare.

    Attributes:
        name: Of the layer.
        channels, macs, parameters: (first, second).
        sqnr_db: (first, second), of the integer network up to this layer.
    """

    name: str
    channels: tuple[int | None, int | None]
    macs: tuple[int | None, int | None]
    parameters: tuple[int | None, int | None]
    sqnr_db: tuple[float | None, float | None]

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


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


def _difference(first: tuple[Score, str], second: tuple[Score, str]) -> tuple[Difference, bool]:
    """Return second minus first, and whether both reports kept their hits so that it is paired."""
    (a, a_hits), (b, b_hits) = first, second
    before, after = unpack(a_hits, a.samples), unpack(b_hits, b.samples)
    if before is None or after is None or len(before) != len(after):
        return unpaired_difference(a, b), False
    return paired_difference(before, after), True


def _check_same_data(first: CompressionReport, second: CompressionReport) -> None:
    if first.data_digest != second.data_digest:
        what = f"'{first.name}' and '{second.name}' were measured on different data"
        raise DataError(what, fix="run both recipes with the same [data]")


def compare(first: CompressionReport, second: CompressionReport) -> tuple[Compared, ...]:
    """Return what both reports measured on the test split, in the first one's order.

    Both read the same samples in the same order, so that differences are paired where both kept their hits.

    Raises:
        DataError: They were measured on different data, or have no model in common.
    """
    _check_same_data(first, second)
    pairs = [(row, second.row(row.name)) for row in first.test]
    found = tuple(
        Compared(row.name, row, other, *_difference((row.score, row.hits), (other.score, other.hits)))
        for row, other in pairs
        if other is not None
    )
    if not found:
        raise DataError("no model was measured in both reports", fix="compare two finished runs")
    return found


def _numbered(steps: Sequence[StepReport]) -> dict[tuple[str, int], StepReport]:
    """The first, second, … step of each kind."""
    found: dict[tuple[str, int], StepReport] = {}
    for step in steps:
        found[step.kind, sum(kind == step.kind for kind, _ in found)] = step
    return found


def compare_steps(first: CompressionReport, second: CompressionReport) -> tuple[ComparedStep, ...]:
    """Return the steps of both reports side by side: the first prune with the first prune, and so on.

    Raises:
        DataError: They were measured on different data.
    """
    _check_same_data(first, second)
    before, after = _numbered(first.steps), _numbered(second.steps)
    rows = []
    for key in [*before, *(key for key in after if key not in before)]:
        a, b = before.get(key), after.get(key)
        change: tuple[Difference | None, bool] = (None, False)
        if a is not None and b is not None:
            change = _difference((a.score, a.hits), (b.score, b.hits))
        rows.append(ComparedStep(key[0], a, b, *change))
    return tuple(rows)


def compare_layers(first: CompressionReport, second: CompressionReport) -> tuple[ComparedLayer, ...]:
    """Return the layers with parameters of both results, in the order of the first; then what only the second has."""
    facts = [_layers(report) for report in (first, second)]
    names = [*facts[0], *(name for name in facts[1] if name not in facts[0])]
    empty = (None, None, None, None)
    rows = []
    for name in names:
        a, b = (every.get(name, empty) for every in facts)
        rows.append(ComparedLayer(name, (a[0], b[0]), (a[1], b[1]), (a[2], b[2]), (a[3], b[3])))
    return tuple(rows)


_Facts = tuple[int | None, int | None, int | None, float | None]


def _layers(report: CompressionReport) -> dict[str, _Facts]:
    if not report.steps:
        return {}
    fidelity = report.fidelity
    sqnr = {} if fidelity is None else {layer.layer: layer.sqnr_db for layer in fidelity.layers}
    layers = [layer for layer in report.steps[-1].cost.layers if layer.kind in ("Conv1d", "Conv2d", "Linear")]
    return {one.name: (one.channels, one.macs, one.parameters, sqnr.get(one.name)) for one in layers}
