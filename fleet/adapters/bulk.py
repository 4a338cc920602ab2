# SPDX-License-Identifier: Apache-2.0
"""Many rows in one statement, as the database likes them best.

SQLite takes ``VALUES (?,…),(?,…)`` in runs of a few fixed lengths, so that each statement is compiled once. PostgreSQL
takes one array for each column and makes rows of them (``unnest``): one statement and one round trip for any number
of rows. On a busy machine a round trip costs the wait for a processor, on both sides.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, Final, Protocol, runtime_checkable

from fleet.adapters.database import Connection, chunks

__all__ = ["TakesArrays", "array_text", "sources"]


@runtime_checkable
class TakesArrays(Protocol):
    """A connection to a database that has arrays."""

    takes_arrays: bool


def sources(db: Connection, types: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[tuple[str, list[Any]]]:
    """Yield what stands after ``INSERT INTO … (…)``, or in ``IN (…)``, with its values; nothing for no rows.

    Args:
        db: Where it is run.
        types: Of the columns: ``TEXT``, ``INTEGER``, ``REAL`` or ``BLOB``.
        rows: In the order in which they are written.

    Example:
        >>> import sqlite3
        >>> list(sources(sqlite3.connect(":memory:"), ("TEXT", "INTEGER"), [("a", 1), ("b", 2)]))
        [('VALUES (?,?)', ['a', 1]), ('VALUES (?,?)', ['b', 2])]
    """
    if not rows:
        return
    if isinstance(db, TakesArrays):
        yield _from_arrays(types, list(zip(*rows, strict=True)))
        return
    for marks, values in chunks(rows):
        yield f"VALUES {marks}", values


_ARRAYS: Final = {"TEXT": "?::text[]", "INTEGER": "?::bigint[]", "REAL": "?::float8[]"}


def _from_arrays(types: Sequence[str], columns: Sequence[Sequence[Any]]) -> tuple[str, list[Any]]:
    """Return the SELECT over one array for each column; bytes travel as one piece that is cut where it arrives."""
    shown, cut, arrays, values, names = list[str](), list[Any](), list[str](), list[Any](), list[str]()

    def add(kind: str, column: Sequence[Any]) -> str:
        names.append(f"c{len(names)}")
        arrays.append(_ARRAYS[kind])
        values.append(array_text(column) if kind == "TEXT" else "{" + ",".join(map(repr, column)) + "}")
        return names[-1]

    for kind, column in zip(types, columns, strict=True):
        if kind == "BLOB":
            lengths = [len(data) for data in column]
            starts = [1, *(1 + end for end in accumulate(lengths[:-1]))]
            cut.append(b"".join(column))
            at = add("INTEGER", starts), add("INTEGER", lengths)
            shown.append(f"substr(?::bytea, {at[0]}::int, {at[1]}::int)")
        else:
            shown.append(add(kind, column))
    source = f"SELECT {', '.join(shown)} FROM unnest({', '.join(arrays)}) AS given({', '.join(names)})"
    return source, [*cut, *values]


def array_text(values: Sequence[str]) -> str:
    r"""Return texts as one PostgreSQL array in text form (8.15.6 of its manual); much faster than text by text.

    Example:
        >>> print(array_text(["a", 'b"c', "d\\e", ""]))
        {"a","b\"c","d\\e",""}
    """
    joined = '","'.join(values) if not any("\\" in one or '"' in one for one in values) else _escaped(values)
    return '{"' + joined + '"}' if values else "{}"


def _escaped(values: Sequence[str]) -> str:
    return '","'.join(one.replace("\\", "\\\\").replace('"', '\\"') for one in values)
