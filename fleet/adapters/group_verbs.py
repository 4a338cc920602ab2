# SPDX-License-Identifier: Apache-2.0
"""What is asked about labels and groups; each verb is one transaction with its audit entry."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from edge_contract.errors import UsageError
from fleet.adapters import fleet_query, labels
from fleet.adapters.database import Connection
from fleet.adapters.desk import Desk, known_device
from fleet.adapters.orders import Message
from fleet.adapters.twin_verbs import TwinVerbs
from fleet.core.groups import MAX_LABELS, Group, check_group_name, check_labels, in_order, named_groups
from fleet.core.query import parse
from fleet.core.twin import change, check_settings

__all__ = ["GroupVerbs", "group_json", "known_group"]

_LIST = "strop fleet group list"


class GroupVerbs:
    """Verbs on labels and groups. What changes who is in a group may change settings: ``twin`` settles them."""

    def __init__(self, desk: Desk, twin: TwinVerbs) -> None:
        self._desk, self._twin = desk, twin

    def label(self, devices: Iterable[str], put: Any, drop: Iterable[str], actor: str) -> int:
        """Give devices labels and take others from them; return how many devices there were.

        Raises:
            UsageError: A device that is not enrolled, a label that cannot be one, or too many of them.
        """
        names, put, gone = list(dict.fromkeys(devices)), check_labels(put), frozenset(map(str, drop))

        def job(db: Connection) -> tuple[int, list[Message]]:
            for name in names:
                known_device(db, name)
                if len({*labels.labels(db, name), *put} - gone) > MAX_LABELS:
                    raise UsageError(f"more than {MAX_LABELS} labels", where=f"device {name}")
                labels.change_labels(db, name, put, gone)
            return self._done(db, actor, names, put, gone)

        return self._desk.do(job)

    def label_where(self, query: str, put: Any, drop: Iterable[str], actor: str) -> int:
        """Do the same with every device that fits a query now."""
        asked, now = parse(query), self._desk.clock()
        found = self._desk.store.read(lambda db: fleet_query.matching(db, asked, now))
        return self.label(found, put, drop, actor)

    def _done(
        self, db: Connection, actor: str, names: list[str], put: Mapping[str, str], gone: frozenset[str]
    ) -> tuple[int, list[Message]]:
        detail = {"put": dict(put), "drop": sorted(gone), "devices": len(names), "names": names[:50]}
        self._desk.audit(db, actor, "device.label", names[0] if len(names) == 1 else "devices", detail)
        return len(names), self._settled(db, names)

    def _settled(self, db: Connection, names: Iterable[str] | None = None) -> list[Message]:
        has_any = any(group.config for group in labels.groups(db))
        return self._twin.settle(db, names) if has_any else []

    def new(self, name: str, query: str, members: Iterable[str], priority: int, actor: str) -> Group:
        """Make a group, or change who is in it; its settings stay.

        Raises:
            UsageError: No name, both a query and members, a query that cannot be read or leads back to the group,
                or a device that is not enrolled.
        """
        check_group_name(name)
        listed = frozenset(members)
        if query and listed:
            raise UsageError("a group has a query or a list of devices, not both", where=f"group {name}")
        text, now = str(parse(query)) if query else "", self._desk.clock()

        def job(db: Connection) -> tuple[Group, list[Message]]:
            for device in sorted(listed):
                known_device(db, device)
            known = {group.name: group for group in labels.groups(db)}
            before = known.get(name, Group(name, created_at=now, created_by=actor))
            group = replace(before, query=text, members=listed, priority=priority)
            in_order({**known, name: group}.values())  # no circle
            labels.drop_group(db, name)
            labels.put_group(db, group)
            labels.add_members(db, name, sorted(listed))
            detail = {"query": text, "members": len(listed), "priority": priority}
            self._desk.audit(db, actor, "group.put", name, detail)
            return group, self._settled(db)

        return self._desk.do(job)

    def change_members(self, name: str, add: Iterable[str], drop: Iterable[str], actor: str) -> Group:
        """Put devices into a static group and take others out.

        Raises:
            UsageError: No such group, a dynamic one, or a device that is not enrolled.
        """
        put, gone = sorted(set(add)), sorted(set(drop))

        def job(db: Connection) -> tuple[Group, list[Message]]:
            if known_group(db, name).is_dynamic:
                raise UsageError("its query says who is in it", where=f"group {name}", fix="change its query")
            for device in put:
                known_device(db, device)
            labels.add_members(db, name, put)
            labels.drop_members(db, name, gone)
            self._desk.audit(db, actor, "group.members", name, {"add": put[:50], "drop": gone[:50]})
            return known_group(db, name), self._settled(db, [*put, *gone])

        return self._desk.do(job)

    def set_config(self, name: str, changes: Any, actor: str) -> Group:
        """Change the settings that the devices of a group get.

        Raises:
            UsageError: No such group, or no settings.
        """
        changes = check_settings(changes, f"group {name}")

        def job(db: Connection) -> tuple[Group, list[Message]]:
            before = known_group(db, name)
            after = replace(before, config=change(before.config, changes))
            labels.put_group(db, after)
            self._desk.audit(db, actor, "group.config", name, {"changes": changes})
            return after, self._twin.settle(db)

        return self._desk.do(job)

    def delete(self, name: str, actor: str) -> None:
        """Delete a group; its devices stay, and lose the settings that it gave.

        Raises:
            UsageError: No such group, or another group's query names it.
        """

        def job(db: Connection) -> tuple[None, list[Message]]:
            known_group(db, name)
            users = _users(db, name)
            if users:
                raise UsageError(f"group '{users[0]}' names it", where=f"group {name}", fix="change that query first")
            labels.drop_group(db, name)
            self._desk.audit(db, actor, "group.delete", name, {})
            return None, self._twin.settle(db)

        self._desk.do(job)

    def shown(self) -> list[dict[str, Any]]:
        """Return every group with how many devices are in it now."""
        now = self._desk.clock()

        def read(db: Connection) -> list[dict[str, Any]]:
            found = labels.groups(db)
            counts = dict.fromkeys((group.name for group in found), 0)
            for known in fleet_query.load(db, None, now, ("group",)) if found else ():
                for name in known.groups:
                    counts[name] += 1
            return [{**group_json(group), "devices": counts[group.name]} for group in found]

        return self._desk.store.read(read)

    def show(self, name: str) -> dict[str, Any]:
        """Return one group with the names of its devices; raises UsageError for none such."""
        now = self._desk.clock()

        def read(db: Connection) -> dict[str, Any]:
            group = known_group(db, name)
            names = fleet_query.members(db, group, now)
            return {**group_json(group), "devices": len(names), "names": names}

        return self._desk.store.read(read)


def group_json(group: Group) -> dict[str, Any]:
    """Return a group as the API shows it, without its devices."""
    kind = "dynamic" if group.is_dynamic else "static"
    made = {"created_at": group.created_at, "created_by": group.created_by}
    return {
        "name": group.name,
        "kind": kind,
        "query": group.query,
        "priority": group.priority,
        "config": dict(group.config),
        **made,
    }


def known_group(db: Connection, name: str) -> Group:
    """Return a group; raises UsageError if nobody knows it."""
    found = [group for group in labels.groups(db) if group.name == name]
    if not found:
        raise UsageError(f"group '{name[:63]}' is not known", fix=_LIST)
    return found[0]


def _users(db: Connection, name: str) -> list[str]:
    """Return the groups whose query asks for a group."""
    found = labels.groups(db)
    return [g.name for g in found if g.is_dynamic and g.name != name and name in named_groups(parse(g.query), [name])]
