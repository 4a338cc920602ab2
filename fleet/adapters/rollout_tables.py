# SPDX-License-Identifier: Apache-2.0
"""What the rollout engine reads and marks: only executions that may move are loaded, the rest is counted.

An execution *moved* when a report changed it, when its device runs another bundle, or when a newer rollout took the
device; a mark says so until the engine has looked. The other thing that moves one is the clock (``due``).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from edge_contract import canonical
from edge_contract.states import RolloutState
from fleet.adapters.database import Connection, upsert
from fleet.core.execution import Execution
from fleet.core.rollout import UNDER_WAY, Rollout
from fleet.core.tally import NEVER, Tally, bucket_of, due_of

__all__ = [
    "Loaded",
    "adopt",
    "history",
    "loaded",
    "mark_device",
    "mark_older",
    "mark_open",
    "names_in_wave",
    "newest",
    "note_running",
    "numbers_to_move",
    "of_devices",
    "paced",
    "put",
    "running",
    "running_of",
    "tallies",
    "under_way",
    "with_orders",
]

MOST: Final = 300
"""Most executions that one step looks at: a step must not hold up what devices send."""

_COLUMNS: Final = (
    "number",
    "device",
    "model",
    "closed",
    "document",
    "past",
    "wave",
    "bucket",
    "issued",
    "due",
    "moved",
)


def _read(rows: Iterable[Any]) -> list[Execution]:
    return [Execution.from_json(json.loads(row["document"])) for row in rows]


def put(db: Connection, executions: Iterable[Execution], *, is_seen: bool) -> None:
    """Insert or replace executions. ``is_seen``: the engine has just looked at them."""

    def row(e: Execution) -> tuple[Any, ...]:
        # An order that waits for its device to be free is looked at again each time.
        moved = not is_seen or (e.is_open and not e.issued_at)
        facts = (int(e.past), e.wave, bucket_of(e), int(bool(e.issued_at)), due_of(e), int(moved))
        return (e.job_id, e.number, e.device, e.model, int(e.closed), canonical.dumps(e.to_json()), *facts)

    db.executemany(upsert("executions", "job_id", *_COLUMNS), [row(e) for e in executions])


def adopt(db: Connection) -> None:
    """Fill the columns of executions that an earlier version stored."""
    while found := _read(db.execute("SELECT document FROM executions WHERE bucket = '' LIMIT ?", (MOST,)).fetchall()):
        put(db, [e for e in found if e.closed], is_seen=True)
        put(db, [e for e in found if not e.closed], is_seen=False)


def under_way(db: Connection) -> dict[int, RolloutState]:
    """Return number → state of the rollouts that the engine moves on."""
    states = sorted(state.value for state in UNDER_WAY)
    sql = f"SELECT number, state FROM rollouts WHERE state IN ({','.join('?' * len(states))})"
    return {row["number"]: RolloutState(row["state"]) for row in db.execute(sql, states)}


def numbers_to_move(db: Connection, now: float) -> set[int]:
    """Return the numbers of rollouts with an execution that may move now."""
    moved = "SELECT DISTINCT number FROM executions WHERE moved = 1 AND closed = 0 AND past = 0"
    due = "SELECT DISTINCT number FROM executions WHERE closed = 0 AND past = 0 AND due <= ?"
    rows = [*db.execute(moved).fetchall(), *db.execute(due, (now,)).fetchall()]
    return {row["number"] for row in rows}


@dataclass(frozen=True)
class Loaded:
    """What one step looks at.

    Attributes:
        executions: Those of a rollout that may move now, by device.
        rest: Wave → counts of the others. What moved and was not loaded counts as open: nobody has looked at it yet.
        moved: Job ids of the loaded ones that are marked.
    """

    executions: dict[str, Execution]
    rest: dict[int, Tally]
    moved: frozenset[str]


def loaded(db: Connection, rollout: Rollout, now: float) -> Loaded:
    """Return what one step over a rollout looks at."""
    limits, found = rollout.limits, dict[str, tuple[Execution, str]]()
    # A deadline further away than any order's: the clock went back.
    far = now + limits.timeout_s + limits.grace_s + 1.0
    asked: list[tuple[str, tuple[Any, ...]]] = [
        ("moved = 1 ORDER BY issued DESC", ()),
        ("due <= ?", (now,)),
        ("due > ? AND due < ? AND bucket = 'open'", (far, NEVER)),
    ]
    # A later wave's order takes the place of a trial's.
    asked += [("wave = ?", (i,)) for i, wave in enumerate(rollout.waves[:-1]) if wave.kind == "shadow"]
    for where, values in asked:
        sql = f"SELECT document, bucket, moved FROM executions WHERE number = ? AND past = 0 AND {where} LIMIT ?"
        for row in db.execute(sql, (rollout.number, *values, MOST)).fetchall():
            (execution,) = _read([row])
            found[execution.device] = execution, "open" if row["moved"] else row["bucket"]
    executions = {device: execution for device, (execution, _) in found.items()}
    moved = frozenset(e.job_id for e, bucket in found.values() if bucket == "open")
    return Loaded(executions, _rest(db, rollout.number, found.values()), moved)


def tallies(db: Connection, number: int) -> dict[int, Tally]:
    """Return wave → counts of a rollout's executions; one that the engine has not looked at counts as open."""
    return _rest(db, number, ())


