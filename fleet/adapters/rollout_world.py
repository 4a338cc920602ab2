# SPDX-License-Identifier: Apache-2.0
"""The rollout engine's view of the database: what may move is loaded, everything else is read when it is asked for."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from edge_contract.messages import SHADOW_TRIAL, SOFTWARE
from edge_contract.states import RolloutState
from fleet.adapters import device_states, rollout_tables, tables
from fleet.adapters.database import Connection
from fleet.adapters.evidence import AtWork, WaveJudge
from fleet.adapters.lazy import LazyMap, LazySet
from fleet.adapters.rollout_tables import Loaded
from fleet.core.gate_limits import GateLimits
from fleet.core.gates import WaveVerdict
from fleet.core.inventory import DeviceRecord
from fleet.core.rollout import LIVE, Rollout
from fleet.core.world import World

__all__ = ["absent", "offset_s", "read_world"]

_DAY_S = 86_400.0


def read_world(db: Connection, rollout: Rollout, now: float, judge: WaveJudge, loaded: Loaded) -> World:
    """Return what the engine sees of a rollout.

    Args:
        db: The writer's connection.
        rollout: As it is stored.
        loaded: Its executions that may move.
        now: Seconds since 1970.
        judge: Asked where the rollout has gates.
    """
    model, number = rollout.model, rollout.number
    running = LazyMap[str](
        lambda device: rollout_tables.running_of(db, model, device), lambda: rollout_tables.running(db, model)
    )
    return World(
        rollout,
        executions=loaded.executions,
        rest=loaded.rest,
        running=running,
        newest=LazyMap[int](
            lambda device: rollout_tables.newest(db, model, device).get(device),
            lambda: rollout_tables.newest(db, model),
        ),
        busy=_busy(db, model),
        last_job=tables.last_job(db),
        ordered=_Waves(db, number),
        absent=absent(db, rollout, now),
        blocked=device_states.blocked(db),
        taken=LazySet(
            lambda device: device in rollout_tables.with_orders(db, model, other=False, device=device),
            lambda: rollout_tables.with_orders(db, model, other=False),
        ),
        offsets=_facts(db, offset_s),
        can_shadow=LazySet(lambda device: _can_shadow(db, device), lambda: _who(db, _has_shadow)),
        paced=rollout_tables.paced(db, number) if rollout.limits.rate else 0.0,
        verdict=_verdict(db, rollout, running, now, judge),
        rollbacks=_rollbacks(db, rollout),
    )


class _Waves(Mapping[int, AbstractSet[str]]):
    """Wave → devices that have an execution in it."""

    def __init__(self, db: Connection, number: int) -> None:
        self._db, self._number, self._known = db, number, dict[int, frozenset[str]]()

    def __getitem__(self, wave: int) -> frozenset[str]:
        if wave not in self._known:
            self._known[wave] = rollout_tables.names_in_wave(self._db, self._number, wave)
        return self._known[wave]

    def __iter__(self) -> Any:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def _busy(db: Connection, model: str) -> LazySet:
    """Devices that hold an order for another model and cannot carry out two."""

    def one(device: str) -> bool:
        if not rollout_tables.with_orders(db, model, other=True, device=device):
            return False
        record = tables.device(db, device)
        return record is not None and not record.has_lanes

    def every() -> AbstractSet[str]:
        return {device for device in rollout_tables.with_orders(db, model, other=True) if one(device)}

    return LazySet(one, every)


def absent(db: Connection, rollout: Rollout, now: float) -> Mapping[str, str]:
    """Return device → why it gets no order; a device that is not enrolled any more has left."""
    blocked = device_states.all_standings(db)
    unable = _not_updating(db, rollout)
    after_s = rollout.limits.offline.after_s if rollout.limits.offline.policy == "skip" else 0.0

    def why(device: str, seen: float | None) -> str | None:
        if seen is None:
            return "the device left the fleet"
        if device in blocked:
            return f"the device is {blocked[device].state}"
        if device in unable:
            return "its agent cannot update itself"
        if after_s and now - seen > after_s:
            return f"skipped: not seen for {(now - seen) / _DAY_S:.1f} days" if seen else "skipped: never seen"
        return None

    def one(device: str) -> str | None:
        row = db.execute("SELECT last_seen FROM devices WHERE device = ?", (device,)).fetchone()
        return why(device, row["last_seen"] if row else None)

    def every() -> Mapping[str, str]:
        seen = {r["device"]: r["last_seen"] for r in db.execute("SELECT device, last_seen FROM devices")}
        return _Everybody(lambda device: why(device, seen.get(device)))

    return LazyMap(one, every)


def _not_updating(db: Connection, rollout: Rollout) -> AbstractSet[str]:
    if rollout.model != SOFTWARE:
        return frozenset()

    def one(device: str) -> bool:
        record = tables.device(db, device)
        return record is not None and not record.updates_itself

    return LazySet(one, lambda: _who(db, lambda record: not record.updates_itself))


class _Everybody(Mapping[str, str]):
    """Answers about any name; who is absent cannot be listed, since anybody may have left."""

    def __init__(self, why: Callable[[str], str | None]) -> None:
        self._why = why

    def __getitem__(self, device: str) -> str:
        found = self._why(device)
        if found is None:
            raise KeyError(device)
        return found

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


def offset_s(record: DeviceRecord) -> float:
    """Return how many seconds a device's clock is ahead of UTC, by its report; 0 where it does not say."""
    told = record.reported.unrecognized.get("utc_offset_s", 0) if record.reported else 0
    return float(told) if isinstance(told, int) and abs(told) <= _DAY_S else 0.0


def _facts(db: Connection, fact: Callable[[DeviceRecord], float]) -> LazyMap[float]:
    def one(device: str) -> float | None:
        record = tables.device(db, device)
        return fact(record) if record else None

    return LazyMap(one, lambda: {record.device: fact(record) for record in tables.devices(db)})


def _has_shadow(record: DeviceRecord) -> bool:
    return record.reported is not None and SHADOW_TRIAL in record.reported.features


def _can_shadow(db: Connection, device: str) -> bool:
    record = tables.device(db, device)
    return record is not None and _has_shadow(record)


def _who(db: Connection, fits: Callable[[DeviceRecord], bool]) -> set[str]:
    return {record.device for record in tables.devices(db) if fits(record)}


def _verdict(
    db: Connection, rollout: Rollout, running: Mapping[str, str], now: float, judge: WaveJudge
) -> WaveVerdict | None:
    if rollout.limits.gates is None or rollout.state not in LIVE:
        return None
    return judge(db, AtWork(rollout, GateLimits.from_json(rollout.limits.gates), None, running), now)


def _rollbacks(db: Connection, rollout: Rollout) -> dict[str, RolloutState]:
    found = {name: tables.rollout(db, name) for name in rollout.rollbacks or ()}
    return {name: one.state for name, one in found.items() if one is not None}
