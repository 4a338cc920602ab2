# SPDX-License-Identifier: Apache-2.0
"""A search over the roster: a query, or a part of a name; sorted, and one page of it."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from edge_contract.errors import UsageError
from fleet.adapters import fleet_query, labels
from fleet.adapters.roster import Line
from fleet.adapters.store import Store
from fleet.core.device_states import QUARANTINED
from fleet.core.facts import FIELDS
from fleet.core.query import Query, parse

__all__ = ["PAGE", "SORTS", "Found", "search"]

PAGE: Final = 50

_LEVELS: Final = {"ALARM": 0, "WARN": 1, "OK": 2, "": 3}
_DAY_S: Final = 86_400.0
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")

SORTS: Final[Mapping[str, Callable[[Line, float], Any]]] = {
    "device": lambda line, now: line.device,
    "seen": lambda line, now: -line.last_seen,
    "online": lambda line, now: line.is_online(now),
    "runtime": lambda line, now: (line.runtime, line.runtime_version),
    "board": lambda line, now: line.boards,
    "model": lambda line, now: tuple((one.model, one.version) for one in line.slots),
    "sync": lambda line, now: line.in_sync,
    "inferences": lambda line, now: -line.inferences,
    "drift": lambda line, now: (_LEVELS.get(line.level, 3), -(line.loss or 0.0)),
}
"""Column → its key; what needs an operator first stands first."""

_FACTS: Final[Mapping[str, Callable[[Line, float], Any]]] = {
    "agent": lambda line, now: line.agent,
    "board": lambda line, now: line.boards,
    "device": lambda line, now: line.device,
    "drift": lambda line, now: (line.level, line.loss) if line.level else None,
    "enrolled": lambda line, now: max(0.0, now - line.enrolled_at) / _DAY_S if line.enrolled_at else None,
    "errors": lambda line, now: line.errors,
    "in_sync": lambda line, now: line.in_sync,
    "last_seen": lambda line, now: max(0.0, now - line.last_seen) / _DAY_S if line.last_seen else None,
    "machine": lambda line, now: line.machine,
    "model": lambda line, now: tuple(one.model for one in line.slots),
    "online": lambda line, now: line.is_online(now),
    "quarantined": lambda line, now: line.held == QUARANTINED,
    "runtime": lambda line, now: line.runtime,
    "runtime_version": lambda line, now: line.runtime_version,
}


@dataclass(frozen=True)
class Found:
    """One page of a search.

    Attributes:
        lines: Of this page.
        total: Over all pages.
        page, pages: Counted from 1.
        fault: Why the query could not be read; empty if it could. Then nothing is found.
    """

    lines: list[Line]
    total: int
    page: int
    pages: int
    fault: str = ""


@dataclass(frozen=True)
class _Facts(Mapping[str, Any]):
    """A line as a query asks for it; as ``fleet.core.facts.Known``, for what a line holds."""

    line: Line
    now: float
    labels: Mapping[str, str]

    def __getitem__(self, name: str) -> Any:
        known = _FACTS.get(name)
        if known is not None:
            return known(self.line, self.now)
        if name == "tag":
            return tuple(label for label, value in self.labels.items() if not value)
        if name.startswith("model:"):
            wanted = name.removeprefix("model:")
            return next(((one.version, one.running) for one in self.line.slots if one.model == wanted), None)
        return self.labels.get(name) or None

    def __iter__(self) -> Iterator[str]:
        return iter([*_FACTS, *self.labels])

    def __len__(self) -> int:
        return len(_FACTS) + len(self.labels)


def _is_held(field: str) -> bool:
    """True if a line answers for a fact: it has it, or it is a label."""
    name = field.partition(":")[0]
    return name in _FACTS or name == "tag" or name not in FIELDS


def search(store: Store, lines: list[Line], text: str, now: float, *, sort: str = "device", page: int = 1) -> Found:
    """Return one page of the devices that fit, in an order; a minus before the order turns it round.

    A single word that is no query is looked for in the names.
    """
    try:
        chosen = _chosen(store, lines, text.strip(), now)
    except UsageError as error:
        return Found([], 0, 1, 1, str(error))
    key = SORTS.get(sort.removeprefix("-"), SORTS["device"])
    if sort != "device":  # the roster's own order
        chosen = sorted(chosen, key=lambda line: key(line, now), reverse=sort.startswith("-"))
    pages = max(1, -(-len(chosen) // PAGE))
    at = min(max(1, page), pages)
    return Found(chosen[(at - 1) * PAGE : at * PAGE], len(chosen), at, pages)


def _chosen(store: Store, lines: list[Line], text: str, now: float) -> list[Line]:
    if not text:
        return lines
    try:
        asked = parse(text)
    except UsageError:
        if not _NAME.fullmatch(text):
            raise
        part = text.lower()
        return [line for line in lines if part in line.device.lower()]
    if all(map(_is_held, asked.fields)):
        return _among(store, lines, asked, now)
    names = frozenset(store.read(lambda db: fleet_query.matching(db, asked, now)))
    return [line for line in lines if line.device in names]


def _among(store: Store, lines: list[Line], asked: Query, now: float) -> list[Line]:
    has_labels = any(field.partition(":")[0] not in _FACTS for field in asked.fields)
    of = store.read(labels.all_labels) if has_labels else {}
    nothing: dict[str, str] = {}
    return [line for line in lines if asked.matches(_Facts(line, now, of.get(line.device, nothing)))]
