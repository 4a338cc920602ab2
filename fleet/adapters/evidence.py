# SPDX-License-Identifier: Apache-2.0
"""What a gate looks at, read from telemetry: each device's metric rows and crashes, before and after its update.

A wave is looked at every few seconds over hours, so each row is read once: the running sums of a device are kept in
memory with the numbers of the last metric row and drift window. After a restart they are read again, and come out the
same. Executions that ended are opened once, too (``updated``).

Which rows count: of the rollout's model, by the bundle that the row names. An updated device counts from its success
on, a control from the first success of the rollout on; ``settle_s`` after that is left out. Time is the server's.
"""

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from edge_contract import canonical
from edge_contract.canonical import as_float
from edge_contract.errors import StropError
from edge_contract.findings import Level
from edge_contract.states import Status, WaveState
from edge_contract.tails import normal_quantile
from fleet.adapters.database import Connection
from fleet.adapters.updated import Updated
from fleet.core.evidence import DeviceEvidence, Judged, Row, Span
from fleet.core.execution import Execution
from fleet.core.gate_limits import GateLimits
from fleet.core.gates import WaveVerdict, judge_wave
from fleet.core.rollout import Rollout

__all__ = ["AtWork", "WaveJudge", "history"]

LOOK_S: Final = 15.0
MOST_DEVICES: Final = 100
"""Of each group: more would not make the answer surer by much, and would cost reading."""
_Z_RANGE: Final = (-3.0, 6.0)
KEPT_LOOKS: Final = 500
"""Of each wave, for the chart."""


_At = tuple[int, WaveState]


@dataclass(frozen=True)
class _Seen:
    """What has been read of one device."""

    last_id: int
    last_window: int = 0
    before: Span = field(default_factory=Span)
    after: Span = field(default_factory=Span)


@dataclass(frozen=True)
class _Place:
    """One device's place: in which group, and from when its rows count as after."""

    device: str
    is_treated: bool
    since: float
    execution: Execution | None = None


@dataclass(frozen=True)
class _Reader:
    """What reading needs: the model's bundles, the first row that may count, and from which time on windows may."""

    db: Connection
    bundles: frozenset[str]
    start: int
    since: float = 0.0


@dataclass(frozen=True)
class AtWork:
    """A rollout with gates, as the engine sees it.

    Attributes:
        executions: Of the rollout, by device; None to have them read from the database, each once.
        running: Device → bundle of the rollout's model that it runs.
    """

    rollout: Rollout
    limits: GateLimits
    executions: Mapping[str, Execution] | None
    running: Mapping[str, str]


