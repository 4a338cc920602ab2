# SPDX-License-Identifier: Apache-2.0
"""How far rollouts are, by counts that the database makes: a page of ten thousand devices opens fifty executions."""

import json
from collections.abc import Mapping
from typing import Final

from fleet.adapters.database import Connection
from fleet.core.execution import Execution
from fleet.core.rollout import Rollout

__all__ = ["BUCKETS", "counts", "executions", "newest", "of_device"]

BUCKETS: Final = ("failed", "regressed", "retry", "open", "excused", "succeeded")
"""In the order in which an operator wants to see them."""


def newest(db: Connection, limit: int, offset: int = 0) -> list[Rollout]:
    """Return rollouts, newest first."""
    rows = db.execute("SELECT document FROM rollouts ORDER BY number DESC LIMIT ? OFFSET ?", (limit, offset))
    return [Rollout.from_json(json.loads(row["document"])) for row in rows.fetchall()]


def counts(db: Connection, number: int) -> Mapping[int, dict[str, int]]:
    """Return wave → bucket → how many executions lie in it."""
    found: dict[int, dict[str, int]] = {}
    statement = "SELECT wave, bucket, COUNT(*) AS n FROM executions WHERE number = ? AND past = 0 GROUP BY wave, bucket"
    for row in db.execute(statement, (number,)):
        found.setdefault(row["wave"], {})[row["bucket"]] = row["n"]
    return found


def executions(db: Connection, number: int, wave: int, bucket: str, *, limit: int, offset: int = 0) -> list[Execution]:
    """Return executions of a wave in a bucket, by device."""
    statement = (
        "SELECT document FROM executions WHERE number = ? AND past = 0 AND wave = ? AND bucket = ? "
        "ORDER BY device LIMIT ? OFFSET ?"
    )
    rows = db.execute(statement, (number, wave, bucket, limit, offset))
    return [Execution.from_json(json.loads(row["document"])) for row in rows.fetchall()]


def of_device(db: Connection, device: str, limit: int) -> list[Execution]:
    """Return a device's executions, newest first."""
    statement = "SELECT document FROM executions WHERE device = ? ORDER BY number DESC LIMIT ?"
    rows = db.execute(statement, (device, limit))
    return [Execution.from_json(json.loads(row["document"])) for row in rows.fetchall()]
