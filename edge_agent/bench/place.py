# SPDX-License-Identifier: Apache-2.0
"""The folder ``bench`` of the data folder: the order in hand, what it needs, what it gave, and ids of the past.

::

    bench/seen.json             ids that were taken, each with its end: no order is carried out twice
    bench/<id>/order.json       the order, checked
    bench/<id>/state            where it stands: waiting, downloading, measuring, sending
    bench/<id>/files/           what is measured
    bench/<id>/out/             what the measurement wrote
    bench/<id>/outcome.json     the last word, once there is one
    bench/<id>/tmp/, error.log  temporary files and stderr of the measurement

An order is written before its id is noted, and its id before its folder goes: a power cut in between takes it up again
or refuses it, and never measures twice.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Final

from edge_contract import durable
from edge_contract.bench_job import BenchJob, BenchOutcome
from edge_contract.errors import BundleError, ContractError

__all__ = ["Place"]

_MOST_SEEN: Final = 1000
_STATES: Final = ("waiting", "downloading", "measuring", "sending")


class Place:
    """The folder of one device; only the control process writes to it.

    Args:
        data: The device's data folder.
    """

    def __init__(self, data: Path) -> None:
        self.root = data / "bench"

    def of(self, job_id: str) -> Path:
        """Return the folder of an order."""
        return self.root / job_id

    def current(self) -> BenchJob | None:
        """Return the order in hand; what cannot be read is deleted."""
        if not self.root.is_dir():
            return None
        for folder in sorted(path for path in self.root.iterdir() if path.is_dir()):
            try:
                return BenchJob.from_bytes((folder / "order.json").read_bytes())
            except (OSError, ContractError):
                shutil.rmtree(folder, ignore_errors=True)  # a power cut before the order was whole
        return None

    def seen(self) -> dict[str, float]:
        """Return id → end of the orders that were taken."""
        try:
            found = json.loads((self.root / "seen.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return {str(name): float(ends) for name, ends in found.items()} if isinstance(found, dict) else {}

    def take(self, job: BenchJob, now: float) -> None:
        """Write an order down; from now on it survives a power cut.

        Raises:
            BundleError: It was taken before, or too many were that have not ended yet.
            OSError: The disk refuses.
        """
        seen = {name: ends for name, ends in self.seen().items() if ends > now}
        where = f"benchmark {job.id}"
        if job.id in seen:
            raise BundleError("was carried out already", where=where, fix="start a new one")
        if len(seen) >= _MOST_SEEN:
            raise BundleError(f"{len(seen)} orders are remembered", where=where, fix="wait for their end")
        folder = self.of(job.id)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.set_state(job, "waiting")
        durable.write(folder / "order.json", job.to_bytes())
        self.note(job, seen)

    def note(self, job: BenchJob, seen: dict[str, float] | None = None) -> None:
        """Note that an id was taken."""
        known = self.seen() if seen is None else seen
        if known.get(job.id) != job.expires_at:
            durable.write(self.root / "seen.json", json.dumps({**known, job.id: job.expires_at}).encode())

    def state(self, job: BenchJob) -> str:
        """Return where an order stands."""
        try:
            found = (self.of(job.id) / "state").read_text()
        except OSError:
            return "waiting"
        return found if found in _STATES else "waiting"

    def set_state(self, job: BenchJob, state: str) -> None:
        """Write down where an order stands; raises OSError."""
        durable.write(self.of(job.id) / "state", state.encode())

    def fresh(self, job: BenchJob) -> Path:
        """Return the folder for what a measurement writes, empty, with one for its temporary files beside it."""
        for name in ("out", "tmp"):
            shutil.rmtree(self.of(job.id) / name, ignore_errors=True)
            (self.of(job.id) / name).mkdir()
        return self.of(job.id) / "out"

    def end(self, job: BenchJob, outcome: BenchOutcome) -> None:
        """Write the last word down; what only the measurement needed goes. Raises OSError."""
        folder = self.of(job.id)
        durable.write(folder / "outcome.json", outcome.to_bytes())
        self.set_state(job, "sending")
        for name in ("files", "tmp"):
            shutil.rmtree(folder / name, ignore_errors=True)
        if not outcome.ok:
            shutil.rmtree(folder / "out", ignore_errors=True)

    def outcome(self, job: BenchJob) -> bytes:
        """Return the last word as it was written; raises OSError."""
        return (self.of(job.id) / "outcome.json").read_bytes()

    def finish(self, job: BenchJob) -> None:
        """Forget an order whose last word has its receipt, or is wanted no more. Its id stays."""
        self.note(job)
        shutil.rmtree(self.of(job.id), ignore_errors=True)

    def forget(self) -> bool:
        """Delete everything that is left of orders; True if there was something. Ids stay."""
        left = [path for path in self.root.iterdir() if path.is_dir()] if self.root.is_dir() else []
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        return bool(left)

    def facts(self, job: BenchJob) -> dict[str, Any]:
        """Return what the scratch folder holds: bytes by part."""
        from edge_agent.adapters.guard import own_bytes

        return {"bytes": own_bytes(self.of(job.id))}
