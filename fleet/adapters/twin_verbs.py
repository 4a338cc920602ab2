# SPDX-License-Identifier: Apache-2.0
"""What is asked about settings: of one device, of all that fit a query, of a group; and where each comes from."""

import json
from collections.abc import Collection, Iterable
from typing import Any, Final

from edge_contract import canonical
from edge_contract.messages import DesiredState
from fleet.adapters import fleet_query, labels
from fleet.adapters.database import Connection, upsert
from fleet.adapters.desk import Desk, known_device
from fleet.adapters.orders import Message
from fleet.core.facts import Known
from fleet.core.groups import Group
from fleet.core.query import Query, parse
from fleet.core.query_nodes import Is
from fleet.core.twin import Setting, change, check_settings, compare, effective, layers_of

__all__ = ["TwinVerbs", "own_settings"]

_FEW: Final = 100


class TwinVerbs:
    """Verbs on settings; each is one transaction with its audit entry, and its messages leave after the commit."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def set_config(self, device: str, changes: Any, actor: str) -> DesiredState:
        """Merge settings into a device's own; None takes one away, and that of a group counts again.

        Raises:
            UsageError: The device is not enrolled, or the changes are no object of settings.
        """
        changes = check_settings(changes, f"device {device}")

        def job(db: Connection) -> tuple[DesiredState, list[Message]]:
            known_device(db, device)
            messages = self._change(db, [device], changes)
            if messages:
                self._desk.audit(db, actor, "device.config", device, {"changes": changes})
            return known_device(db, device).desired, messages

        return self._desk.do(job)

    def set_where(self, query: str, changes: Any, actor: str) -> list[str]:
        """Merge settings into those of every device that fits a query now; return the devices' names.

        Raises:
            UsageError: The query or the changes cannot be read.
        """
        asked, changes, now = parse(query), check_settings(changes, "settings"), self._desk.clock()

        def job(db: Connection) -> tuple[list[str], list[Message]]:
            names = fleet_query.matching(db, asked, now)
            messages = self._change(db, names, changes)
            detail = {"where": str(asked), "changes": changes, "devices": len(names), "changed": len(messages)}
            self._desk.audit(db, actor, "device.config", "query", detail)
            return names, messages

        return self._desk.do(job)

    def _change(self, db: Connection, names: Iterable[str], changes: dict[str, Any]) -> list[Message]:
        names = list(names)
        own = _all_own(db, names)
        for known in fleet_query.load(db, None, self._desk.clock(), only=names) if names else ():
            name = known.record.device
            _put_own(db, name, change(own.get(name, known.record.desired.config), changes))
        return self.settle(db, names)

    def settle(self, db: Connection, names: Iterable[str] | None = None) -> list[Message]:
        """Bring desired states up to the layers, of some devices or of all; inside a transaction."""
        given = [group for group in labels.groups(db) if group.config]
        chosen = None if names is None else frozenset(names)
        own, messages = _all_own(db, chosen), list[Message]()
        for known in self._joined(db, given, self._desk.clock(), chosen):
            messages += self._settle_one(db, known, given, own.get(known.record.device))
        return messages

    def _joined(self, db: Connection, given: list[Group], now: float, only: frozenset[str] | None) -> list[Known]:
        named = Query(Is("group", tuple(group.name for group in given))) if given else None  # no other is asked
        if only is not None and not only:
            return []
        return list(fleet_query.load(db, named, now, only=sorted(only or ())))

    def _settle_one(
        self, db: Connection, known: Known, given: list[Group], own: dict[str, Any] | None
    ) -> list[Message]:
        """``own`` is None for a device of before there were layers: what it is to have is its own."""
        name, before = known.record.device, known.record.desired.config
        after = effective(layers_of(given, known.groups, before if own is None else own))
        if after == before:
            return []
        if own is None:
            _put_own(db, name, dict(before))
        changes = {**dict.fromkeys(before), **after}
        return self._desk.book.desire(db, name, config=changes)

    def settle_all(self) -> int:
        """Let devices that joined or left a group have its settings; return how many changed.

        Who that is is found out beside the writer, which has telemetry to store.
        """
        names = self._desk.store.read(self._unsettled)

        def job(db: Connection) -> tuple[int, list[Message]]:
            messages = self.settle(db, names)
            return len(messages), messages

        return self._desk.do(job) if names else 0

    def _unsettled(self, db: Connection) -> list[str]:
        given = [group for group in labels.groups(db) if group.config]
        if not given:
            return []
        own = _all_own(db, None)
        found = []
        for known in self._joined(db, given, self._desk.clock(), None):
            name, before = known.record.device, known.record.desired.config
            if effective(layers_of(given, known.groups, own.get(name, before))) != before:
                found.append(name)
        return found

    def explain(self, device: str) -> dict[str, Any]:
        """Return a device's settings: wanted and reported, which layer wins, and what was rejected and why.

        Raises:
            UsageError: It is not enrolled.
        """

        def read(db: Connection) -> dict[str, Any]:
            record = known_device(db, device)
            settings, groups = self._settings(db, device)
            return {
                "device": device,
                "desired_version": record.desired.version,
                "reported_version": record.reported.desired_version if record.reported else 0,
                "groups": groups,
                "settings": [one.to_json() for one in settings],
            }

        return self._desk.store.read(read)

    def _settings(self, db: Connection, device: str) -> tuple[list[Setting], list[str]]:
        given = labels.groups(db)
        known = next(fleet_query.load(db, None, self._desk.clock(), ("group",), only=device))
        layers = layers_of(given, known.groups, own_settings(db, device))
        settings = compare(layers, known.record.reported, known.record.desired.version)
        return settings, list(known.groups)


def _all_own(db: Connection, names: Collection[str] | None) -> dict[str, dict[str, Any]]:
    """Return device → the settings that were written for it alone, of some devices or of all."""
    if names is not None and len(names) <= _FEW:
        rows = [db.execute("SELECT * FROM device_config WHERE device = ?", (name,)).fetchone() for name in names]
    else:
        rows = db.execute("SELECT * FROM device_config").fetchall()
    return {row["device"]: json.loads(row["document"]) for row in rows if row}


def own_settings(db: Connection, device: str) -> dict[str, Any]:
    """Return the settings that a device has of its own, without those of its groups."""
    row = db.execute("SELECT document FROM device_config WHERE device = ?", (device,)).fetchone()
    if row is not None:
        return dict(json.loads(row["document"]))
    return dict(known_device(db, device).desired.config)  # of before there were layers


def _put_own(db: Connection, device: str, config: dict[str, Any]) -> None:
    db.execute(upsert("device_config", "device", "document"), (device, canonical.dumps(config)))
