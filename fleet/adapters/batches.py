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
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from edge_contract.batches import TelemetryBatch, TelemetryRow
from edge_contract.errors import MessageError
from fleet.adapters.database import Connection, chunks

__all__ = ["UNFOLDED", "Key", "Unfold", "keep_batches"]

Key = tuple[str, str, str]
"""(device, boot, class)."""

Unfold = Callable[[Connection, TelemetryBatch, TelemetryRow], None]
"""Reads a row that is new into the tables of its class; raises nothing for a body that cannot be read."""

UNFOLDED: Final = frozenset({"result", "drift"})
"""Classes whose rows are read into tables of their own."""

_COLUMNS: Final = "device, boot, class, seq, time, received, body"
_INSERT: Final = f"INSERT INTO telemetry ({_COLUMNS}) VALUES "
_ONCE: Final = " ON CONFLICT (device, boot, class, seq) DO NOTHING"
_MARK: Final = """ ON CONFLICT (device, boot, class) DO UPDATE SET
  up_to = CASE WHEN excluded.up_to > marks.up_to THEN excluded.up_to ELSE marks.up_to END,
  top = CASE WHEN excluded.top > marks.top THEN excluded.top ELSE marks.top END, heard = excluded.heard"""

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
    enrolled = _enrolled(db, sorted({batch.device for batch in batches}))
    kept = sorted((batch for batch in batches if batch.device in enrolled), key=_key_of)
    plain = [batch for batch in kept if batch.cls not in UNFOLDED]
    for marks, values in chunks(_rows(plain, now)):
        db.execute(_INSERT + marks + _ONCE, values)
    _keep_unfolded(db, [batch for batch in kept if batch.cls in UNFOLDED], now, unfold)
    moved = _move_marks(db, kept, now)
    return [moved[_key_of(b)] if b.device in enrolled else _stranger(b.device) for b in batches]


def _key_of(batch: TelemetryBatch) -> Key:
    return batch.device, batch.boot, batch.cls


def _stranger(device: str) -> MessageError:
    return MessageError("the device is not enrolled here", where=device, fix="enrol it again")


def _enrolled(db: Connection, devices: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for marks, values in chunks([(device,) for device in devices]):
        listed = marks.replace("(", "").replace(")", "")
        found.update(row[0] for row in db.execute(f"SELECT device FROM devices WHERE device IN ({listed})", values))
    return found


def _rows(batches: Iterable[TelemetryBatch], now: float) -> list[tuple[Any, ...]]:
    return [
        (batch.device, batch.boot, batch.cls, row.seq, row.time, now, _encode(row.body).encode())
        for batch in batches
        for row in batch.rows
    ]


def _keep_unfolded(db: Connection, batches: Sequence[TelemetryBatch], now: float, unfold: Unfold) -> None:
    new: set[tuple[Any, ...]] = set()
    for marks, values in chunks(_rows(batches, now)):
        new.update(map(tuple, db.execute(f"{_INSERT}{marks}{_ONCE} RETURNING device, boot, class, seq", values)))
    for batch in batches:
        for row in batch.rows:
            if (*_key_of(batch), row.seq) in new:
                new.discard((*_key_of(batch), row.seq))  # twice in one group
                unfold(db, batch, row)


def _move_marks(db: Connection, batches: Sequence[TelemetryBatch], now: float) -> dict[Key, int]:
    """Move the marks of all keys; ``batches`` are sorted by key, and by arrival within one."""
    old = _marks(db, sorted({_key_of(batch) for batch in batches}))
    moved, tops = dict[Key, int](), dict[Key, int]()
    for batch in batches:
        key = _key_of(batch)
        mark, top = moved.get(key, old.get(key, (0, 0))[0]), tops.get(key, old.get(key, (0, 0))[1])
        moved[key], tops[key] = _over(batch, mark), max(top, batch.rows[-1].seq if batch.rows else 0)
    for key, mark in moved.items():
        if tops[key] > mark:
            moved[key] = _over_stored(db, key, mark)
    rows = [(*key, mark, tops[key], now) for key, mark in moved.items()]
    for marks, values in chunks(rows):
        db.execute(f"INSERT INTO marks (device, boot, class, up_to, top, heard) VALUES {marks}{_MARK}", values)
    return moved


def _marks(db: Connection, keys: Sequence[Key]) -> dict[Key, tuple[int, int]]:
    found = {}
    for marks, values in chunks(keys):
        statement = f"SELECT device, boot, class, up_to, top FROM marks WHERE (device, boot, class) IN (VALUES {marks})"
        for device, boot, cls, up_to, top in db.execute(statement, values):
            found[device, boot, cls] = (up_to, top)
    return found


def _over(batch: TelemetryBatch, mark: int) -> int:
    """Move a mark over a batch's own rows."""
    mark = max(mark, batch.after_seq)
    for row in batch.rows:
        if row.seq == mark + 1:
            mark = row.seq
    return mark


def _over_stored(db: Connection, key: Key, mark: int) -> int:
    following = "SELECT seq FROM telemetry WHERE device = ? AND boot = ? AND class = ? AND seq > ? ORDER BY seq"
    for (seq,) in db.execute(following, (*key, mark)):
        if seq != mark + 1:
            break
        mark = seq
    return mark
