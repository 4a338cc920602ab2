# SPDX-License-Identifier: Apache-2.0
"""Judge answers in real numbers: against a reference, between runtimes, and for outputs that never change."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import DataError, ParityError
from export.parity.fidelity import FLOAT, Limits, is_constant
from export.parity.fidelity import compare as fidelity_of
from export.parity.report import Judged, ParityReport
from export.runtimes.execution import Execution

__all__ = ["FLOAT_MODEL", "Reference", "judge_float", "judged_all", "refuse_constant"]

FLOAT_MODEL: Final = "float model"
Reference = Mapping[str, NDArray[Any]]


def judge_float(
    executions: Sequence[Execution],
    inputs: NDArray[Any],
    *,
    reference: Reference | None = None,
    labels: NDArray[Any] | None = None,
    limits: Limits = FLOAT,
    between: Limits | None = None,
) -> ParityReport:
    """Judge files without a plan, float or of other makers: against a reference, and every pair of runtimes.

    Args:
        executions: On the same inputs.
        inputs: float32 [N, ...].
        reference: Output → right answers [N, ...]; where none are known, the runtimes are compared with each other.
        labels: Right classes [N] of the output ``logits``.
        limits: How far from the reference is wrong.
        between: How far two runtimes may lie apart; by default ``limits``.

    Raises:
        ParityError: NaN, an output that is the same for all inputs, or answers too far apart; names who and the output.
        DataError: Nothing to judge: no execution, or a reference of other outputs.
    """
    if not executions:
        raise DataError("no runtime ran the file", where="parity", fix="install one that reads it")
    _refuse_not_finite(executions)
    answers = {execution.name: execution.values for execution in executions}
    refuse_constant(executions, inputs, reference or {})
    judged = [*judged_all(answers, reference or {}, labels, limits)]
    if reference and len({row.runtime for row in judged}) < len(answers):
        lost = next(name for name in answers if name not in {row.runtime for row in judged})
        what = f"the reference has outputs {', '.join(reference)}, the file {', '.join(answers[lost])}"
        raise DataError(what, where=lost, fix="name the reference's outputs as the file does")
    for a, b in combinations(executions, 2):
        count = min(len(rows) for execution in (a, b) for rows in execution.values.values())
        shared = {key: rows[:count] for key, rows in a.values.items() if key in b.values}
        judged += _judged(
            b.name,
            {key: b.values[key][:count] for key in shared},
            shared,
            against=a.name,
            labels=None,
            limits=between or limits,
        )
    notes = ("nothing was there to compare with: one runtime and no reference",) if not judged else ()
    runtimes = {execution.name: (execution.version, execution.delegate) for execution in executions}
    return ParityReport("", len(inputs), runtimes, (), tuple(judged), notes=notes)


def judged_all(
    answers: Mapping[str, Reference], reference: Reference, labels: NDArray[Any] | None, limits: Limits
) -> Iterator[Judged]:
    """Yield each answer that has a reference; raises ParityError for one that is too far from it.

    Args:
        answers: Runtime → output → real values [N, ...].
        reference: Output → right values [N, ...].
        labels: Right classes [N] of the output ``logits``.
        limits: How far is wrong.
    """
    for name, values in answers.items():
        known = {key: rows for key, rows in reference.items() if key in values}
        yield from _judged(name, values, known, against=FLOAT_MODEL, labels=labels, limits=limits)


def _judged(
    name: str,
    values: Reference,
    reference: Reference,
    *,
    against: str,
    labels: NDArray[Any] | None,
    limits: Limits,
) -> Iterator[Judged]:
    for output, right in reference.items():
        is_class, where = output == "logits", f"output '{output}' in {name}"
        answer = values[output].reshape(len(values[output]), -1)
        rows = right.reshape(len(right), -1)[: len(answer)]  # old versions were given fewer inputs
        known = labels[: len(answer)] if is_class and labels is not None else None
        found = fidelity_of(rows, answer, known, classes=is_class, where=where)
        broken = limits.broken(found)
        if broken:
            raise ParityError(f"{broken} (against {against}: {found})", where=where, fix=_FAR)
        yield Judged(name, against, output, found)


_FAR: Final = "do not ship it: calibrate on inputs like the real ones, or export for a target whose runtime computes it"
_DEAD: Final = (
    "do not ship it for this runtime: fully-connected weights with a scale per channel do this before 2.10, operator "
    "versions that claim too little in any; export it with Strop, or take a newer runtime"
)


def refuse_constant(executions: Sequence[Execution], inputs: NDArray[Any], reference: Reference) -> None:
    """Refuse an output that is the same for all inputs, although the reference or another runtime says that it changes.

    Without a reference one of several outputs may be constant everywhere (a detector's number of boxes), not all.
    """
    if len(inputs) < 2 or is_constant(inputs):
        return
    for execution in executions:
        dead = {key for key, rows in execution.codes.items() if is_constant(rows)}
        unexplained = dead == set(execution.codes) and not dead <= set(reference)
        for key in execution.codes:
            if key in dead and (unexplained or _changes(key, executions, reference)):
                what = f"output '{key}' is the same for all {len(inputs)} inputs"
                raise ParityError(what, where=execution.title, fix=_DEAD)


def _changes(key: str, executions: Sequence[Execution], reference: Reference) -> bool:
    rows = [execution.codes[key] for execution in executions if key in execution.codes and len(execution.codes[key])]
    return not all(map(is_constant, [*rows, reference[key]] if key in reference else rows))


def _refuse_not_finite(executions: Sequence[Execution]) -> None:
    for execution in executions:
        for key, rows in execution.values.items():
            bad = ~np.isfinite(rows)
            if bad.any():
                what = f"{int(bad.sum())} of {rows.size} numbers of output '{key}' are NaN or infinite"
                first = int(bad.any(axis=1).argmax())
                raise ParityError(f"{what}, first for input {first}", where=execution.title, fix=_FAR)
