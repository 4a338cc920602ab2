# SPDX-License-Identifier: Apache-2.0
"""Telemetry in the database: every row once, the high-water mark that may be acknowledged, and what is read from rows.

A row is (device, boot, class, sequence); the unique index makes a second arrival harmless. Results and drift
windows are unfolded into their own tables in the same transaction, and only when the row is new.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from edge_contract import canonical
from edge_contract.batches import TelemetryBatch, TelemetryRow
from edge_contract.errors import MessageError, StropError
from fleet.adapters.database import Connection

__all__ = [
    "Window",
    "count_rows",
    "dead_letter",
    "events",
    "keep_batch",
    "labels",
    "latest",
    "newest_bundle",
    "prune",
    "put_labels",
    "result_count",
    "results",
    "rows",
    "timed_results",
    "window_count",
    "windows",
]

KEPT_DEAD_LETTERS: Final = 1000
_MAX_RESULTS: Final = 1000  # per row; the runner sends at most 50

Judge = Callable[[Connection, str, str, bytes, Any], tuple[str, dict[str, Any]]]
"""(connection, device, bundle, summary bytes, device's own verdict or None) → (level, verdict as JSON)."""


@dataclass(frozen=True)
class Window:
    """One judged drift window of a device."""

    id: int
    device: str
    bundle: str
    time: float
    level: str
    summary: bytes
    verdict: dict[str, Any]


def dead_letter(db: Connection, topic: str, payload: bytes, reason: str, now: float) -> None:
    """Keep a message that cannot be read, with the reason; the oldest make room."""
    db.execute(
        "INSERT INTO dead_letters (time, topic, reason, payload) VALUES (?,?,?,?)",
        (now, topic, reason, payload[:65536]),
    )
    db.execute("DELETE FROM dead_letters WHERE id <= (SELECT MAX(id) FROM dead_letters) - ?", (KEPT_DEAD_LETTERS,))


def keep_batch(db: Connection, batch: TelemetryBatch, now: float, judge: Judge) -> int:
    """Store the rows that are new and return the sequence number up to which all is kept.

    The mark starts at what the device says was acknowledged or dropped before (``after_seq``) and moves over
    rows without a gap, so a batch that was lost is never acknowledged by a later one.
    """
    for row in batch.rows:
        if _insert(db, batch, row, now):
            _unfold(db, batch, row, now, judge)
    return _move_mark(db, batch)


def _insert(db: Connection, batch: TelemetryBatch, row: TelemetryRow, now: float) -> bool:
    values = (batch.device, batch.boot, batch.cls, row.seq, row.time, now, canonical.dumps(row.body))
    statement = """INSERT OR IGNORE INTO telemetry (device, boot, class, seq, time, received, body)
                   VALUES (?,?,?,?,?,?,?)"""
    return db.execute(statement, values).rowcount == 1


def _unfold(db: Connection, batch: TelemetryBatch, row: TelemetryRow, now: float, judge: Judge) -> None:
    """A row whose body cannot be read stays as it is, is acknowledged, and leaves a note why."""
    try:
        if batch.cls == "result":
            _results(db, batch.device, row)
        elif batch.cls == "drift":
            _window(db, batch.device, row, judge)
    except StropError as error:
        dead_letter(db, f"tm/{batch.cls} of {batch.device}, seq {row.seq}", canonical.dumps(row.body), str(error), now)


def _results(db: Connection, device: str, row: TelemetryRow) -> None:
    found, bundle = row.body.get("rows"), row.body.get("bundle", "")
    if not isinstance(found, list) or not isinstance(bundle, str) or len(found) > _MAX_RESULTS:
        raise MessageError("expected bundle and rows", where="result")
    values = []
    for i, item in enumerate(found):
        if not isinstance(item, list) or len(item) != 3 or not isinstance(item[0], str) or not isinstance(item[1], int):
            raise MessageError("expected [reference, class, confidence]", where=f"result.rows[{i}]")
        values.append((device, row.time, bundle, item[0][:200], item[1], canonical.as_float(item[2])))
    db.executemany("INSERT INTO results (device, time, bundle, ref, class, confidence) VALUES (?,?,?,?,?,?)", values)


def _window(db: Connection, device: str, row: TelemetryRow, judge: Judge) -> None:
    text, bundle = row.body.get("summary"), row.body.get("bundle", "")
    if not isinstance(text, str) or not isinstance(bundle, str):
        raise MessageError("expected bundle and summary", where="drift")
    try:
        summary = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise MessageError("the summary is not base 64", where="drift") from error
    level, verdict = judge(db, device, bundle, summary, row.body.get("verdict"))
    statement = "INSERT INTO windows (device, bundle, time, level, summary, verdict) VALUES (?,?,?,?,?,?)"
    db.execute(statement, (device, bundle, row.time, level, summary, canonical.dumps(verdict)))


def _move_mark(db: Connection, batch: TelemetryBatch) -> int:
    key = (batch.device, batch.boot, batch.cls)
    row = db.execute("SELECT up_to FROM marks WHERE device = ? AND boot = ? AND class = ?", key).fetchone()
    mark = max(row["up_to"] if row else 0, batch.after_seq)
    following = "SELECT seq FROM telemetry WHERE device = ? AND boot = ? AND class = ? AND seq > ? ORDER BY seq"
    for (seq,) in db.execute(following, (*key, mark)):
        if seq != mark + 1:
            break
        mark = seq
    db.execute("INSERT OR REPLACE INTO marks (device, boot, class, up_to) VALUES (?,?,?,?)", (*key, mark))
    return mark


def rows(db: Connection, device: str, cls: str, after: int, limit: int) -> list[dict[str, Any]]:
    """Return telemetry rows in the order of arrival, ``id`` above ``after``."""
    statement = """SELECT id, boot, seq, time, received, body FROM telemetry
                   WHERE device = ? AND class = ? AND id > ? ORDER BY id LIMIT ?"""
    found = db.execute(statement, (device, cls, after, limit))
    return [{**dict(row), "body": json.loads(row["body"])} for row in found]


def events(db: Connection, device: str, limit: int) -> list[dict[str, Any]]:
    """Return a device's events and alarms, newest first."""
    statement = (
        """SELECT id, class, time, body FROM telemetry WHERE device = ? AND class = ? ORDER BY id DESC LIMIT ?"""
    )
    found = [row for cls in ("event", "alarm") for row in db.execute(statement, (device, cls, limit))]
    newest = sorted(found, key=lambda row: -int(row["id"]))[:limit]
    return [{**dict(row), "body": json.loads(row["body"])} for row in newest]


def latest(db: Connection, device: str, cls: str) -> dict[str, Any] | None:
    """Return the body of a device's newest row of a class, or None."""
    statement = "SELECT body FROM telemetry WHERE device = ? AND class = ? ORDER BY id DESC LIMIT 1"
    row = db.execute(statement, (device, cls)).fetchone()
    return json.loads(row["body"]) if row else None


def count_rows(db: Connection, device: str) -> dict[str, int]:
    """Return class → rows kept of a device."""
    found = db.execute("SELECT class, COUNT(*) FROM telemetry WHERE device = ? GROUP BY class", (device,))
    return dict(tuple(row) for row in found)


def results(db: Connection, device: str, *, limit: int, bundle: str = "") -> list[tuple[str, int]]:
    """Return (reference, class) of a device's newest results, of one bundle if named."""
    only = "AND bundle = ?" if bundle else ""
    values = (device, bundle, limit) if bundle else (device, limit)
    found = db.execute(f"SELECT ref, class FROM results WHERE device = ? {only} ORDER BY id DESC LIMIT ?", values)
    return [(row["ref"], row["class"]) for row in found]


def newest_bundle(db: Connection, device: str) -> str:
    """Return the bundle of a device's newest result, "" before the first."""
    row = db.execute("SELECT bundle FROM results WHERE device = ? ORDER BY id DESC LIMIT 1", (device,)).fetchone()
    return row["bundle"] if row else ""


def result_count(db: Connection, device: str) -> int:
    """Return how many results of a device are kept."""
    found: int = db.execute("SELECT COUNT(*) FROM results WHERE device = ?", (device,)).fetchone()[0]
    return found


def put_labels(db: Connection, device: str, found: dict[str, int]) -> None:
    """Store labels that arrived later; a new label for the same reference replaces the old."""
    db.executemany(
        "INSERT OR REPLACE INTO labels VALUES (?,?,?)", ((device, ref, label) for ref, label in found.items())
    )


def labels(db: Connection, device: str, references: list[str]) -> dict[str, int]:
    """Return the labels that are known for some references."""
    known: dict[str, int] = {}
    for start in range(0, len(references), 500):
        some = references[start : start + 500]
        marks = ",".join("?" * len(some))
        found = db.execute(f"SELECT ref, label FROM labels WHERE device = ? AND ref IN ({marks})", (device, *some))
        known.update(tuple(row) for row in found)
    return known


def windows(db: Connection, device: str, limit: int) -> list[Window]:
    """Return a device's newest drift windows, oldest first."""
    statement = "SELECT * FROM windows WHERE device = ? ORDER BY id DESC LIMIT ?"
    found = [
        Window(r["id"], device, r["bundle"], r["time"], r["level"], r["summary"], json.loads(r["verdict"]))
        for r in db.execute(statement, (device, limit))
    ]
    return found[::-1]


def window_count(db: Connection, device: str) -> int:
    """Return how many drift windows of a device are kept."""
    found: int = db.execute("SELECT COUNT(*) FROM windows WHERE device = ?", (device,)).fetchone()[0]
    return found


def timed_results(db: Connection, device: str, since: float, limit: int) -> list[tuple[float, str, int]]:
    """Return (time, reference, class) of a device's newest results since a time, newest first."""
    statement = "SELECT time, ref, class FROM results WHERE device = ? AND time >= ? ORDER BY id DESC LIMIT ?"
    return [tuple(row) for row in db.execute(statement, (device, since, limit))]


def prune(db: Connection, before: float) -> int:
    """Delete telemetry, results and windows received or measured before a time; return how many rows went."""
    gone = db.execute("DELETE FROM telemetry WHERE received < ?", (before,)).rowcount
    gone += db.execute("DELETE FROM results WHERE time < ?", (before,)).rowcount
    return gone + db.execute("DELETE FROM windows WHERE time < ?", (before,)).rowcount
