# SPDX-License-Identifier: Apache-2.0
"""Labels and groups in the database's tables; each function takes a connection and does one statement or two."""

import json
from collections.abc import Mapping

from edge_contract import canonical
from fleet.adapters.database import Connection, upsert
from fleet.core.groups import Group

__all__ = [
    "add_members",
    "all_labels",
    "change_labels",
    "drop_group",
    "drop_members",
    "groups",
    "label_counts",
    "labels",
    "put_group",
]


def labels(db: Connection, device: str) -> dict[str, str]:
    """Return label → value of one device; a tag has none, ""."""
    rows = db.execute("SELECT name, value FROM device_labels WHERE device = ? ORDER BY name", (device,))
    return {row["name"]: row["value"] for row in rows}


def all_labels(db: Connection) -> dict[str, dict[str, str]]:
    """Return device → label → value."""
    found: dict[str, dict[str, str]] = {}
    for device, name, value in map(tuple, db.execute("SELECT device, name, value FROM device_labels ORDER BY name")):
        found.setdefault(device, {})[name] = value
    return found


def label_counts(db: Connection) -> dict[str, int]:
    """Return label → how many devices have it."""
    rows = db.execute("SELECT name, COUNT(*) AS n FROM device_labels GROUP BY name ORDER BY name")
    return {row["name"]: row["n"] for row in rows}


def change_labels(db: Connection, device: str, put: Mapping[str, str], drop: frozenset[str] = frozenset()) -> None:
    """Give a device labels, and take others from it."""
    db.executemany(upsert("device_labels", "device, name", "value"), ((device, n, v) for n, v in put.items()))
    db.executemany("DELETE FROM device_labels WHERE device = ? AND name = ?", ((device, name) for name in sorted(drop)))


def groups(db: Connection) -> list[Group]:
    """Return all groups by name."""
    members: dict[str, set[str]] = {}
    for name, device in map(tuple, db.execute("SELECT name, device FROM group_members")):
        members.setdefault(name, set()).add(device)
    return [
        Group(
            row["name"],
            row["query"],
            frozenset(members.get(row["name"], ())),
            row["priority"],
            json.loads(row["config"]),
            row["created_at"],
            row["created_by"],
        )
        for row in db.execute("SELECT * FROM device_groups ORDER BY name")
    ]


def put_group(db: Connection, group: Group) -> None:
    """Insert a group or replace all but its members."""
    kind = "dynamic" if group.is_dynamic else "static"
    values = (group.name, kind, group.query, group.priority, canonical.dumps(dict(group.config)))
    names = ("kind", "query", "priority", "config", "created_at", "created_by")
    db.execute(upsert("device_groups", "name", *names), (*values, group.created_at, group.created_by))


def add_members(db: Connection, name: str, devices: list[str]) -> None:
    """Put devices into a static group."""
    statement = "INSERT INTO group_members (name, device) VALUES (?,?) ON CONFLICT (name, device) DO NOTHING"
    db.executemany(statement, ((name, device) for device in devices))


def drop_members(db: Connection, name: str, devices: list[str]) -> None:
    """Take devices out of a static group."""
    statement = "DELETE FROM group_members WHERE name = ? AND device = ?"
    db.executemany(statement, ((name, device) for device in devices))


def drop_group(db: Connection, name: str) -> None:
    """Delete a group; its devices stay."""
    db.execute("DELETE FROM group_members WHERE name = ?", (name,))
    db.execute("DELETE FROM device_groups WHERE name = ?", (name,))
