# SPDX-License-Identifier: Apache-2.0
"""How long a query takes over a large fleet, and a page of ``GET /api/v1/devices``.

Run: ``python -m benchmarks.fleet.queries --devices 10000``. Beside the time on the wall stands the processor's time,
which other programs on the machine do not change.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.fleet.filled import fill
from benchmarks.fleet.header import header
from edge_contract import canonical
from fleet.adapters import fleet_query, labels
from fleet.adapters.database import Connection
from fleet.adapters.sqlite import SqliteStore
from fleet.core.groups import Group
from fleet.core.query import Query, parse

__all__ = ["QUERIES", "main", "measured"]

QUERIES: Final = (
    "all",
    "site:a",
    "board:rpi5 and site in (a,b) and not tag:lab",
    "board:rpi5 and site in (a,b) and drift>0.2 and not tag:lab",
    "online and in_sync",
    "temperature>50",
    "model:vision:1.2.0 and last_seen<1h",
    "group:hot-lab",
)
_TIMES: Final = 7


def _prepared(folder: Path, devices: int, now: float) -> SqliteStore:
    store = SqliteStore(folder / "fleet.db")
    fill(store, devices, now)
    verdict = canonical.dumps({"reference_accuracy": 0.95, "estimated_accuracy": 0.6})

    def job(db: Connection) -> None:
        db.execute("UPDATE windows SET verdict = ? WHERE level = 'ALARM'", (verdict,))
        names = [row["device"] for row in db.execute("SELECT device FROM devices ORDER BY device").fetchall()]
        for i, name in enumerate(names):
            labels.change_labels(db, name, {"site": "abcdef"[i % 6], **({"lab": ""} if i % 7 == 0 else {})})
        labels.put_group(db, Group("hot", query="temperature>50"))
        labels.put_group(db, Group("hot-lab", query="group:hot and tag:lab"))

    store.write(job)
    return store


def _timed(store: SqliteStore, job: Callable[[Connection], Any]) -> tuple[float, float, int]:
    """Return milliseconds on the wall and of the processor, and the length of the result."""
    walls, processors, count = [], [], 0
    for _ in range(_TIMES):
        wall, processor = time.perf_counter(), time.thread_time()
        count = len(store.read(job))
        processors.append(time.thread_time() - processor)
        walls.append(time.perf_counter() - wall)
    return 1e3 * statistics.median(walls), 1e3 * statistics.median(processors), count


def _match(query: Query, now: float, db: Connection) -> list[str]:
    return fleet_query.matching(db, query, now)


def _page(text: str, sort: str, now: float, db: Connection) -> list[Any]:
    return fleet_query.page(db, parse(text) if text else None, now, sort=sort, limit=100).rows


def measured(devices: int) -> list[tuple[str, int, float, float]]:
    """Return (query, devices that fit, ms on the wall, ms of the processor), medians of seven."""
    now, found = time.time(), []
    with tempfile.TemporaryDirectory() as folder:
        store = _prepared(Path(folder), devices, now)
        try:
            for text in QUERIES:
                query = parse(text)
                wall, processor, count = _timed(store, partial(_match, query, now))
                found.append((text, count, wall, processor))
            for text, sort in (("", ""), ("site:a", ""), ("site:a", "-temperature")):
                wall, processor, count = _timed(store, partial(_page, text, sort, now))
                words = f"page of 100 of '{text or 'all'}', sorted by {sort or 'name'}"
                found.append((words, count, wall, processor))
        finally:
            store.close()
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=10_000)
    asked = parser.parse_args(words)
    print("\n".join(header("benchmarks.fleet.queries", words)))
    print(f"{asked.devices} devices, medians of {_TIMES}")
    print(f"{'query':62} {'fit':>6} {'wall':>9} {'processor':>10}")
    for text, count, wall, processor in measured(asked.devices):
        print(f"{text:62} {count:6} {wall:6.0f} ms {processor:7.0f} ms")


if __name__ == "__main__":
    main()
