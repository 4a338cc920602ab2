# SPDX-License-Identifier: Apache-2.0
"""Many telemetry batches in one transaction: a handful of statements for all of them together.

A row is (device, boot, class, sequence); the unique index makes a second arrival harmless. The mark of (device, boot,
class) starts at what the device says was acknowledged or dropped before (``after_seq``) and moves over rows without
a gap, so a batch that was lost is never acknowledged by a later one. Beside it stands the highest number that was
ever stored: only where that is beyond the mark are stored rows looked at again.

Several workers may do this at once. Rows are written in the order of their keys, so that two transactions wait for
each other in one direction only, and a mark never moves back.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from edge_contract.batches import TelemetryBatch, TelemetryRow
from edge_contract.errors import MessageError
from fleet.adapters.bulk import sources
from fleet.adapters.database import Connection

__all__ = ["UNFOLDED", "Key", "Unfold", "keep_batches"]

Key = tuple[str, str, str]
"""(device, boot, class)."""

Unfold = Callable[[Connection, TelemetryBatch, TelemetryRow], None]
"""Reads a row that is new into the tables of its class; raises nothing for a body that cannot be read."""

UNFOLDED: Final = frozenset({"result", "drift"})
"""Classes whose rows are read into tables of their own."""

_COLUMNS: Final = "device, boot, class, seq, time, received, body"
_TYPES: Final = ("TEXT", "TEXT", "TEXT", "INTEGER", "REAL", "REAL", "BLOB")
_INSERT: Final = f"INSERT INTO telemetry ({_COLUMNS}) "
_ONCE: Final = " ON CONFLICT (device, boot, class, seq) DO NOTHING"
_MARK: Final = """ ON CONFLICT (device, boot, class) DO UPDATE SET
  up_to = CASE WHEN excluded.up_to > marks.up_to THEN excluded.up_to ELSE marks.up_to END,
  top = CASE WHEN excluded.top > marks.top THEN excluded.top ELSE marks.top END, heard = excluded.heard
  RETURNING device, boot, class, up_to, top"""
_MARK_TYPES: Final = ("TEXT", "TEXT", "TEXT", "INTEGER", "INTEGER", "REAL")
_INSERT_MARK: Final = "INSERT INTO marks (device, boot, class, up_to, top, heard) "

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def keep_batches(
    db: Connection, batches: Sequence[TelemetryBatch], now: float, unfold: Unfold
) -> list[int | MessageError]:
    """Store the rows that are new.

    Args:
        db: A connection inside a transaction.
        batches: In the order of their arrival; of any devices.
        now: Seconds since 1970.
        unfold: Called for each new row of the classes in ``UNFOLDED``.

    Returns:
        For each batch the number up to which all rows of its (boot, class) are kept, or why it is refused: its device
        is not enrolled.
    """
    keys = [(batch.device, batch.boot, batch.cls) for batch in batches]
    enrolled = _enrolled(db, sorted({key[0] for key in keys}))
    order = sorted(range(len(keys)), key=keys.__getitem__)
    kept = [(keys[i], batches[i]) for i in order if keys[i][0] in enrolled]
    for source, values in sources(db, _TYPES, _rows([one for one in kept if one[0][2] not in UNFOLDED], now)):
        db.execute(_INSERT + source + _ONCE, values)
    _keep_unfolded(db, [one for one in kept if one[0][2] in UNFOLDED], now, unfold)
    moved = _move_marks(db, kept, now)
    return [moved[key] if key[0] in enrolled else _stranger(key[0]) for key in keys]


_Kept = tuple[Key, TelemetryBatch]


def _stranger(device: str) -> MessageError:
    return MessageError("the device is not enrolled here", where=device, fix="enrol it again")


def _enrolled(db: Connection, devices: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for source, values in sources(db, ("TEXT",), [(device,) for device in devices]):
        found.update(row[0] for row in db.execute(f"SELECT device FROM devices WHERE device IN ({source})", values))
    return found


def _rows(kept: Sequence[_Kept], now: float) -> list[tuple[Any, ...]]:
    return [
        (*key, row.seq, row.time, now, row.wire or _encode(row.body).encode())
        for key, batch in kept
        for row in batch.rows
    ]


def _keep_unfolded(db: Connection, kept: Sequence[_Kept], now: float, unfold: Unfold) -> None:
    new: set[tuple[Any, ...]] = set()
    for source, values in sources(db, _TYPES, _rows(kept, now)):
        new.update(map(tuple, db.execute(f"{_INSERT}{source}{_ONCE} RETURNING device, boot, class, seq", values)))
    for key, batch in kept:
        for row in batch.rows:
            if (*key, row.seq) in new:
                new.discard((*key, row.seq))  # twice in one group
                unfold(db, batch, row)


def _move_marks(db: Connection, kept: Sequence[_Kept], now: float) -> dict[Key, int]:
    """Move the marks of all keys; ``kept`` is sorted by key, and by arrival within one.

    What a batch alone says is joined with the mark in the database by the statement that stores it. Only where a
    row is stored beyond the mark, after a gap, are stored rows looked at.
    """
    told = dict[Key, tuple[int, int]]()
    for key, batch in kept:
        mark, top = told.get(key, (0, 0))
        told[key] = _over(batch, mark), max(top, batch.rows[-1].seq if batch.rows else 0)
    moved = {
        key: mark for key, (mark, _) in told.items()
    }  # PostgreSQL returns no NUL: such a key comes back as another
    rows = [(*key, mark, top, now) for key, (mark, top) in told.items()]
    for source, values in sources(db, _MARK_TYPES, rows):
        for device, boot, cls, mark, top in db.execute(f"{_INSERT_MARK}{source}{_MARK}", values).fetchall():
            key = device, boot, cls
            moved[key] = _over_stored(db, key, mark) if top > mark else mark
    return moved


def _over(batch: TelemetryBatch, mark: int) -> int:
    """Move a mark over a batch's own rows."""
    mark = max(mark, batch.after_seq)
    for row in batch.rows:
        if row.seq == mark + 1:
            mark = row.seq
    return mark


def _over_stored(db: Connection, key: Key, mark: int) -> int:
    following = "SELECT seq FROM telemetry WHERE device = ? AND boot = ? AND class = ? AND seq > ? ORDER BY seq"
    before = mark
    for (seq,) in db.execute(following, (*key, mark)):
        if seq != mark + 1:
            break
        mark = seq
    if mark > before:
        db.execute("UPDATE marks SET up_to = ? WHERE device = ? AND boot = ? AND class = ?", (mark, *key))
    return mark
