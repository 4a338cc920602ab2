# SPDX-License-Identifier: Apache-2.0
"""Pages of a long list: a cursor says after which row the next page begins, so rows may come and go between. Pure."""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from edge_contract.errors import UsageError

__all__ = ["MAX_LIMIT", "Page", "page_of"]

T = TypeVar("T")
MAX_LIMIT: Final = 1000

Key = tuple[int, float, str, str]
"""Kind of value (unknown ones last), number, text, name."""


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some rows of a list.

    Attributes:
        rows: The rows.
        total: How many there are in all.
        cursor: Where the next page begins; empty at the end.
    """

    rows: list[T]
    total: int
    cursor: str

    @property
    def headers(self) -> dict[str, str]:
        """What an answer's headers say, so that its body stays a list."""
        found = {"x-total-count": str(self.total)}
        return {**found, "x-next-cursor": self.cursor} if self.cursor else found


def page_of(
    rows: Iterable[tuple[Any, str, T]], *, limit: int, cursor: str = "", is_descending: bool = False
) -> Page[T]:
    """Return a page of rows by (value, name).

    Args:
        rows: (value to sort by or None, a name that no other row has, the row).
        limit: Most rows of the page.
        cursor: Of the page before.
        is_descending: Highest values first; those without one stay last, names stay ascending.

    Raises:
        UsageError: The cursor is none of ours, or the limit is not within 1 and 1000.

    Example:
        >>> rows = [(2.0, "a", "A"), (1.0, "b", "B"), (None, "c", "C")]
        >>> one = page_of(rows, limit=2)
        >>> one.rows, one.total, page_of(rows, limit=2, cursor=one.cursor).rows
        (['B', 'A'], 3, ['C'])
        >>> page_of(rows, limit=3, is_descending=True).rows
        ['A', 'B', 'C']
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise UsageError(f"limit = {limit} is not from 1 to {MAX_LIMIT}", where="page")
    sign = -1.0 if is_descending else 1.0
    keyed = [(_key(value, name, sign), row) for value, name, row in rows]
    if is_descending:  # texts have no minus: sorted by name first, then stably by value from the end
        keyed.sort(key=lambda one: one[0][3])
        keyed.sort(key=lambda one: (-one[0][0], -one[0][1], one[0][2]), reverse=True)
    else:
        keyed.sort(key=lambda one: one[0])
    start = _start(keyed, cursor, is_descending=is_descending) if cursor else 0
    some = keyed[start : start + limit]
    more = start + limit < len(keyed)
    return Page([row for _, row in some], len(keyed), _encode(some[-1][0]) if more else "")


def _key(value: Any, name: str, sign: float) -> Key:
    if isinstance(value, tuple):
        value = value[0] if value else None
    if isinstance(value, str):
        return 1, 0.0, value.lower(), name
    return (2, 0.0, "", name) if value is None else (0, sign * float(value), "", name)


def _start(keyed: Sequence[tuple[Key, Any]], cursor: str, *, is_descending: bool) -> int:
    after = _decode(cursor)
    for i, (key, _) in enumerate(keyed):
        if _is_after(key, after, is_descending=is_descending):
            return i
    return len(keyed)


def _is_after(key: Key, other: Key, *, is_descending: bool) -> bool:
    if is_descending and key[:2] == other[:2] and key[2] != other[2]:
        return key[2] < other[2]
    return key > other


def _encode(key: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def _decode(cursor: str) -> Key:
    try:
        kind, number, text, name = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return int(kind), float(number), str(text), str(name)
    except (ValueError, TypeError) as error:
        raise UsageError("the cursor is none of ours", where="page", fix="begin without one") from error
