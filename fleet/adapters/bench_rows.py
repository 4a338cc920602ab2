# SPDX-License-Identifier: Apache-2.0
"""Benchmarks in the database: runs, each device's part, and the files that came back."""

import json
from typing import Any, Final

from edge_contract.bench_job import BenchFile
from edge_contract.errors import UsageError
from fleet.adapters.database import Connection, Row, upsert
from fleet.core.bench import OPEN, BenchPart, BenchRun
from fleet.core.commands import stored

__all__ = [
    "add_run",
    "all_open",
    "files_of",
    "first_open",
    "known_part",
    "known_run",
    "make_room",
    "needed_blobs",
    "of_device",
    "part",
    "parts_of",
    "payload",
    "put_file",
    "put_part",
    "runs",
]

KEPT_RUNS: Final = 500
KEPT_BYTES: Final = 1_000_000_000
LIST: Final = "strop fleet bench list"
_OPEN: Final = ",".join("?" for _ in OPEN)
_PART: Final = ("run", "device", "state", "why", "asked_at", "said_at", "changed_at", "expires_at", "facts")


def add_run(db: Connection, run: BenchRun) -> None:
    """Store a new benchmark."""
    values = (run.id, run.started_at, run.actor, stored(run.to_json()))
    db.execute("INSERT INTO bench_runs (id, started_at, actor, document) VALUES (?,?,?,?)", values)


def _run(row: Row) -> BenchRun:
    return BenchRun.from_json(json.loads(row["document"]))


def runs(db: Connection) -> list[BenchRun]:
    """Return all benchmarks, the newest first."""
    return [_run(row) for row in db.execute("SELECT document FROM bench_runs ORDER BY started_at DESC, id DESC")]


def known_run(db: Connection, run_id: str) -> BenchRun:
    """Return a benchmark; raises UsageError if nobody knows it."""
    row = db.execute("SELECT document FROM bench_runs WHERE id = ?", (run_id,)).fetchone()
    if row is None:
        raise UsageError(f"benchmark '{run_id[:40]}' is not known", fix=LIST)
    return _run(row)


def _part(row: Row) -> BenchPart:
    return BenchPart(id=row["id"], facts=json.loads(row["facts"]), **{name: row[name] for name in _PART[:-1]})


def put_part(db: Connection, one: BenchPart) -> None:
    """Write a device's part of a benchmark."""
    values = (one.id, *(getattr(one, name) for name in _PART[:-1]), stored(one.facts))
    db.execute(upsert("bench_jobs", "id", *_PART), values)


def part(db: Connection, job: str, device: str) -> BenchPart | None:
    """Return a part by the name of its order, None if this device has no such order."""
    row = db.execute("SELECT * FROM bench_jobs WHERE id = ? AND device = ?", (job, device)).fetchone()
    return _part(row) if row else None


def known_part(db: Connection, run_id: str, device: str) -> BenchPart:
    """Return a device's part of a benchmark; raises UsageError if it has none."""
    row = db.execute("SELECT * FROM bench_jobs WHERE run = ? AND device = ?", (run_id, device)).fetchone()
    if row is None:
        raise UsageError(f"'{device[:63]}' has no part in benchmark '{run_id[:40]}'", fix=LIST)
    return _part(row)


def parts_of(db: Connection, run_id: str) -> list[BenchPart]:
    """Return the parts of a benchmark by device."""
    rows = db.execute("SELECT * FROM bench_jobs WHERE run = ? ORDER BY device", (run_id,))
    return [_part(row) for row in rows]


def of_device(db: Connection, device: str, most: int) -> list[BenchPart]:
    """Return a device's parts in benchmarks, the newest first."""
    rows = db.execute(
        "SELECT * FROM bench_jobs WHERE device = ? ORDER BY asked_at DESC, id DESC LIMIT ?", (device, most)
    )
    return [_part(row) for row in rows]


def all_open(db: Connection) -> list[BenchPart]:
    """Return every part that has not ended, in the order in which they were asked for."""
    rows = db.execute(f"SELECT * FROM bench_jobs WHERE state IN ({_OPEN}) ORDER BY asked_at, id", OPEN)
    return [_part(row) for row in rows]


def first_open(db: Connection, device: str) -> BenchPart | None:
    """Return what a device is to measure now: what was said to it, else the oldest part that waits for its turn."""
    turns = "CASE WHEN state = 'queued' THEN 1 ELSE 0 END, asked_at, id"
    statement = f"SELECT * FROM bench_jobs WHERE device = ? AND state IN ({_OPEN}) ORDER BY {turns} LIMIT 1"
    row = db.execute(statement, (device, *OPEN)).fetchone()
    return _part(row) if row else None


def put_file(db: Connection, of: BenchPart, name: str, sha256: str, payload: bytes, now: float) -> None:  # noqa: PLR0917
    """Store a file of a result; the same one again changes nothing."""
    statement = upsert("bench_files", "job, name", "device", "size", "sha256", "received", "payload")
    db.execute(statement, (of.id, name, of.device, len(payload), sha256, now, payload))


def files_of(db: Connection, job: str) -> dict[str, BenchFile]:
    """Return the files that came for a part, by name."""
    rows = db.execute("SELECT name, size, sha256 FROM bench_files WHERE job = ? ORDER BY name", (job,))
    return {row["name"]: BenchFile(row["name"], row["sha256"], row["size"]) for row in rows}


def needed_blobs(db: Connection) -> set[str]:
    """Return the SHA-256 of every plain file that a device may still ask for."""
    live = {one.run for one in all_open(db)}
    return {file.sha256 for run_id in live for file in known_run(db, run_id).model.files}


def make_room(db: Connection) -> int:
    """Forget the oldest benchmarks that have ended where there are too many, or too many bytes; return how many."""
    count = db.execute("SELECT COUNT(*) FROM bench_runs").fetchone()[0]
    size = db.execute("SELECT COALESCE(SUM(size), 0) FROM bench_files").fetchone()[0]
    if count <= KEPT_RUNS and size <= KEPT_BYTES:
        return 0
    live = {one.run for one in all_open(db)}
    rows = db.execute("SELECT id FROM bench_runs ORDER BY started_at, id LIMIT ?", (KEPT_RUNS // 10,)).fetchall()
    gone = [row["id"] for row in rows if row["id"] not in live]
    for run_id in gone:
        _forget(db, run_id)
    return len(gone)


def _forget(db: Connection, run_id: str) -> None:
    db.execute("DELETE FROM bench_files WHERE job IN (SELECT id FROM bench_jobs WHERE run = ?)", (run_id,))
    db.execute("DELETE FROM bench_jobs WHERE run = ?", (run_id,))
    db.execute("DELETE FROM bench_runs WHERE id = ?", (run_id,))


def payload(db: Connection, job: str, name: str) -> bytes:
    """Return the bytes of a file that came; raises UsageError if there is none."""
    row: Any = db.execute("SELECT payload FROM bench_files WHERE job = ? AND name = ?", (job, name)).fetchone()
    if row is None:
        raise UsageError(f"no file '{name[:63]}'", where=f"benchmark {job[:40]}", fix=LIST)
    return bytes(row["payload"])