class WaveJudge:
    """Judges the wave at work of rollouts that have gates; called by the engine's writer in its transaction."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str, bool], _Seen] = {}
        self._told: dict[int, tuple[float, _At | None, WaveVerdict | None]] = {}
        self._updated: dict[int, Updated] = {}

    def __call__(self, db: Connection, work: AtWork, now: float) -> WaveVerdict | None:
        """Return the verdict on the wave that runs or soaks; None while nobody is updated.

        Args:
            db: The writer's connection.
            work: Whose wave.
            now: Seconds since 1970.
        """
        number, place = work.rollout.number, _at_work(work.rollout)
        at, where, told = self._told.get(number, (-LOOK_S, None, None))
        if told is not None and where == place and 0 <= now - at < LOOK_S:
            return told
        verdict = self._look(db, work, now)
        self._told[number] = (now, place, verdict)
        return verdict

    def forget(self, number: int) -> None:
        """Forget a rollout that has ended."""
        self._told.pop(number, None)
        self._updated.pop(number, None)
        for key in [key for key in self._seen if key[0] == number]:
            del self._seen[key]

    def _look(self, db: Connection, work: AtWork, now: float) -> WaveVerdict | None:
        rollout, limits = work.rollout, work.limits
        place = _at_work(rollout)
        done, ended = self._done(db, work)
        if place is None or not done:
            return None
        wave = place[0]
        begun, newest = min(e.updated_at for e in done), max(e.updated_at for e in done)
        groups = [
            *(_Place(e.device, is_treated=True, since=e.updated_at, execution=e) for e in _some(done, wave)),
            *(_Place(name, is_treated=False, since=begun) for name in _controls(work, ended)),
        ]
        reader = _Reader(
            db, _bundles(db, rollout.model), _first_row(db, begun - limits.lookback_s), begun - limits.lookback_s
        )
        found = [self._evidence(reader, work, place) for place in groups]
        verdict = judge_wave(found, limits, now - newest)
        _keep(db, rollout.number, wave, now, verdict)
        return verdict

    def _done(self, db: Connection, work: AtWork) -> tuple[list[Execution], frozenset[str]]:
        """Return the executions that succeeded, and the devices that are at the end of their part."""
        if work.executions is None:
            updated = self._updated.setdefault(work.rollout.number, Updated(work.rollout.number))
            return updated.read(db), updated.ended
        every = work.executions.values()
        done = [e for e in every if e.status is Status.SUCCEEDED and e.issued_at]
        return done, frozenset(e.device for e in every if not e.is_open)

    def _evidence(self, reader: "_Reader", work: AtWork, group: "_Place") -> DeviceEvidence:
        key = work.rollout.number, group.device, group.is_treated
        seen = self._seen.get(key) or _Seen(reader.start - 1)
        settled = group.since + work.limits.settle_s
        for number, cls, received, body in _rows(reader.db, group.device, seen.last_id):
            seen = replace(seen, last_id=max(seen.last_id, number))
            bundle = body.get("bundle")
            if cls == "event":
                if body.get("kind") == "runner_exit":
                    seen = _crashed(seen, is_after=received >= group.since)
            elif bundle in reader.bundles and (row := _row(body)) is not None:
                is_new = bundle == work.rollout.bundle
                if received >= settled and is_new == group.is_treated:
                    seen = replace(seen, after=seen.after.plus(row))
                elif received < group.since and not is_new:
                    seen = replace(seen, before=seen.before.plus(row))
        seen = _with_windows(reader, work, group, seen)
        self._seen[key] = seen
        compared, agreed = _shadow(group.execution)
        return DeviceEvidence(group.device, group.is_treated, seen.before, seen.after, compared, agreed)


def _at_work(rollout: Rollout) -> _At | None:
    """Return the wave that runs or soaks and its state: a look at a wave that runs says nothing once it soaks."""
    found = ((i, w.state) for i, w in enumerate(rollout.waves) if w.state in (WaveState.RUNNING, WaveState.SOAKING))
    return next(found, None)


def _crashed(seen: _Seen, *, is_after: bool) -> _Seen:
    if is_after:
        return replace(seen, after=replace(seen.after, crashed=True))
    return replace(seen, before=replace(seen.before, crashed=True))


def _shadow(execution: Execution | None) -> tuple[int, int]:
    """Return (compared, agreed) inputs of a device's trial, which its report told."""
    details = execution.details if execution is not None else {}
    try:
        compared = int(as_float(details.get("compared", 0)))
        return compared, round(compared * as_float(details.get("agreement", 0)))
    except StropError:
        return 0, 0


def _order(name: str) -> int:
    return zlib.crc32(name.encode())  # an order that has nothing to do with what a name says


def _some(done: Iterable[Execution], wave: int) -> list[Execution]:
    """The updated devices to look at: of the wave at work first."""
    return sorted(done, key=lambda e: (e.wave != wave, _order(e.device)))[:MOST_DEVICES]


def _with_windows(reader: _Reader, work: AtWork, group: _Place, seen: _Seen) -> _Seen:
    """Add the drift windows that came since the last look: before by the old bundle, after by the one it then runs."""
    settled, bundle = group.since + work.limits.settle_s, work.rollout.bundle
    statement = "SELECT id, time, bundle, level, verdict FROM windows WHERE device = ? AND id > ? ORDER BY id"
    for row in reader.db.execute(statement, (group.device, seen.last_window)).fetchall():
        seen = replace(seen, last_window=int(row["id"]))
        window = _window(row["level"], row["verdict"]) if row["bundle"] in reader.bundles else None
        if window is None or row["time"] < reader.since:
            continue
        is_new = row["bundle"] == bundle
        if row["time"] >= settled and is_new == group.is_treated:
            seen = replace(seen, after=seen.after.judged(window))
        elif row["time"] < group.since and not is_new:
            seen = replace(seen, before=seen.before.judged(window))
    return seen


