# SPDX-License-Identifier: Apache-2.0
"""The books of a swarm: each row that any device made stands in the database once."""

import contextlib
import sqlite3
from dataclasses import dataclass

from benchmarks.fleet.stage import Stage
from benchmarks.fleet.swarm.device import SimDevice

__all__ = ["Books", "balance"]


@dataclass
class Books:
    """Rows made by devices against rows in the database."""

    made: int = 0
    stored: int = 0
    lost: int = 0
    doubled: int = 0


def balance(stage: Stage, devices: list[SimDevice]) -> Books:
    """Compare what devices made with what the database holds."""
    counted = _stored(stage)
    books = Books(made=sum(device.made for device in devices))
    for device in devices:
        rows, distinct = counted.get(device.name, (0, 0))
        books.stored += rows
        books.lost += max(device.made - distinct, 0)
        books.doubled += rows - distinct
    return books


def _stored(stage: Stage) -> dict[str, tuple[int, int]]:
    statement = "SELECT device, COUNT(*), COUNT(DISTINCT seq) FROM telemetry WHERE class = 'metric' GROUP BY device"
    if stage.database:
        import psycopg

        with psycopg.connect(stage.database) as postgres:
            return {row[0]: (row[1], row[2]) for row in postgres.execute(statement)}
    with contextlib.closing(sqlite3.connect(f"file:{stage.data / 'fleet.db'}?mode=ro", uri=True)) as db:
        return {row[0]: (row[1], row[2]) for row in db.execute(statement)}
