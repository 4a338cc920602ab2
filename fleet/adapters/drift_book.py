# SPDX-License-Identifier: Apache-2.0
"""The fleet's cohorts, kept in memory and moved on window by window: the drift page asks here and need not wait.

A step reads the rows of ``windows`` that came since the last one, and adds them to the board (``core.drift_board``).
The server takes a step every two seconds; without it whoever asks does. After a start the windows of the last twelve
hours are read again in such steps, and the page says how many are left. Rows are taken once they have been there for a
moment: on PostgreSQL a lower id may be committed after a higher one.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from edge_contract.errors import StropError, UsageError
from edge_contract.findings import Verdict
from edge_contract.summary import decode
from fleet.adapters import labels, tables
from fleet.adapters.blobs import Blobs
from fleet.adapters.database import Connection
from fleet.adapters.judging import WindowJudge
from fleet.adapters.roster import Roster
from fleet.adapters.store import Store
from fleet.core.drift_board import BLOCK_S, KEPT_HOURS, Board
from fleet.core.drift_groups import GROUPINGS, Group, Key, Seen
from fleet.core.drift_story import CohortView, HourPoint, chosen, hour_point, story

__all__ = ["CohortDetail", "DriftBook", "checked_grouping"]

STEP_S: Final = 2.0
_BACK_S: Final = 2 * BLOCK_S
_ROWS: Final = 1000
_COMPARISONS: Final = 150
_OTHER: Final = "–"


@dataclass(frozen=True)
class CohortDetail:
    """A cohort with its hours, the oldest first."""

    view: CohortView
    hours: tuple[HourPoint, ...]


class DriftBook:
    """The cohorts of a fleet. Safe to use from any thread.

    Args:
        store: The database.
        blobs: Where the bundles' profiles are.
        roster: The devices' lines, for their boards.
        clock: Seconds since 1970.
        settled_s: How long a row must have been there; 0 where one writer commits in the order of the ids.
    """

    def __init__(
        self, store: Store, blobs: Blobs, roster: Roster, clock: Callable[[], float], settled_s: float = 0.0
    ) -> None:
        self._store, self._roster, self._clock, self._settled_s = store, roster, clock, settled_s
        self._judge, self._lock, self._board = WindowJudge(blobs), threading.RLock(), Board()
        self._stepping = threading.Lock()
        self._read_to, self._tops, self._left = -1, list[tuple[float, int]](), 0
        self._versions: dict[str, tuple[str, str]] = {}
        self._points: dict[Key, dict[int, tuple[int, HourPoint]]] = {}
        self._views: dict[Key, tuple[int, CohortView]] = {}
        self.is_driven = False
        """Whether somebody else takes the steps."""

    @property
    def left(self) -> int:
        """Windows that wait to be read, about: more than a handful after a start."""
        return self._left

    @property
    def waiting(self) -> int:
        """Devices that have sent something and were not compared with their cohort since."""
        with self._lock:
            return sum(len(group.dirty) for group in self._board.groups.values())

    def step(self, rows: int = _ROWS, comparisons: int = _COMPARISONS) -> int:
        """Take in what is new, judge what it changed, and return how many windows were taken."""
        with self._stepping:
            return self._step(rows, comparisons)

    def _step(self, rows: int, comparisons: int) -> int:
        # Nobody reads the database while holding the lock: a page's thread may wait for it with the last reader.
        found = self._store.read(lambda db: self._news(db, rows))
        places = self._places() if found else {}
        enrolled = frozenset(line.device for line in self._roster.lines()) if found else frozenset()
        with self._lock:
            for seen, profile in found:
                self._board.add(seen, places.get(seen.device, {}), profile)
            if found:
                self._board.keep(enrolled)
            if self._board.judge(comparisons) or found:
                self._refresh()
        return len(found)

    def run(self, seconds: float = 0.4) -> None:
        """Take steps until nothing is left, for so long at most: what devices send must come in beside it."""
        end = time.monotonic() + seconds
        while (self.step(rows=100, comparisons=100) or self.waiting) and time.monotonic() < end:
            pass

    def cohorts(self, by: str = "bundle", devices: frozenset[str] | None = None) -> list[CohortView]:
        """Return the cohorts, the worst first.

        Args:
            by: ``bundle``, ``site``, ``board``, or any label: each value is a cohort within each bundle.
            devices: Only these; None for all.
        """
        self._follow()
        of = self._store.read(labels.all_labels) if by not in GROUPINGS else {}
        with self._lock:
            if by in GROUPINGS and devices is None:
                found = [view for key, (_, view) in self._views.items() if key[2] == by]
            else:
                found = self._asked(by, devices, of)
        rank = {"both": 0, "moved": 0, "differ": 1, "calm": 2, "few": 3}
        return sorted(found, key=lambda one: (rank[one.kind], -len(one.odd), one.model, one.version, one.value))

    def detail(self, bundle: str, by: str, value: str) -> CohortDetail | None:
        """Return one cohort with its hours; ``bundle`` may be cut short. None for one that is not there."""
        self._follow()
        with self._lock:
            for key, (_, view) in self._views.items():
                if key[0].startswith(bundle) and key[2:] == (by, value):
                    return CohortDetail(view, self._hours(self._board.groups[key]))
        return None

    def places_of(self, device: str) -> list[CohortView]:
        """Return the cohorts that a device belongs to, without those that hold no other."""
        self._follow()
        with self._lock:
            keys = [key for (name, _), m in self._board.members.items() if name == device for key in m.homes()]
            return [self._views[key][1] for key in keys if key in self._views]

    def counts(self) -> dict[tuple[str, str, str], int]:
        """Return (model, version, level) → devices, by their newest judged window; for /metrics."""
        self._follow()
        found: dict[tuple[str, str, str], int] = {}
        with self._lock:
            for member in self._board.members.values():
                key = (*self._versions.get(member.bundle, (member.model, "")), member.level or "INSUFFICIENT")
                found[key] = found.get(key, 0) + 1
        return found

    def _follow(self) -> None:
        if not self.is_driven and self._stepping.acquire(blocking=False):
            try:
                self._step(_ROWS, _COMPARISONS)
            finally:
                self._stepping.release()

    def _refresh(self) -> None:
        groups = self._board.groups
        for gone in [key for key in self._views if key not in groups]:
            self._views.pop(gone, None)
            self._points.pop(gone, None)
        for key, group in groups.items():
            if key in self._views and self._views[key][0] == group.judged and not group.dirty:
                continue
            view = story(group, *self._versions.get(key[0], ("", "")), self._hours(group))
            if view is not None:
                self._views[key] = (group.judged, view)

    def _hours(self, group: Group) -> tuple[HourPoint, ...]:
        """Return a cohort's hours; one that nothing was added to is not judged again."""
        known, excused = self._points.setdefault(group.key, {}), group.excused()
        for hour, total in group.hours.items():
            if hour not in known or known[hour][0] != total.windows:
                known[hour] = total.windows, hour_point(group.profile, hour, total, excused)
        for gone in [hour for hour in known if hour not in group.hours]:
            del known[gone]
        return tuple(known[hour][1] for hour in sorted(known))[-KEPT_HOURS:]

    def _asked(self, by: str, devices: frozenset[str] | None, of: Mapping[str, Mapping[str, str]]) -> list[CohortView]:
        """Group by any label, or only some devices: judged now, from what the devices counted."""
        found = []
        for key, group in self._board.groups.items():
            if key[2] != "bundle":
                continue
            parts: dict[str, set[str]] = {}
            for name, member in group.members.items():
                if devices is None or name in devices:
                    value = member.places.get(by, "") if by in GROUPINGS else of.get(name, {}).get(by, _OTHER)
                    parts.setdefault(value, set()).add(name)
            for value, names in parts.items():
                view = story(chosen(group, frozenset(names)), *self._versions.get(key[0], ("", "")))
                found += [replace(view, by=by, value=value)] if view is not None else []
        return found

    def _places(self) -> Mapping[str, Mapping[str, str]]:
        sites = self._store.read(_sites)
        boards = {line.device: (line.boards[0] if line.boards else line.machine) for line in self._roster.lines()}
        return {name: {"site": sites.get(name, ""), "board": board} for name, board in boards.items()}

    def _news(self, db: Connection, rows: int) -> list[tuple[Seen, Any]]:
        top = int(db.execute("SELECT MAX(id) AS top FROM windows").fetchone()["top"] or 0)
        if self._read_to < 0:
            first = db.execute(
                "SELECT MIN(id) AS low FROM windows WHERE time >= ?", (self._clock() - _BACK_S,)
            ).fetchone()
            self._read_to = (int(first["low"]) - 1) if first["low"] is not None else top
        upto = self._settled(top)
        statement = "SELECT * FROM windows WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
        found = []
        for row in db.execute(statement, (self._read_to, upto, rows)).fetchall():
            self._read_to = int(row["id"])
            with suppress(StropError, ValueError, KeyError):  # of a newer server, or of a bundle that is gone
                found += self._seen(db, row)
        self._left = max(0, top - self._read_to)
        return found

    def _settled(self, top: int) -> int:
        """Return the highest id that was there ``settled_s`` ago."""
        if not self._settled_s:
            return top
        now = time.monotonic()
        self._tops.append((now, top))
        old = [one for one in self._tops if now - one[0] >= self._settled_s]
        self._tops = [*old[-1:], *(one for one in self._tops if now - one[0] < self._settled_s)]
        return old[-1][1] if old else 0

    def _seen(self, db: Connection, row: Any) -> list[tuple[Seen, Any]]:
        bundle = row["bundle"]
        if bundle not in self._versions:
            self._versions.update({one.bundle: (one.model, one.version) for one in tables.models(db)})
        summary, told = decode(bytes(row["summary"])), json.loads(bytes(row["verdict"]))
        profile = self._judge.profile(db, bundle, summary.profile_crc)
        if profile is None or bundle not in self._versions:
            return []
        verdict, inputs = Verdict.from_json(told), told.get("inputs") or {}
        warm = summary.health.temperature_c
        seen = Seen(
            device=row["device"],
            model=self._versions[bundle][0],
            bundle=bundle,
            profile_crc=summary.profile_crc,
            # The row's time is the window's end; a clock that is plainly wrong was put right at the arrival.
            start_s=float(row["time"]) - summary.duration_ms / 1000,
            counters=summary.counters,
            temperature_c=warm[1] if warm else None,
            level=verdict.level.value,
            since_ms=verdict.since_ms,
            moved=verdict.moved,
            reason=verdict.reason,
            estimated=verdict.estimated_accuracy,
            valid=verdict.valid,
            inputs=str(inputs.get("against", "")),
            has_inputs_moved=any(one.text for one in verdict.channels if one.name == "input"),
        )
        return [(seen, profile)]


def _sites(db: Connection) -> dict[str, str]:
    rows = db.execute("SELECT device, value FROM device_labels WHERE name = 'site'")
    return {row["device"]: row["value"] for row in rows}


def checked_grouping(by: str) -> str:
    """Return a grouping; raises UsageError for what cannot be a label."""
    if not by or len(by) > 63 or not by.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise UsageError(f"{by[:40]!r} is no label to group by", fix=f"use {', '.join(GROUPINGS)}, or a label's name")
    return by
