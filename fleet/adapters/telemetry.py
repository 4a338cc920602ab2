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
from fleet.adapters.batches import Unfold, keep_batches
from fleet.adapters.database import Connection, upsert
from fleet.core.rollup import credible

__all__ = [
    "DEAD",
    "KEPT_DEAD_LETTERS",
    "Window",
    "count_rows",
    "dead_letter",
    "events",
    "keep_batch",
    "labels",
    "latest",
    "newest_bundle",
    "put_labels",
    "result_count",
    "results",
    "rows",
    "timed_results",
    "unfolding",
    "window_count",
    "windows",
]

KEPT_DEAD_LETTERS: Final = 1000
DEAD: Final = "dead letter"
"""What the future of a message resolves to that was put away unread."""
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
    """Store the rows of one batch that are new and return the sequence number up to which all is kept.

    Raises:
        MessageError: Its device is not enrolled.
    """
    (kept,) = keep_batches(db, [batch], now, unfolding(judge, lambda: now))
    if isinstance(kept, MessageError):
        raise kept
    return kept


def unfolding(judge: Judge, clock: Callable[[], float]) -> Unfold:
    """Return what reads rows of results and drift windows into their tables.

    A row whose body cannot be read stays as it is, is acknowledged, and leaves a note why.
    """

    def unfold(db: Connection, batch: TelemetryBatch, row: TelemetryRow) -> None:
        now = clock()
        try:
            # Charts show when it was measured, unless the clock is plainly wrong; it stays by when it came.
            at = credible(row.time, now), now
            if batch.cls == "result":
                _results(db, batch.device, row, at)
            else:
                _window(db, batch.device, row, at, judge)
        except StropError as error:
            name = f"tm/{batch.cls} of {batch.device}, seq {row.seq}"
            dead_letter(db, name, row.wire or canonical.dumps(row.body), str(error), now)

    return unfold


_At = tuple[float, float]
"""When it was measured, and when it came; seconds since 1970."""


def _results(db: Connection, device: str, row: TelemetryRow, at: _At) -> None:
    found, bundle = row.body.get("rows"), row.body.get("bundle", "")
    if not isinstance(found, list) or not isinstance(bundle, str) or len(found) > _MAX_RESULTS:
        raise MessageError("expected bundle and rows", where="result")
    values = []
    for i, item in enumerate(found):
        if not isinstance(item, list) or len(item) != 3 or not isinstance(item[0], str) or not isinstance(item[1], int):
            raise MessageError("expected [reference, class, confidence]", where=f"result.rows[{i}]")
        values.append((device, *at, bundle, item[0][:200], item[1], canonical.as_float(item[2])))
    names = "device, time, received, bundle, ref, class, confidence"
    db.executemany(f"INSERT INTO results ({names}) VALUES (?,?,?,?,?,?,?)", values)


def _window(db: Connection, device: str, row: TelemetryRow, at: _At, judge: Judge) -> None:
    text, bundle = row.body.get("summary"), row.body.get("bundle", "")
    if not isinstance(text, str) or not isinstance(bundle, str):
        raise MessageError("expected bundle and summary", where="drift")
    try:
        summary = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise MessageError("the summary is not base 64", where="drift") from error
    level, verdict = judge(db, device, bundle, summary, row.body.get("verdict"))
    statement = "INSERT INTO windows (device, bundle, time, received, level, summary, verdict) VALUES (?,?,?,?,?,?,?)"
    db.execute(statement, (device, bundle, *at, level, summary, canonical.dumps(verdict)))


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
    rows = ((device, ref, label) for ref, label in found.items())
    db.executemany(upsert("labels", "device, ref", "label"), rows)


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