def _window(level: str, verdict: bytes) -> Judged | None:
    """Return a judged window, None for one that was too small or is not understood."""
    if level == Level.INSUFFICIENT.value:
        return None
    try:
        told = json.loads(bytes(verdict))
        z = min(max(normal_quantile(as_float(told["p_family"])), _Z_RANGE[0]), _Z_RANGE[1])
        accuracy = as_float(told["estimated_accuracy"]) if told.get("valid") and "estimated_accuracy" in told else None
    except (StropError, ValueError, KeyError, TypeError):
        return None
    return Judged(z, level in (Level.WARN.value, Level.ALARM.value), accuracy)


def _controls(work: AtWork, ended: frozenset[str]) -> list[str]:
    """Devices that run another bundle of the model, and are not at the end of their part in this rollout."""
    bundle = work.rollout.bundle
    free = [device for device, runs in work.running.items() if runs not in ("", bundle) and device not in ended]
    return sorted(free, key=_order)[:MOST_DEVICES]


def _bundles(db: Connection, model: str) -> frozenset[str]:
    return frozenset(row["bundle"] for row in db.execute("SELECT bundle FROM models WHERE model = ?", (model,)))


def _first_row(db: Connection, since: float) -> int:
    """Return the number of the first row that was received after a time: numbers grow with time, so by halves."""
    ends = db.execute("SELECT MIN(id) AS low, MAX(id) AS high FROM telemetry").fetchone()
    if ends is None or ends["low"] is None:
        return 0
    low, high = int(ends["low"]), int(ends["high"]) + 1
    while low < high:
        middle = (low + high) // 2
        row = db.execute("SELECT received FROM telemetry WHERE id >= ? ORDER BY id LIMIT 1", (middle,)).fetchone()
        if row is not None and row["received"] < since:
            low = middle + 1
        else:
            high = middle
    return low


def _rows(db: Connection, device: str, after: int) -> list[tuple[int, str, float, dict[str, Any]]]:
    """Return a device's new metric rows and events in the order of arrival."""
    statement = "SELECT id, received, body FROM telemetry WHERE device = ? AND class = ? AND id > ? ORDER BY id"
    found = [
        (int(row["id"]), cls, float(row["received"]), json.loads(bytes(row["body"])))
        for cls in ("metric", "event")
        for row in db.execute(statement, (device, cls, after))
    ]
    return sorted(found, key=lambda row: row[0])


def _row(body: dict[str, Any]) -> Row | None:
    """Return a metric row, None for one that is not understood."""

    def number(key: str) -> float:
        return as_float(body.get(key, 0))

    try:
        inferences, errors = int(number("n")), int(number("errors"))
        return Row(number("seconds"), inferences, errors, number("p50_us"), number("p95_us"))
    except (StropError, TypeError, ValueError):
        return None


def _keep(db: Connection, number: int, wave: int, now: float, verdict: WaveVerdict) -> None:
    stored = canonical.dumps(verdict.to_json())
    db.execute(
        "INSERT INTO wave_verdicts (number, wave, time, decision, document) VALUES (?,?,?,?,?) "
        "ON CONFLICT (number, wave, time) DO UPDATE SET decision = excluded.decision, document = excluded.document",
        (number, wave, now, verdict.decision, stored),
    )
    oldest = db.execute(
        "SELECT time FROM wave_verdicts WHERE number = ? AND wave = ? ORDER BY time DESC LIMIT 1 OFFSET ?",
        (number, wave, KEPT_LOOKS),
    ).fetchone()
    if oldest is not None:
        db.execute(
            "DELETE FROM wave_verdicts WHERE number = ? AND wave = ? AND time <= ?", (number, wave, oldest["time"])
        )


def history(db: Connection, number: int, wave: int | None = None) -> Sequence[dict[str, Any]]:
    """Return the verdicts of a rollout as ``{"wave", "time", "decision", "words", "evidence"}``, oldest first."""
    statement = "SELECT wave, time, document FROM wave_verdicts WHERE number = ? ORDER BY time"
    return [
        {"wave": row["wave"], "time": row["time"], **json.loads(bytes(row["document"]))}
        for row in db.execute(statement, (number,))
        if wave is None or row["wave"] == wave
    ]
