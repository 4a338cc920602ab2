# SPDX-License-Identifier: Apache-2.0
"""What the server's SQL runs on: a connection, whatever database stands behind it, and the common subset of SQL.

``sqlite3.Connection`` with ``sqlite3.Row`` is such a connection as it is; ``fleet.adapters.postgres`` wraps psycopg.
The subset: ``?`` for values, ``INSERT … ON CONFLICT (key) DO UPDATE`` or ``DO NOTHING``, no function that only one of
both has. Types of columns are TEXT, INTEGER (64 bits), REAL (64 bits) and BLOB.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Final, Protocol

__all__ = ["Connection", "Cursor", "Row", "chunks", "upsert"]


class Row(Protocol):
    """One row: values by position or by the column's name, ``dict(row)``, ``tuple(row)``."""

    def __getitem__(self, key: Any, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...

    def keys(self) -> Any:
        """Return the columns' names in their order."""
        ...


class Cursor(Protocol):
    """What a statement found, or how many rows it changed."""

    @property
    def rowcount(self) -> int:
        """How many rows a change touched."""
        ...

    def fetchone(self) -> Any:
        """Return the next row, or None after the last."""
        ...

    def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection inside the transaction of a ``Store``; nobody but the store begins, commits or undoes."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Cursor:
        """Run one statement; ``?`` stands for a value."""
        ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Cursor:
        """Run one statement for each sequence of values."""
        ...


@cache
def upsert(table: str, key: str, *others: str) -> str:
    """Return the statement that inserts a row or replaces its other columns; values in the order of the names.

    Args:
        table: The table.
        key: Columns of the primary key, separated by commas.
        others: The columns that are replaced.

    Example:
        >>> upsert("labels", "device, ref", "label").split(" ON ")[0]
        'INSERT INTO labels (device, ref, label) VALUES (?,?,?)'
    """
    names = [*(name.strip() for name in key.split(",")), *others]
    marks = ",".join("?" * len(names))
    changes = ", ".join(f"{name}=excluded.{name}" for name in others)
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks}) ON CONFLICT ({key}) DO UPDATE SET {changes}"


_CHUNKS: Final = (256, 64, 16, 4, 1)
"""Rows in one statement: few different statements, so that each is prepared once."""


def chunks(rows: Sequence[Sequence[Any]]) -> Iterator[tuple[str, list[Any]]]:
    """Cut rows into runs; yield ``(?,…),(?,…)`` for a run and its values in one list.

    A statement for many rows costs one call into the database, in which other threads run, where a statement for
    each row costs many.

    Example:
        >>> [(marks, values) for marks, values in chunks([(1, "a"), (2, "b")])]
        [('(?,?)', [1, 'a']), ('(?,?)', [2, 'b'])]
    """
    start = 0
    for size in _CHUNKS:
        while len(rows) - start >= size:
            yield _marks(len(rows[start]), size), [value for row in rows[start : start + size] for value in row]
            start += size


@cache
def _marks(width: int, size: int) -> str:
    return ",".join([f"({','.join('?' * width)})"] * size)
