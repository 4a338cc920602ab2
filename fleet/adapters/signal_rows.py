# SPDX-License-Identifier: Apache-2.0
"""Signals to train again as rows of the database, and the windows of devices that speak for one."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from edge_contract.errors import RegistryError, StropError, UsageError
from edge_contract.findings import Level, Verdict
from edge_contract.retrain import RetrainSignal
from fleet.adapters import tables
from fleet.adapters.database import Connection, Row
from fleet.core.facts import number as number_of
from fleet.core.retrain import Cohort
from fleet.core.rollout import UNDER_WAY

__all__ = [
    "COLUMNS",
    "OPEN",
    "document_of",
    "drifted",
    "healed_devices",
    "is_busy",
    "known_row",
    "last_time",
    "next_number",
    "now_of",
    "open_of",
    "open_row",
    "open_signals",
    "refuse_other",
    "shown",
    "signal_in",
    "verdicts",
]

OPEN: Final = "open"
COLUMNS: Final = "number, model, bundle, state, made_at, closed_at, actor, reason, holder, held_until, document"
_NEWEST: Final = "SELECT verdict FROM windows WHERE device = ? AND bundle = ? AND level <> ? ORDER BY id DESC LIMIT ?"
_WINDOWS: Final = (
    "SELECT summary FROM windows WHERE device = ? AND bundle = ? AND level IN ('WARN', 'ALARM') "
    "ORDER BY id DESC LIMIT ?"
)
_MOST_ASKED: Final = 200
_EACH: Final = 3


def open_signals(db: Connection) -> list[RetrainSignal]:
    """Return the signals that wait to be handled, newest first."""
    rows = db.execute("SELECT document FROM retrain_signals WHERE state = ? ORDER BY number DESC", (OPEN,))
    return [signal_in(row) for row in rows.fetchall()]


def verdicts(db: Connection, device: str, bundle: str, count: int) -> list[Verdict]:
    """Return a device's newest judged verdicts on a bundle, oldest first."""

    def read() -> Iterator[Verdict]:
        for row in db.execute(_NEWEST, (device, bundle, Level.INSUFFICIENT.value, count)).fetchall():
            try:
                yield Verdict.from_json(json.loads(row["verdict"]))
            except StropError:  # of another version: no evidence
                return

    return list(read())[::-1]


def now_of(db: Connection, device: str, running: str) -> dict[str, Any]:
    """Return what a device runs, and its newest judged window: of which bundle, and what it says."""
    statement = "SELECT bundle, verdict FROM windows WHERE device = ? AND level <> ? ORDER BY id DESC LIMIT 1"
    row = db.execute(statement, (device, Level.INSUFFICIENT.value)).fetchone()
    verdict = json.loads(row["verdict"]) if row else {}
    shares = {key: number_of(verdict.get(key)) for key in ("estimated_accuracy", "low", "high")}
    level, valid = verdict.get("level", Level.INSUFFICIENT.value), bool(verdict.get("valid"))
    bundle = row["bundle"] if row else ""
    return {"device": device, "running": running, "bundle": bundle, "level": level, "valid": valid, **shares}


def drifted(db: Connection, signal: RetrainSignal) -> list[bytes]:
    """Return summaries of the newest windows that made a signal's devices alarm."""
    return [
        bytes(row["summary"])
        for device in signal.devices[:_MOST_ASKED]
        for row in db.execute(_WINDOWS, (device, signal.bundle, _EACH)).fetchall()
    ]


def healed_devices(db: Connection, lineage: Mapping[str, Any]) -> frozenset[str]:
    """Return the devices for which a bundle was healed: empty for one that no loop has made.

    Its reference profile is of the validation data as ever, so these devices go on to look unlike it. That is known,
    and was answered; the drift page still shows it.
    """
    told = lineage.get("loop")
    given = told.get("signal") if isinstance(told, dict) else None
    if not isinstance(given, int):
        return frozenset()
    row = db.execute("SELECT document FROM retrain_signals WHERE number = ?", (given,)).fetchone()
    return frozenset(signal_in(row).devices) if row else frozenset()


def open_of(db: Connection, cohort: Cohort) -> Row | None:
    """Return the row of a cohort's open signal, None without one."""
    where = "model = ? AND bundle = ? AND state = ?"
    statement = f"SELECT {COLUMNS} FROM retrain_signals WHERE {where}"
    row: Row | None = db.execute(statement, (cohort.model, cohort.bundle, OPEN)).fetchone()
    return row


def is_busy(db: Connection, model: str) -> bool:
    """A signal of the model is open, or a rollout of it is under way."""
    row = db.execute("SELECT 1 FROM retrain_signals WHERE model = ? AND state = ? LIMIT 1", (model, OPEN)).fetchone()
    return row is not None or any(one.model == model for one in tables.rollouts(db, UNDER_WAY))


def last_time(db: Connection, model: str) -> float:
    """Return when a signal of a model was made or closed last, seconds since 1970; 0 for never."""
    statement = "SELECT made_at, closed_at FROM retrain_signals WHERE model = ? ORDER BY number DESC LIMIT 1"
    row = db.execute(statement, (model,)).fetchone()
    return max(row["made_at"], row["closed_at"]) if row else 0.0


def next_number(db: Connection) -> int:
    """Return the number of the next signal."""
    return int(db.execute("SELECT COALESCE(MAX(number), 0) + 1 AS n FROM retrain_signals").fetchone()["n"])


def known_row(db: Connection, number: int) -> Row:
    """Return a signal's row; raises UsageError if there is none."""
    row: Row | None = db.execute(f"SELECT {COLUMNS} FROM retrain_signals WHERE number = ?", (number,)).fetchone()
    if row is None:
        raise UsageError(f"signal {number} is not known", fix="strop fleet drift signals --all")
    return row


def open_row(db: Connection, number: int) -> Row:
    """Return an open signal's row; raises UsageError if there is none, RegistryError if it is closed."""
    row = known_row(db, number)
    if row["state"] != OPEN:
        raise RegistryError(f"it is {row['state']}: {row['reason']}", where=f"signal {number}")
    return row


def refuse_other(row: Row, holder: str, now: float) -> None:
    """Raise RegistryError if another one than the holder works on a signal now."""
    if row["holder"] not in ("", holder) and now < row["held_until"]:
        left = f"{row['holder']} works on it for {row['held_until'] - now:.0f} s more"
        raise RegistryError(left, where=f"signal {row['number']}", fix="wait, or end that loop")


def document_of(made: RetrainSignal) -> bytes:
    """Return a signal as it is stored."""
    return json.dumps(made.to_json(), sort_keys=True).encode()  # not canonical: its numbers are read by people


def signal_in(row: Row) -> RetrainSignal:
    """Return the signal of a row."""
    return RetrainSignal.from_json(json.loads(bytes(row["document"])))


def shown(row: Row, now: float) -> dict[str, Any]:
    """Return a row as the API shows it."""
    held = row["state"] == OPEN and row["holder"] != "" and now < row["held_until"]
    names = ("number", "state", "made_at", "closed_at", "actor", "reason", "holder", "held_until")
    return {**{name: row[name] for name in names}, "held": held, "signal": signal_in(row).to_json()}
