# SPDX-License-Identifier: Apache-2.0
"""Accuracy by class or by metadata: a slice fails where its whole interval lies beyond what is asked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress import evaluate
from compress.checks.asked import Slices
from compress.checks.outcome import FAILED, FEW, PASSED, CheckResult, Row
from compress.checks.subject import Subject
from compress.evaluate import Difference, Hits
from compress.recipe_table import nearest
from edge_contract.errors import RecipeError

__all__ = ["against_of", "check_column", "slices"]

CLASS = "class"
MOST_SLICES = 1000


@dataclass(frozen=True)
class _Slice:
    """One slice: its row, the change against the reference, and in what it failed."""

    row: Row
    change: Difference | None
    is_low: bool
    is_dropped: bool

    @property
    def is_failed(self) -> bool:
        return self.row.verdict == FAILED


def slices(check: Slices, subject: Subject) -> CheckResult:
    """Return accuracy on the validation split, slice by slice.

    A slice of at least ``samples`` samples fails where its accuracy is surely below ``min``, that is where the upper
    end of the 95 % Wilson interval is; or where it lost surely more than ``max_drop`` points against the reference on
    the same samples, by the paired interval of Bonett and Price. With ``strict`` the figures themselves are judged.
    """
    compared = None if check.max_drop is None else _reference_hits(check, subject)
    found = [
        _slice(check, name, subject.hits[rows], None if compared is None else compared[rows])
        for name, rows in _parts(check, subject)
    ]
    judged = [one for one in found if one.row.verdict != FEW]
    failed = [one for one in judged if one.is_failed]
    worst, is_share = _worst(check, failed or judged or found)
    if not judged:
        largest = max(one.row.samples for one in found)
        words = f"no slice by {check.by} has {check.samples} samples (the largest has {largest})"
    elif failed:
        words = f"{len(failed)} of {len(judged)} slices by {check.by} failed; '{worst.row.name}': {worst.row.words}"
    else:
        words = f"{len(judged)} slices by {check.by}; the lowest is '{worst.row.name}': {worst.row.words}"
    passed, rows = bool(judged) and not failed, tuple(one.row for one in found)
    limit, unit, figure, low, high = _headline(check, worst, is_share=is_share)
    return CheckResult(check.name, check.kind, passed, figure, limit, unit, words, low, high, is_least=True, rows=rows)


def _worst(check: Slices, among: Sequence[_Slice]) -> tuple[_Slice, bool]:
    """Return the slice that speaks for the check, and whether its accuracy does or its change."""
    low = [one for one in among if one.is_low]
    dropped = [one for one in among if one.is_dropped]
    if low or (check.min is not None and not dropped):
        return min(low or among, key=lambda one: one.row.figure), True
    return min(dropped or among, key=lambda one: one.change.points if one.change else 0.0), False


def _headline(check: Slices, worst: _Slice, *, is_share: bool) -> tuple[float, str, float, float | None, float | None]:
    """Return limit, unit, figure and interval."""
    change, row = worst.change, worst.row
    if is_share or change is None:
        return check.min or 0.0, "%", row.figure, row.low, row.high
    return -(check.max_drop or 0.0), "points", change.points, change.low, change.high


def _slice(check: Slices, name: str, hits: Hits, compared: Hits | None) -> _Slice:
    found = evaluate.score(int(hits.sum()), hits.size)
    figure, low, high = (100 * share for share in (found.accuracy, found.low, found.high))
    change, told = None, [f"{found} of {hits.size}"]
    is_low = check.min is not None and (figure if check.strict else high) < check.min
    is_dropped = False
    if check.min is not None:
        told.append(f"asked {check.min:g} %")
    if compared is not None and check.max_drop is not None:
        change = evaluate.paired_difference(compared, hits)
        told.append(f"{change} against the reference, allowed -{check.max_drop:g}")
        is_dropped = (change.points if check.strict else change.high) < -check.max_drop
    verdict = FEW if hits.size < check.samples else FAILED if is_low or is_dropped else PASSED
    return _Slice(Row(name, figure, low, high, hits.size, verdict, "; ".join(told)), change, is_low, is_dropped)


def _parts(check: Slices, subject: Subject) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield the name and the rows of each slice, in the order of the classes or of the values."""
    validation = subject.data.validation
    column = validation.y if check.by == CLASS else _comparable(validation.metadata[check.by])
    values, places = np.unique(column, return_inverse=True)
    for number, value in enumerate(values.tolist()):
        name = subject.labels[value] if check.by == CLASS and 0 <= value < len(subject.labels) else str(value)
        yield name, np.flatnonzero(places == number)


def _comparable(column: NDArray[Any]) -> NDArray[Any]:
    """Return a column as something that can be sorted: what is neither numbers nor texts by its words."""
    return column.astype(str) if column.dtype.kind == "O" else column


def _reference_hits(check: Slices, subject: Subject) -> Hits:
    x, y = subject.validation
    return evaluate.hits(subject.reference(check.against or against_of(subject)), x, y)


def against_of(subject: Subject) -> str:
    """Return what a drop is taken against where the recipe does not say: the teacher, else what entered trained."""
    model = subject.recipe.model
    return "teacher" if model.teacher else "original" if model.is_trained else "float"


def check_column(check: Slices, subject_columns: dict[str, NDArray[np.generic]], where: str) -> None:
    """Refuse a column that the data do not have, or that takes the samples apart one by one.

    Raises:
        RecipeError: Names the nearest column.
    """
    if check.by == CLASS:
        return
    if check.by not in subject_columns:
        fix = nearest(check.by, [CLASS, *subject_columns])
        raise RecipeError(f"key 'by': the data have no metadata '{check.by}'", where=where, fix=fix)
    count = len(np.unique(_comparable(subject_columns[check.by])))
    if count > MOST_SLICES:
        what = f"key 'by': '{check.by}' has {count} values, at most {MOST_SLICES}"
        raise RecipeError(what, where=where, fix="round the values to a few groups in the data source")
