# SPDX-License-Identifier: Apache-2.0
"""Quarantined and decommissioned devices in the database's tables: who gets no orders, and why."""

from fleet.adapters.database import Connection, upsert
from fleet.core.device_states import QUARANTINED, Standing

__all__ = ["all_standings", "blocked", "clear", "is_quarantined", "put", "quarantined", "standing"]


def blocked(db: Connection) -> frozenset[str]:
    """Return the names of the devices that get no orders: quarantined or decommissioned."""
    return frozenset(row["device"] for row in db.execute("SELECT device FROM device_states"))


def quarantined(db: Connection) -> frozenset[str]:
    """Return the names of the devices in quarantine."""
    rows = db.execute("SELECT device FROM device_states WHERE state = ?", (QUARANTINED,))
    return frozenset(row["device"] for row in rows)


def is_quarantined(db: Connection, device: str) -> bool:
    """True if a device is in quarantine; one look at a key."""
    row = db.execute("SELECT state FROM device_states WHERE device = ?", (device,)).fetchone()
    return row is not None and row["state"] == QUARANTINED


def standing(db: Connection, device: str) -> Standing | None:
    """Return why a device gets no orders, None if it does."""
    row = db.execute("SELECT * FROM device_states WHERE device = ?", (device,)).fetchone()
    return Standing(row["state"], row["since"], row["reason"], row["actor"]) if row else None


def all_standings(db: Connection) -> dict[str, Standing]:
    """Return device → why it gets no orders."""
    rows = db.execute("SELECT * FROM device_states ORDER BY device")
    return {row["device"]: Standing(row["state"], row["since"], row["reason"], row["actor"]) for row in rows}


def put(db: Connection, device: str, why: Standing) -> None:
    """Note that a device gets no orders."""
    statement = upsert("device_states", "device", "state", "since", "reason", "actor")
    db.execute(statement, (device, why.state, why.since, why.reason, why.actor))


def clear(db: Connection, device: str) -> None:
    """Let a device have orders again."""
    db.execute("DELETE FROM device_states WHERE device = ?", (device,))