def _rest(db: Connection, number: int, without: Iterable[tuple[Execution, str]]) -> dict[int, Tally]:
    sql = (
        "SELECT wave, bucket, moved, COUNT(*) AS n FROM executions WHERE number = ? AND past = 0"
        " GROUP BY wave, bucket, moved"
    )
    buckets: dict[int, dict[str, int]] = {}
    for row in db.execute(sql, (number,)):
        of_wave, bucket = buckets.setdefault(row["wave"], {}), "open" if row["moved"] else row["bucket"]
        of_wave[bucket] = of_wave.get(bucket, 0) + row["n"]
    for execution, bucket in without:
        buckets[execution.wave][bucket] -= 1
    return {wave: Tally(**found) for wave, found in buckets.items()}


def history(db: Connection, number: int) -> list[Execution]:
    """Return the executions that no longer count: earlier attempts, and trials of devices that were updated later."""
    return _read(db.execute("SELECT document FROM executions WHERE number = ? AND past = 1 ORDER BY job_id", (number,)))


def of_devices(db: Connection, number: int, devices: Iterable[str]) -> list[Execution]:
    """Return the executions of some devices in a rollout."""
    sql = "SELECT document FROM executions WHERE number = ? AND past = 0 AND device = ?"
    return [e for device in devices for e in _read(db.execute(sql, (number, device)).fetchall())]


def names_in_wave(db: Connection, number: int, wave: int) -> frozenset[str]:
    """Return the devices that have an execution in a wave."""
    sql = "SELECT device FROM executions WHERE number = ? AND past = 0 AND wave = ?"
    return frozenset(row[0] for row in db.execute(sql, (number, wave)).fetchall())


def mark_open(db: Connection, number: int) -> None:
    """Let the engine look at everything of a rollout that has not ended."""
    sql = "UPDATE executions SET moved = 1 WHERE number = ? AND past = 0 AND bucket IN ('open', 'retry')"
    db.execute(sql, (number,))


def mark_device(db: Connection, device: str) -> None:
    """Let the engine look at the orders that a device holds: it may have to leave them."""
    db.execute("UPDATE executions SET moved = 1 WHERE device = ? AND closed = 0 AND past = 0", (device,))


def mark_older(db: Connection, rollout: Rollout, devices: Iterable[str]) -> None:
    """Let the engine look at older rollouts' executions on devices that this rollout has taken."""
    sql = "UPDATE executions SET moved = 1 WHERE device = ? AND model = ? AND number < ? AND past = 0"
    db.executemany(sql, [(device, rollout.model, rollout.number) for device in devices])


def note_running(db: Connection, device: str, bundles: Mapping[str, str]) -> None:
    """Keep what a device runs, model by model, and mark executions where that changed."""
    known = {r["model"]: r["bundle"] for r in db.execute("SELECT * FROM running WHERE device = ?", (device,))}
    for model in sorted({*known, *bundles}):
        bundle = bundles.get(model, "")
        if known.get(model) != bundle:
            db.execute(upsert("running", "device, model", "bundle"), (device, model, bundle))
            mark = "UPDATE executions SET moved = 1 WHERE device = ? AND model = ? AND past = 0"
            db.execute(mark, (device, model))


def running(db: Connection, model: str) -> dict[str, str]:
    """Return device → bundle of a model that it runs, "" = unknown."""
    rows = db.execute("SELECT device, bundle FROM running WHERE model = ?", (model,))
    return {row["device"]: row["bundle"] for row in rows}


def running_of(db: Connection, model: str, device: str) -> str | None:
    """Return the bundle of a model that a device runs."""
    sql = "SELECT bundle FROM running WHERE device = ? AND model = ?"
    row = db.execute(sql, (device, model)).fetchone()
    return row["bundle"] if row else None


# An order that ended before it was sent took nobody's device.
_TOOK: Final = "(issued = 1 OR bucket <> 'excused')"


def newest(db: Connection, model: str, device: str = "") -> dict[str, int]:
    """Return device → highest number of a rollout that took it for this model; of one device or all."""
    only, values = ("AND device = ?", (model, device)) if device else ("", (model,))
    sql = f"SELECT device, MAX(number) AS top FROM executions WHERE model = ? {only} AND {_TOOK} GROUP BY device"
    return {row["device"]: row["top"] for row in db.execute(sql, values)}


def with_orders(db: Connection, model: str, *, other: bool, device: str = "") -> frozenset[str]:
    """Return the devices that hold an open order for a model, or for any other one; of one device or all."""
    only, values = ("AND device = ?", (model, device)) if device else ("", (model,))
    sql = (
        f"SELECT DISTINCT device FROM executions WHERE model {'<>' if other else '='} ? {only}"
        " AND closed = 0 AND bucket = 'open' AND issued = 1 AND past = 0"
    )
    return frozenset(row["device"] for row in db.execute(sql, values))


def paced(db: Connection, number: int) -> float:
    """Return the slot in time of a rollout's latest order."""
    sql = "SELECT document FROM executions WHERE number = ? ORDER BY job_id DESC LIMIT 1"
    found = _read(db.execute(sql, (number,)).fetchall())
    return found[0].paced if found else 0.0
