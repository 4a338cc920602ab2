# SPDX-License-Identifier: Apache-2.0
"""A fleet database of many devices, written by the tables' own functions: for measuring what reads it."""

import random
from itertools import pairwise
from typing import Final

from edge_contract.messages import DesiredState, ModelState, ReportedState
from edge_contract.states import Phase, Status
from fleet.adapters import rollout_tables, tables
from fleet.adapters.database import Connection
from fleet.adapters.store import Store
from fleet.core.execution import Execution
from fleet.core.inventory import DeviceRecord
from fleet.core.rollout import Limits, new_rollout

__all__ = ["fill", "fill_rollout"]

_BOARDS: Final = (
    {"model": "Raspberry Pi 5 Model B Rev 1.0", "machine": "aarch64", "cores": 4},
    {"model": "Raspberry Pi Zero 2 W Rev 1.0", "machine": "aarch64", "cores": 4},
    {"model": "Coral Dev Board", "machine": "aarch64", "cores": 4, "accelerators": ["edgetpu"]},
)
_BUNDLES: Final = tuple(f"{i:x}" * 64 for i in (1, 2, 3))
_CHUNK: Final = 2000


def _record(number: int, now: float, chance: random.Random) -> DeviceRecord:
    name, bundle = f"cam-{number:05d}", chance.choice(_BUNDLES)
    slots = ModelState(bundle, bundle, _BUNDLES[0], "", f"1.{_BUNDLES.index(bundle)}.0")
    config = {"heartbeat_s": 60, "source": f"camera:{number % 4}", "threshold": 0.5}
    health = {"inferences": number * 1000, "errors": 0, "rss_kb": 24_000, "uptime_s": 3600.0, "temperature_c": 51.5}
    outbox = {"rows": number % 7, "bytes": 1200, "dropped": {}}
    reported = ReportedState(name, "b", 3, {"vision": slots}, config, outbox, health, now)
    seen = now - chance.uniform(0, 60) if number % 20 else now - 90_000.0
    return DeviceRecord(
        name,
        now - 1e6,
        boot="b",
        session=1,
        born_at=now - 3600,
        last_seen=seen,
        agent_version="0.1.0",
        runtime=("litert", "onnxruntime")[number % 2],
        runtime_version="2.3.0",
        board=_BOARDS[number % len(_BOARDS)],
        reported=reported,
        desired=DesiredState(3, {"vision": bundle}, {"heartbeat_s": 60}),
    )


def fill(store: Store, count: int, now: float, *, windows: int = 2) -> None:
    """Write devices that differ in board, model, settings and how lately they were heard of; 3 % of them drift."""
    chance = random.Random(count)

    def part(numbers: range) -> None:
        def job(db: Connection) -> None:
            for number in numbers:
                record = _record(number, now, chance)
                tables.put_device(db, record)
                level = "ALARM" if number % 100 < 3 else "OK"
                for i in range(windows):
                    bundle = record.running["vision"]
                    values = (record.device, bundle, now - 600 * i, now - 600 * i, level, b"", b"{}")
                    names = "device, bundle, time, received, level, summary, verdict"
                    db.execute(f"INSERT INTO windows ({names}) VALUES (?,?,?,?,?,?,?)", values)

        store.write(job)

    for start in range(0, count, _CHUNK):
        part(range(start, min(start + _CHUNK, count)))


def fill_rollout(store: Store, count: int, now: float) -> None:
    """Write a rollout of five waves to the devices of ``fill``; the last wave is at work, 2 % of it have failed."""
    names = [f"cam-{number:05d}" for number in range(count)]
    cuts = [0, 1, count // 100, count // 10, count // 2, count]
    waves = [names[start:end] for start, end in pairwise(cuts)]
    limits = Limits(soak_s=600.0, max_failures=count)
    rollout = new_rollout(1, ("vision", "1.2.0", _BUNDLES[2]), waves, limits, now=now - 3600)

    def job(db: Connection) -> None:
        tables.put_rollout(db, rollout)
        every = (_execution(i, wave, now) for wave, of in enumerate(waves) for i in _numbers(of))
        rollout_tables.put(db, every, is_seen=True)

    store.write(job)


def _numbers(names: list[str]) -> list[int]:
    return [int(name.removeprefix("cam-")) for name in names]


def _execution(number: int, wave: int, now: float) -> Execution:
    is_last, is_bad = wave == 4, number % 50 == 0
    status = Status.FAILED if is_last and is_bad else Status.IN_PROGRESS if is_last and number % 3 else Status.SUCCEEDED
    phase = {Status.FAILED: Phase.ROLLED_BACK, Status.IN_PROGRESS: Phase.DOWNLOADING}.get(status, Phase.DONE)
    reason = "agreement 0.31 below 0.80" if status is Status.FAILED else ""
    return Execution(
        f"j{number:020d}", "r1", 1, wave, f"cam-{number:05d}", "vision", _BUNDLES[2], status, phase, now + 3600,
        reason=reason, issued_at=now - 600, updated_at=now - 60,
    )  # fmt: skip
