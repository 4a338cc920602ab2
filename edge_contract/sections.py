# SPDX-License-Identifier: Apache-2.0
"""Sections 10 to 12 of a drift summary: what tasks count beside classes, sensors of a series, and noised windows.

A reader from before these sections skips them: of another task it sees a model of one class, and of a noised window one
that sampled nothing. So each is written only where it has something to say::

    10 tables   code of the task, number of tables, and of each its size and counts
    11 sensors  how many, sums of their means, sums of the squares
    12 noise    n_sampled, noised windows, variance, then every counter behind the totals, signed
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from edge_contract.counts import Counters
from edge_contract.errors import SummaryError
from edge_contract.packing import Cursor, pack_counts, pack_signed, pack_unsigned
from edge_contract.tasks import CLASSIFY, MAX_OUTPUTS, MAX_SENSORS, TASKS, Form

__all__ = ["NOISE", "SENSORS", "TABLES", "completed", "extras"]

TABLES: Final = 10
SENSORS: Final = 11
NOISE: Final = 12
_TOTALS: Final = 4
_MAX_TABLE: Final = 64


def extras(counters: Counters) -> dict[int, bytes]:
    """Return the sections that counters need beside the common ones: tag → content."""
    found: dict[int, bytes] = {}
    form, is_noised = counters.form, counters.noise != (0, 0)
    shown = counters.emptied() if is_noised else counters
    if form.task != CLASSIFY:
        parts = [pack_unsigned((len(table),)) + pack_counts(table) for table in shown.tables]
        found[TABLES] = pack_unsigned((TASKS.index(form.task), len(parts))) + b"".join(parts)
    if form.sensors:
        sums, squares = shown.sensors[: form.sensors], shown.sensors[form.sensors :]
        found[SENSORS] = pack_unsigned((form.sensors,)) + pack_signed(sums) + pack_unsigned(squares)
    if is_noised:
        head = pack_unsigned((counters.n_sampled, *counters.noise))
        found[NOISE] = head + pack_signed(counters.to_vector()[_TOTALS:])
    return found


def completed(counters: Counters, sections: Mapping[int, bytes]) -> Counters:
    """Return the counters of the common sections with what sections 10 to 12 add.

    Raises:
        SummaryError: Cut short, too long, or of a form that cannot be.
    """
    if TABLES in sections:
        counters = _with_tables(counters, Cursor(sections[TABLES], "summary section 10"))
    if SENSORS in sections:
        counters = _with_sensors(counters, Cursor(sections[SENSORS], "summary section 11"))
    if NOISE in sections:
        counters = _noised(counters, Cursor(sections[NOISE], "summary section 12"))
    return counters


def _with_tables(counters: Counters, cursor: Cursor) -> Counters:
    code, count = cursor.unsigned(), cursor.unsigned()
    if not 0 < code < len(TASKS) or count > MAX_OUTPUTS:
        raise SummaryError(f"task {code} with {count} tables", where="summary section 10", fix="update the server")
    tables = []
    for _ in range(count):
        size = cursor.unsigned()
        if size > _MAX_TABLE:
            raise SummaryError(f"a table of {size}", where="summary section 10")
        tables.append(cursor.counts(size))
    _ended(cursor, "summary section 10")
    Form(TASKS[code], tuple(len(table) for table in tables)).check()
    return replace(counters, task=TASKS[code], tables=tuple(tables))


def _with_sensors(counters: Counters, cursor: Cursor) -> Counters:
    count = cursor.unsigned()
    if not 1 <= count <= MAX_SENSORS:
        raise SummaryError(f"{count} sensors, not 1 .. {MAX_SENSORS}", where="summary section 11")
    sums = [cursor.signed() for _ in range(count)]
    sums += [cursor.unsigned() for _ in range(count)]
    _ended(cursor, "summary section 11")
    return replace(counters, sensors=tuple(sums))


def _noised(counters: Counters, cursor: Cursor) -> Counters:
    sampled, windows, variance = (cursor.unsigned() for _ in range(3))
    if not windows or not variance or counters.n_sampled:
        raise SummaryError("noise without noised windows", where="summary section 12")
    form, slots = counters.form, counters.slots
    totals = (counters.n_infer, sampled, counters.n_err, counters.n_drop)
    size = Counters.length(slots, form) - _TOTALS
    vector = [*totals, *(cursor.signed() for _ in range(size))]
    _ended(cursor, "summary section 12")
    return Counters.from_vector(slots, vector, form, (windows, variance))


def _ended(cursor: Cursor, where: str) -> None:
    if not cursor.ended:
        raise SummaryError("a section is longer than its content", where=where)
