# SPDX-License-Identifier: Apache-2.0
"""Labels and groups of devices: what names they may have, and who is in a group. Pure.

A static group lists devices; a dynamic one is a saved query, asked anew each time. A query may name other groups, but
never itself by way of them.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edge_contract.errors import UsageError
from edge_contract.topics import is_name
from fleet.core.facts import FIELDS, RESERVED, Known
from fleet.core.query import Query, parse
from fleet.core.query_nodes import Is, Measure, Node, Not

__all__ = [
    "MAX_LABELS",
    "Group",
    "check_group_name",
    "check_labels",
    "in_order",
    "join_groups",
    "named_groups",
    "read_words",
    "unknown_label",
]

MAX_LABELS: Final = 64
_MAX_VALUE: Final = 200
_LABEL: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,62}\Z")


@dataclass(frozen=True)
class Group:
    """One group.

    Attributes:
        name: Letters, digits, '.', '_' and '-', as in a topic.
        query: Of a dynamic group; empty for a static one.
        members: Of a static group.
        priority: Of two groups that give a device the same setting, the higher number wins.
        config: Settings that its devices get, unless they have their own.
        created_at, created_by: When and by whom it was made.
    """

    name: str
    query: str = ""
    members: frozenset[str] = frozenset()
    priority: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)
    created_at: float = 0.0
    created_by: str = ""

    @property
    def is_dynamic(self) -> bool:
        """True if a query says who is in it."""
        return bool(self.query)


def read_words(words: Iterable[str]) -> dict[str, str]:
    """Return labels from words: ``site=a`` is a label with a value, ``lab`` is a tag.

    Raises:
        UsageError: As ``check_labels``.

    Example:
        >>> read_words(["site=a", "lab"])
        {'site': 'a', 'lab': ''}
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if equals and not value:
            raise UsageError(f"label '{name[:60]}' has no value", fix="write NAME=VALUE, or NAME for a tag")
        found[name] = value
    return check_labels(found)


def check_labels(labels: Any) -> dict[str, str]:
    """Return labels whose names and values may be given to a device.

    Raises:
        UsageError: A name that is none, or that a query reads as something else; a value that is no short line.

    Example:
        >>> check_labels({"online": "yes"})
        Traceback (most recent call last):
        edge_contract.errors.UsageError: label 'online' is a word of the query language; choose another name
    """
    if not isinstance(labels, Mapping) or len(labels) > MAX_LABELS:
        raise UsageError(f"expected an object of at most {MAX_LABELS} labels", where="labels")
    for name, value in labels.items():
        if not isinstance(name, str) or not _LABEL.match(name):
            what = f"{str(name)[:60]!r} is not the name of a label"
            raise UsageError(what, fix="begin with a letter; then letters, digits, '.', '_' and '-', at most 63")
        if name.lower() in RESERVED:
            raise UsageError(f"label '{name}' is a word of the query language", fix="choose another name")
        if not isinstance(value, str) or len(value) > _MAX_VALUE or not value.isprintable():
            raise UsageError(f"the value of label '{name}' is not one line of at most {_MAX_VALUE} letters")
    return dict(labels)


def named_groups(query: Query, known: Iterable[str]) -> frozenset[str]:
    """Return which of the known groups a query asks for; all of them where it uses a wildcard."""
    known = frozenset(known)
    if "group" not in query.fields:
        return frozenset()
    words = {value.lower() for value in _group_words(query.root)}
    if any("*" in word or "?" in word for word in words):
        return known
    return frozenset(name for name in known if name.lower() in words)


def _group_words(node: Node) -> Iterable[str]:
    match node:
        case Is("group", values):
            return values
        case Not(of):
            return _group_words(of)
        case Is() | Measure():
            return ()
        case _:
            return [word for one in getattr(node, "of", ()) for word in _group_words(one)]


def in_order(groups: Iterable[Group]) -> list[Group]:
    """Return groups so that each comes after those that its query names.

    Raises:
        UsageError: A group is in itself, by way of others; or a query cannot be read.

    Example:
        >>> [one.name for one in in_order([Group("a", query="group:b"), Group("b", query="online")])]
        ['b', 'a']
    """
    by_name = {group.name: group for group in groups}
    done: dict[str, Group] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            what = f"group '{path[0]}' is in itself: {' → '.join((*path[path.index(name) :], name))}"
            raise UsageError(what, fix="change one of the queries")
        if name in done:
            return
        group = by_name[name]
        if group.is_dynamic:
            for other in sorted(named_groups(parse(group.query), by_name)):
                visit(other, (*path, name))
        done[name] = group

    for name in sorted(by_name):
        visit(name, ())
    return list(done.values())


def join_groups(ordered: Iterable[tuple[Group, Query | None]], known: Known, joined: list[str]) -> None:
    """Append a device's groups to ``joined``, which is ``known.groups``, too; ``ordered`` is as of ``in_order``."""
    for group, query in ordered:
        if query.matches(known) if query is not None else known.record.device in group.members:
            joined.append(group.name)


def unknown_label(query: Query, known: Iterable[str]) -> str:
    """Return a hint where a query asks for a label that no device has, mostly a typing error; empty if there is none.

    Example:
        >>> unknown_label(parse("site:a and drfit>0.2"), ["site"])
        "no device has a label 'drfit'; do you mean 'drift'?"
    """
    names = frozenset(known)
    strange = [one for one in sorted(query.fields) if one.partition(":")[0] not in FIELDS and one not in names]
    if not strange:
        return ""
    near = difflib.get_close_matches(strange[0], sorted(names | FIELDS.keys()), 1)
    return f"no device has a label '{strange[0]}'" + (f"; do you mean '{near[0]}'?" if near else "")


def check_group_name(name: str) -> str:
    """Return the name of a new group; raises UsageError for one that is none."""
    if not is_name(name):
        raise UsageError(f"{name[:70]!r} is not a group name", fix="use letters, digits, '.', '_' and '-', at most 63")
    return name
