# SPDX-License-Identifier: Apache-2.0
"""One line for each device, kept in memory: what a list of ten thousand of them shows, without opening their reports.

Theory of operation. Each look reads the small columns of all rows; a device whose columns are as before keeps its
line, another one's record is read and opened. So a look costs a scan and what has changed since the last one, and
nothing has to tell this file of a change. Drift levels come by the rows that ``windows`` has got since.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from edge_contract.findings import Level
from fleet.adapters import device_states
from fleet.adapters.database import Connection
from fleet.adapters.fleet_query import load
from fleet.adapters.store import Store
from fleet.core.facts import board_names, number
from fleet.core.inventory import DeviceRecord, sync_of, told_within_s

__all__ = ["Line", "Roster", "Slot"]

_FRESH_S: Final = 1.0
_OVERLAP: Final = 1000
"""Rows of ``windows`` that are read again: on PostgreSQL a lower id may be committed after a higher one."""

_Accuracy = tuple[float | None, float | None]
_NOTHING: Final[_Accuracy] = (None, None)

_COLUMNS: Final = "device, last_seen, boot, session, dead_boot, dead_session, born_at, desired"

_NEWEST: Final = """SELECT d.device AS device, w.bundle AS bundle, w.level AS level, w.verdict AS verdict
    FROM devices d
    JOIN windows w ON w.id = (SELECT x.id FROM windows x WHERE x.device = d.device AND x.level <> ?
                              ORDER BY x.id DESC LIMIT 1)"""


@dataclass(frozen=True, slots=True)
class Slot:
    """What runs of one model."""

    model: str
    version: str
    running: str
    phase: str


@dataclass(frozen=True, slots=True)
class Line:
    """One device in a list.

    Attributes:
        told_within_s: It is online while it was heard of within so many seconds; negative after its death.
        boards: The names by which its board is found, the target's first.
        level, loss, estimated: Of its newest judged window: the level's word, empty for none, the estimated loss of
            accuracy and the estimated accuracy.
        held: Why it gets no orders: ``quarantined`` or ``decommissioned``; empty if it does.
    """

    device: str
    last_seen: float
    told_within_s: float
    in_sync: bool
    why: str
    slots: tuple[Slot, ...]
    runtime: str
    runtime_version: str
    agent: str
    enrolled_at: float
    boards: tuple[str, ...]
    machine: str
    inferences: int
    errors: float | None
    level: str = ""
    loss: float | None = None
    estimated: float | None = None
    held: str = ""

    def is_online(self, now: float) -> bool:
        """True if it was heard of lately enough."""
        return now - self.last_seen <= self.told_within_s


def _line(record: DeviceRecord) -> Line:
    reported, sync = record.reported, sync_of(record)
    models = reported.models if reported else {}
    return Line(
        device=record.device,
        last_seen=record.last_seen,
        told_within_s=told_within_s(record),
        in_sync=sync.ok,
        why=sync.why,
        slots=tuple(Slot(*map(sys.intern, (n, one.version, one.running, one.phase))) for n, one in models.items()),
        runtime=sys.intern(record.runtime),  # a fleet of ten thousand has a handful of each
        runtime_version=sys.intern(record.runtime_version),
        agent=sys.intern(record.agent_version),
        enrolled_at=record.enrolled_at,
        boards=tuple(map(sys.intern, board_names(record.board))),
        machine=sys.intern(str(record.board.get("machine") or "")),
        inferences=int(number(reported.health.get("inferences")) or 0) if reported else 0,
        errors=number(reported.health.get("errors")) if reported else None,
    )


class Roster:
    """The lines of all devices. Safe to use from any thread.

    Args:
        store: The database.
        monotonic: Seconds; how old the lines may be is measured with it.
    """

    def __init__(self, store: Store, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store, self._monotonic, self._lock, self._fresh_s = store, monotonic, threading.Lock(), _FRESH_S
        self._marks: dict[str, int] = {}
        self._plain: dict[str, Line] = {}
        self._levels: dict[str, tuple[str, str, _Accuracy]] = {}
        self._newest, self._read_at, self._lines = -1, float("-inf"), list[Line]()

    def lines(self) -> list[Line]:
        """Return every device's line by name; at most a second old."""
        with self._lock:
            if self._monotonic() - self._read_at >= self._fresh_s:
                self._lines = self._store.read(self._read)
                self._read_at = self._monotonic()
            return self._lines

    def _read(self, db: Connection) -> list[Line]:
        rows = db.execute(f"SELECT {_COLUMNS} FROM devices ORDER BY device")
        seen = {row["device"]: hash(tuple(row)) for row in rows}
        changed = [name for name, mark in seen.items() if self._marks.get(name) != mark]
        for record in _records(db, changed):
            self._plain[record.device] = _line(record)
        for name in self._plain.keys() - seen.keys():
            del self._plain[name]
        self._marks = seen
        self._read_levels(db)
        held = {name: one.state for name, one in device_states.all_standings(db).items()}
        return [self._whole(name, held.get(name, "")) for name in seen if name in self._plain]

    def _whole(self, name: str, held: str) -> Line:
        line, (_, level, (loss, estimated)) = self._plain[name], self._levels.get(name, ("", "", _NOTHING))
        if (line.level, line.loss, line.estimated, line.held) != (level, loss, estimated, held):
            line = self._plain[name] = replace(line, level=level, loss=loss, estimated=estimated, held=held)
        return line

    def _read_levels(self, db: Connection) -> None:
        """Take the newest judged level of each device; one of an earlier bundle says nothing about this one."""
        top = db.execute("SELECT MAX(id) AS top FROM windows").fetchone()["top"] or 0
        if top == self._newest:
            return
        if self._newest < 0:
            rows = db.execute(_NEWEST, (Level.INSUFFICIENT.value,))
        else:
            later = "SELECT device, bundle, level, verdict FROM windows WHERE id > ? ORDER BY id"
            rows = db.execute(later, (self._newest - _OVERLAP,))
        for device, bundle, level, verdict in map(tuple, rows):
            if level != Level.INSUFFICIENT.value:
                self._levels[device] = (bundle, level, _accuracy(json.loads(verdict)))
            elif self._levels.get(device, ("",))[0] != bundle:
                self._levels[device] = (bundle, "", _NOTHING)
        self._newest = top


def _records(db: Connection, names: list[str]) -> Iterator[DeviceRecord]:
    """Give the records of some devices, of which a few hundred are held at a time."""
    if names:
        yield from (known.record for known in load(db, None, 0.0, only=names))


def _accuracy(verdict: dict[str, Any]) -> _Accuracy:
    there, here = number(verdict.get("reference_accuracy")), number(verdict.get("estimated_accuracy"))
    return (None if there is None or here is None else there - here), here
