# SPDX-License-Identifier: Apache-2.0
"""Delete what is kept of a device, and prove it: how many rows of which table, and a digest of what they were.

Every table with a column ``device`` stands in one of two lists here; a test compares them with the schema, so that a
table that comes later cannot be forgotten.
"""

import hashlib
import json
from typing import Any, Final

from fleet.adapters.database import Connection

__all__ = ["ERASED", "KEPT", "RECORD", "erase"]

ERASED: Final = (
    "telemetry",
    "rollups",
    "marks",
    "results",
    "labels",
    "windows",
    "drift_states",
    "drift_hours",
    "quarantined_rows",
    "commands",
    "capture_samples",
    "bench_jobs",
    "bench_files",
)
"""What a device sent or was asked; deleted if the operator wishes."""

RECORD: Final = ("devices", "running", "orders", "device_labels", "group_members", "device_config", "identities")
"""What the server knows of the device itself; deleted whenever it leaves."""

KEPT: Final = ("certificates", "executions", "device_states")
"""Kept: revoked certificates for the revocation list, the history of rollouts, and that the device is gone."""


def erase(db: Connection, device: str) -> dict[str, Any]:
    """Delete all that a device has sent; return the proof: rows by table, and one digest over all of them."""
    rows: dict[str, int] = {}
    digest = hashlib.sha256()
    pieces = "SELECT p.* FROM command_pieces p JOIN commands c ON c.id = p.id WHERE c.device = ?"
    rows["command_pieces"] = _digest(db, pieces, device, digest)
    db.execute("DELETE FROM command_pieces WHERE id IN (SELECT id FROM commands WHERE device = ?)", (device,))
    for table in ERASED:
        rows[table] = _digest(db, f"SELECT * FROM {table} WHERE device = ?", device, digest)
        db.execute(f"DELETE FROM {table} WHERE device = ?", (device,))
    return {"rows": {table: count for table, count in rows.items() if count}, "sha256": digest.hexdigest()}


def _digest(db: Connection, statement: str, device: str, digest: Any) -> int:
    """Take rows into the digest, in an order of their own; return how many there were."""
    found = sorted(
        hashlib.sha256(json.dumps([_plain(value) for value in tuple(row)]).encode()).digest()
        for row in db.execute(statement, (device,))
    )
    for one in found:
        digest.update(one)
    return len(found)


def _plain(value: Any) -> Any:
    return bytes(value).hex() if isinstance(value, (bytes, memoryview)) else value
