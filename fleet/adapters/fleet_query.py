# SPDX-License-Identifier: Apache-2.0
"""Which devices fit a query, out of ten thousand: a few statements for all of them, none for one.

What a query does not ask for is neither read nor decoded: a device's report is JSON that takes longer to open than all
conditions together.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from edge_contract.canonical import as_float
from edge_contract.errors import ContractError, UsageError
from edge_contract.findings import Level
from fleet.adapters import channels, device_states, labels
from fleet.adapters.database import Connection, Row
from fleet.adapters.lazy_record import COLUMNS, LazyRecord
from fleet.core.facts import FIELDS, Known
from fleet.core.groups import Group, in_order, join_groups, named_groups
from fleet.core.inventory import DeviceRecord
from fleet.core.paging import MAX_LIMIT, Page, page_of
from fleet.core.query import Query, parse

__all__ = ["load", "matching", "members", "page"]


_MAX_FIELD: Final = 100
_CHUNK: Final = 500


def matching(db: Connection, query: str | Query, now: float) -> list[str]:
    """Return the names of the devices that fit a query, sorted.

    Raises:
        UsageError: The query cannot be read.
    """
    asked = parse(query) if isinstance(query, str) else query
    return [known.record.device for known in load(db, asked, now) if asked.matches(known)]


def page(
    db: Connection, query: Query | None, now: float, *, sort: str = "", limit: int = MAX_LIMIT, cursor: str = ""
) -> Page[Known]:
    """Return a page of the devices that fit a query, with their groups.

    Args:
        db: A connection.
        query: None for all devices.
        now: Seconds since 1970.
        sort: A fact or a label, ``-`` before it for the highest first; empty sorts by name.
        limit: Most devices of the page.
        cursor: Of the page before.

    Raises:
        UsageError: Not a fact to sort by, or not a cursor.
    """
    field = sort.removeprefix("-") or "device"
    if len(field) > _MAX_FIELD:
        raise UsageError(f"'{field[:40]}…' is no fact to sort by", fix=f"use one of {', '.join(FIELDS)}, or a label")
    found = page_of(_keys(db, query, now, field), limit=limit, cursor=cursor, is_descending=sort.startswith("-"))
    known = {one.record.device: one for one in load(db, None, now, ("group", "tag"), only=found.rows)}
    return Page([known[name] for name in found.rows], found.total, found.cursor)


def _keys(db: Connection, query: Query | None, now: float, field: str) -> list[tuple[Any, str, str]]:
    """Return (value to sort by, name, name) of the devices that fit; without a query and by name nothing is opened."""
    if query is None and field == "device":
        return [(row["device"], row["device"], row["device"]) for row in db.execute("SELECT device FROM devices")]
    found = (known for known in load(db, query, now, (field,)) if query is None or query.matches(known))
    return [(known[field], known.record.device, known.record.device) for known in found]


def members(db: Connection, group: Group, now: float) -> list[str]:
    """Return the names of the devices in a group, sorted."""
    if group.is_dynamic:
        return matching(db, group.query, now)
    enrolled = {row["device"] for row in db.execute("SELECT device FROM devices")}
    return sorted(group.members & enrolled)


def load(
    db: Connection, query: Query | None, now: float, more: Iterable[str] = (), only: str | Sequence[str] = ()
) -> Iterator[Known]:
    """Give every device's facts by name, with what a query asks for; ``more`` are facts that are wanted beside.

    Args:
        db: A connection.
        query: Of which the facts are needed; None for none.
        now: Seconds since 1970.
        more: Further facts, such as ``group``.
        only: One device's name, or several; all devices without.
    """
    more = set(more)
    fields = more | (query.fields if query else frozenset())
    ordered = _groups(db, query, everything="group" in more)
    fields |= {name for _, one in ordered if one for name in one.fields}
    around = _Around(db, fields)
    for row in _rows(db, only):
        joined: list[str] = []
        known = around.of(LazyRecord(row), now, joined)
        join_groups(ordered, known, joined)
        yield known


def _rows(db: Connection, only: str | Sequence[str]) -> Iterator[Row]:
    if not only:
        yield from db.execute(f"SELECT {COLUMNS} FROM devices ORDER BY device").fetchall()
        return
    names = [only] if isinstance(only, str) else sorted(only)
    for at in range(0, len(names), _CHUNK):
        some = names[at : at + _CHUNK]
        marks = ",".join("?" * len(some))
        statement = f"SELECT {COLUMNS} FROM devices WHERE device IN ({marks}) ORDER BY device"
        yield from db.execute(statement, some).fetchall()


def _groups(db: Connection, query: Query | None, *, everything: bool) -> list[tuple[Group, Query | None]]:
    """Return the groups that must be known, in the order in which they can be."""
    if not everything and (query is None or "group" not in query.fields):
        return []
    found = labels.groups(db)
    ordered = [(group, parse(group.query) if group.is_dynamic else None) for group in in_order(found)]
    if everything or query is None:
        return ordered
    wanted = set(named_groups(query, [group.name for group in found]))
    for group, asked in reversed(ordered):
        if group.name in wanted and asked is not None:
            wanted |= named_groups(asked, [one.name for one in found])
    return [one for one in ordered if one[0].name in wanted]


class _Around:
    """What is known of devices beside their records, read once for all of them."""

    def __init__(self, db: Connection, fields: set[str]) -> None:
        has_labels = "tag" in fields or any(name.partition(":")[0] not in FIELDS for name in fields)
        self._labels = labels.all_labels(db) if has_labels else {}
        self._drift = _drift(db) if "drift" in fields else {}
        self._latency = _latency(db) if "latency_p95_ms" in fields else {}
        self._quarantined = device_states.quarantined(db) if "quarantined" in fields else frozenset[str]()
        self._cloned = _cloned(db) if "clone" in fields else frozenset[str]()
        self._channels = channels.standing(db) if "channel" in fields else {}

    def of(self, record: DeviceRecord, now: float, joined: list[str]) -> Known:
        """Return the facts of one device; its groups are still to be appended to ``joined``."""
        name = record.device
        return Known(
            record,
            now,
            tags=self._labels.get(name, _NO_LABELS),
            groups=joined,
            drift=self._drift.get(name),
            latency_p95_us=self._latency.get(name),
            quarantined=name in self._quarantined,
            cloned=name in self._cloned,
            channels=self._running_in(record) if self._channels else (),
        )

    def _running_in(self, record: DeviceRecord) -> tuple[str, ...]:
        pairs = ((self._channels.get(model, {}), bundle) for model, bundle in record.running.items())
        return tuple(channel for held, bundle in pairs for channel, (stands, _) in held.items() if stands == bundle)


_NO_LABELS: Final[Mapping[str, str]] = {}

# The newest row of each device is one look at an index; a GROUP BY would walk through all rows that are kept.
_NEWEST_WINDOW: Final = """SELECT d.device AS device, w.level AS level, w.verdict AS verdict FROM devices d
    JOIN windows w ON w.id = (SELECT x.id FROM windows x WHERE x.device = d.device AND x.level <> ?
                              ORDER BY x.id DESC LIMIT 1)"""
_NEWEST_METRIC: Final = """SELECT d.device AS device, t.body AS body FROM devices d
    JOIN telemetry t ON t.id = (SELECT x.id FROM telemetry x WHERE x.device = d.device AND x.class = 'metric'
                                ORDER BY x.id DESC LIMIT 1)"""


def _drift(db: Connection) -> dict[str, tuple[str, float | None]]:
    """Return device → level and estimated loss of accuracy, by its newest window that could be judged."""
    rows = db.execute(_NEWEST_WINDOW, (Level.INSUFFICIENT.value,))
    return {row["device"]: (row["level"], _loss(json.loads(row["verdict"]))) for row in rows}


def _loss(verdict: dict[str, Any]) -> float | None:
    there, here = _number(verdict.get("reference_accuracy")), _number(verdict.get("estimated_accuracy"))
    return None if there is None or here is None else there - here


def _latency(db: Connection) -> dict[str, float | None]:
    return {row["device"]: _number(json.loads(row["body"]).get("p95_us")) for row in db.execute(_NEWEST_METRIC)}


def _cloned(db: Connection) -> frozenset[str]:
    rows = db.execute("SELECT device, document FROM identities")
    return frozenset(r["device"] for r in rows if _number(json.loads(r["document"]).get("suspected_at")))


def _number(value: Any) -> float | None:
    try:
        return as_float(value)
    except ContractError:
        return None
