# SPDX-License-Identifier: Apache-2.0
"""How long telemetry stays: raw rows for days, hourly sums for years; each deletion stands in the audit log.

Rows are rolled up in the order of their ids, behind a mark, and only once they are some minutes old: by then every
worker's transaction that took a lower id has ended. A row goes only after it was rolled up. All steps are small
transactions, so that devices' batches go in between. What is old counts from its arrival, by the server's clock: a
device whose clock is wrong neither keeps its rows for ever nor loses them at once.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from edge_contract import canonical
from edge_contract.errors import UsageError
from fleet.adapters import drift_hours, tables
from fleet.adapters.database import Connection, chunks
from fleet.adapters.desk import Desk, known_device
from fleet.core.rollup import HOUR_S, Rollup, hour_of, read_row

__all__ = ["RetentionVerbs", "roll_up", "rollups", "sweep"]

_SETTLED_S: Final = 300.0
_STEP: Final = 2000
_STEPS: Final = 50
"""Steps in one round of housekeeping, 100 000 rows: the next minute goes on."""
_MARK: Final = "rolled_up"
_DAY_S: Final = 86_400.0
_OF_A_DEVICE: Final = ("telemetry", "results", "labels", "windows", "drift_states", "drift_hours", "marks", "rollups")

_Key = tuple[str, str, int]


def _mark(db: Connection) -> int:
    row = db.execute("SELECT value FROM retention WHERE name = ?", (_MARK,)).fetchone()
    return int(row[0]) if row else 0


def roll_up(db: Connection, now: float) -> int:
    """Add the next rows to their hours and return how many they were."""
    statement = "SELECT id, device, class, time, received, body FROM telemetry WHERE id > ? ORDER BY id LIMIT ?"
    rows = []
    for row in db.execute(statement, (_mark(db), _STEP)).fetchall():
        if row["received"] > now - _SETTLED_S:
            break
        rows.append(row)
    if not rows:
        return 0
    found: dict[_Key, Rollup] = defaultdict(Rollup)
    for row in rows:
        key = (row["device"], row["class"], hour_of(row["time"], row["received"]))
        found[key] += read_row(row["class"], json.loads(row["body"]))
    _add(db, found)
    statement = "INSERT INTO retention (name, value) VALUES (?,?) ON CONFLICT (name) DO UPDATE SET value=excluded.value"
    db.execute(statement, (_MARK, rows[-1]["id"]))
    return len(rows)


def _add(db: Connection, found: dict[_Key, Rollup]) -> None:
    columns = "device, class, hour, received, inferences, errors, document"
    for marks, values in chunks(sorted(found)):
        statement = f"SELECT {columns} FROM rollups WHERE (device, class, hour) IN (VALUES {marks})"
        for row in db.execute(statement, values).fetchall():
            found[row["device"], row["class"], row["hour"]] += _rollup(row)
    rows = [
        (*key, one.received, one.inferences, one.errors, canonical.dumps(one.to_json()))
        for key, one in sorted(found.items())
    ]
    changed = ", ".join(f"{name}=excluded.{name}" for name in ("received", "inferences", "errors", "document"))
    for marks, values in chunks(rows):
        statement = f"INSERT INTO rollups ({columns}) VALUES {marks} ON CONFLICT (device, class, hour) DO UPDATE SET "
        db.execute(statement + changed, values)


def _rollup(row: Any) -> Rollup:
    document = json.loads(row["document"])
    p95 = canonical.as_float(document["p95_us"])
    return Rollup(row["received"], row["inferences"], row["errors"], tuple(document["latency"]), p95)


def rollups(db: Connection, device: str, cls: str, since: float, limit: int) -> list[dict[str, Any]]:
    """Return a device's hours of a class, oldest first: ``start`` in seconds since 1970 and the sums."""
    statement = "SELECT * FROM rollups WHERE device = ? AND class = ? AND hour >= ? ORDER BY hour LIMIT ?"
    found = []
    for row in db.execute(statement, (device, cls, int(since // HOUR_S), limit)):
        one = _rollup(row)
        sums = {"rows": one.received, "inferences": one.inferences, "errors": one.errors}
        found.append({"start": row["hour"] * HOUR_S, **sums, "latency": list(one.latency), "p95_us": one.p95_us})
    return found


def sweep(db: Connection, before: float) -> dict[str, int]:
    """Delete the oldest raw rows that were received before a time and are rolled up; at most a step of each table."""
    last = 0
    statement = "SELECT id, received FROM telemetry WHERE id <= ? ORDER BY id LIMIT ?"
    for row in db.execute(statement, (_mark(db), _STEP)):
        if row["received"] >= before:
            break
        last = row["id"]
    gone = {"telemetry": db.execute("DELETE FROM telemetry WHERE id <= ?", (last,)).rowcount if last else 0}
    for table in ("results", "windows"):
        # A worker of the version before writes no arrival: then the measured time has to do.
        old = "received < ? AND (received > 0 OR time < ?)"
        chosen = f"SELECT id FROM {table} WHERE {old} ORDER BY received LIMIT ?"
        gone[table] = db.execute(f"DELETE FROM {table} WHERE id IN ({chosen})", (before, before, _STEP)).rowcount
    gone["marks"] = db.execute(_OLD_MARKS, (before,)).rowcount
    gone["drift_hours"] = drift_hours.forget_before(db, int(before // _DAY_S))
    return gone


_OLD_MARKS: Final = """DELETE FROM marks WHERE heard > 0 AND heard < ? AND NOT EXISTS (
  SELECT 1 FROM telemetry
  WHERE telemetry.device = marks.device AND telemetry.boot = marks.boot AND telemetry.class = marks.class)"""


class RetentionVerbs:
    """What is kept, for how long, and what an operator may ask of it.

    Args:
        desk: The database with its audit log.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def step(self, now: float, raw_days: float, rollup_days: float) -> dict[str, int]:
        """Roll up and delete what is due, in small transactions; what was deleted is written to the audit log."""
        store, gone = self._desk.store, defaultdict[str, int](int)
        for _ in range(_STEPS):
            if store.write(lambda db: roll_up(db, now)) < _STEP:
                break
        for _ in range(_STEPS):
            found = store.write(lambda db: self._sweep(db, now, raw_days))
            for table, count in found.items():
                gone[table] += count
            if max(found.values()) < _STEP:
                break
        hour = int((now - rollup_days * _DAY_S) // HOUR_S)
        gone["rollups"] = store.write(lambda db: self._forget_hours(db, hour))
        return dict(gone)

    def _sweep(self, db: Connection, now: float, raw_days: float) -> dict[str, int]:
        before = now - raw_days * _DAY_S
        gone = sweep(db, before)
        self._note(db, gone, {"received_before": before, "days": raw_days})
        return gone

    def _forget_hours(self, db: Connection, hour: int) -> int:
        gone = db.execute("DELETE FROM rollups WHERE hour < ?", (hour,)).rowcount
        self._note(db, {"rollups": gone}, {"before": float(hour * HOUR_S)})
        return gone

    def _note(self, db: Connection, gone: dict[str, int], why: dict[str, Any]) -> None:
        if any(gone.values()):
            counts = {table: count for table, count in gone.items() if count}
            self._desk.audit(db, "server", "telemetry.delete", "fleet", {"rows": counts, **why})

    def forget(self, device: str, actor: str) -> dict[str, int]:
        """Delete everything that a device has sent, its hours too, and return how many rows of each table went.

        Raises:
            UsageError: The device is not enrolled.
        """

        def job(db: Connection) -> dict[str, int]:
            known_device(db, device)
            gone = {t: db.execute(f"DELETE FROM {t} WHERE device = ?", (device,)).rowcount for t in _OF_A_DEVICE}
            self._desk.audit(db, actor, "telemetry.forget", device, {"rows": gone})
            return gone

        return self._desk.store.write(job)

    def hours(self, device: str, cls: str, since: float, limit: int) -> list[dict[str, Any]]:
        """Return a device's hours of a class since a time; raises UsageError if it is not enrolled."""
        return self._desk.store.read(lambda db: (known_device(db, device), rollups(db, device, cls, since, limit))[1])

    def kept(self) -> dict[str, Any]:
        """Return how much is kept, what is rolled up, and which deletions the audit log holds."""

        def read(db: Connection) -> dict[str, Any]:
            sizes = {t: int(db.execute(f"SELECT COUNT(*) FROM {t}").fetchone()[0]) for t in ("telemetry", "rollups")}
            oldest = db.execute("SELECT MIN(received) FROM telemetry").fetchone()[0]
            return {**sizes, "oldest_raw": oldest, "rolled_up_to": _mark(db), "deletions": _deletions(db)}

        return self._desk.store.read(read)


def _deletions(db: Connection) -> Sequence[dict[str, Any]]:
    entries = [e for e in tables.all_audit(db, 2000) if e.action in {"telemetry.delete", "telemetry.forget"}]
    return [{"number": e.number, "time": e.time, "actor": e.actor, "on": e.subject, **e.detail} for e in entries[:50]]


def known_class(cls: str, classes: Sequence[str]) -> str:
    """Return a class of telemetry; raises UsageError for another word."""
    if cls not in classes:
        raise UsageError(f"unknown class {cls[:40]!r}", fix=f"use one of {', '.join(classes)}")
    return cls
