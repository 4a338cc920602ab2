# SPDX-License-Identifier: Apache-2.0
"""What one step of the rollout engine costs the server's writer, over a rollout to many devices.

The database, the registry and the signatures are real; devices are records. Each figure is the median of several
steps, in milliseconds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.fleet.header import header
from edge_contract.jobs import JobStatus
from edge_contract.messages import JOB_PER_MODEL, DesiredState, ModelState, ReportedState
from edge_contract.states import Phase, Status
from fleet.adapters import rollout_tables, tables
from fleet.adapters.database import Connection
from fleet.adapters.job_signing import JobSigner
from fleet.adapters.orders import OrderBook
from fleet.adapters.sqlite import SqliteStore
from fleet.core.execution import hear_status
from fleet.core.inventory import DeviceRecord
from fleet.core.limits import NO_LIMIT, Limits
from fleet.core.rollout import new_rollout

__all__ = ["Stage", "main", "measure"]

OLD, NEW = "a" * 64, "b" * 64
REPORTS = 100


class Stage:
    """A database with devices that run one bundle, and an order book over it."""

    def __init__(self, folder: Path, devices: int) -> None:
        self.store = SqliteStore(folder / "fleet.db")
        self.book, self.now = OrderBook("default", JobSigner.create(folder / "job")), 1e9
        self.names = [f"d{i:06}" for i in range(devices)]
        self.store.write(self._enrol)
        limits = Limits(max_failures=NO_LIMIT, timeout_s=1e6)
        rollout = new_rollout(1, ("digits", "2", NEW), [self.names], limits, now=self.now)
        self.store.write(lambda db: tables.put_rollout(db, rollout))

    def _enrol(self, db: Connection) -> None:
        for name in self.names:
            tables.put_device(db, self._record(name, OLD))

    def _record(self, name: str, bundle: str) -> DeviceRecord:
        slots = {"digits": ModelState(bundle, bundle, "", "", "1")}
        said = ReportedState(name, "b", 0, slots, {}, {}, {"inferences": 5}, self.now, features=(JOB_PER_MODEL,))
        return DeviceRecord(name, self.now, last_seen=self.now, reported=said, desired=DesiredState(0, {}, {}))

    def step(self, seconds: float = 1.01) -> tuple[float, int]:
        """Return the milliseconds of one step in the writer's transaction, and how many messages it sends."""
        self.now += seconds

        def timed(db: Connection) -> tuple[float, int]:
            start = time.perf_counter()
            sent = len(self.book.tick(db, self.now))
            return 1e3 * (time.perf_counter() - start), sent

        return self.store.write(timed)

    def report(self, names: Iterable[str], status: Status, phase: Phase, seq: int) -> None:
        """Let devices report, and run the new bundle where they say that they succeeded."""

        def write(db: Connection) -> None:
            orders = {e.device: e for e in rollout_tables.of_devices(db, 1, names)}
            for name, order in orders.items():
                if status is Status.SUCCEEDED:
                    tables.put_device(db, self._record(name, NEW))
                said = JobStatus(order.job_id, name, status, phase, seq, "", {}, self.now)
                tables.put_executions(db, [hear_status(order, said, self.now)])

        self.store.write(write)


def _median(step: Callable[[], tuple[float, int]], times: int) -> float:
    return statistics.median(step()[0] for _ in range(times))


def measure(folder: Path, devices: int) -> dict[str, float]:
    """Return what steps cost, in milliseconds."""
    stage, ordering = Stage(folder, devices), list[float]()
    while (taken := stage.step())[1]:
        ordering.append(taken[0])
    found = {"ordering 250 devices": statistics.median(ordering), "steps to order all": float(len(ordering))}
    found["nothing moved, all at work"] = _median(stage.step, 20)
    said, done = [], []
    for i in range(5):
        names = stage.names[i * REPORTS : (i + 1) * REPORTS]
        stage.report(names, Status.IN_PROGRESS, Phase.DOWNLOADING, 1)
        said.append(stage.step()[0])
        stage.report(names, Status.SUCCEEDED, Phase.DONE, 2)
        done.append(stage.step()[0])
    found[f"{REPORTS} reports"] = statistics.median(said)
    found[f"{REPORTS} successes"] = statistics.median(done)
    found["nothing moved, some done"] = _median(stage.step, 20)
    found["the same within a second"] = _median(lambda: stage.step(seconds=0.001), 20)
    stage.store.close()
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--devices", type=int, default=10_000)
    devices = parser.parse_args().devices
    print("\n".join(header("benchmarks.fleet.rollout_steps")))
    print(f"{devices} devices; medians, ms")
    with tempfile.TemporaryDirectory() as folder:
        for name, value in measure(Path(folder), devices).items():
            print(f"{name:<32}{value:10.1f}")


if __name__ == "__main__":
    main()
