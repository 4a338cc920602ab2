# SPDX-License-Identifier: Apache-2.0
"""Which database a server runs on: a file in its data folder, or PostgreSQL by a URL."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from edge_contract import durable
from edge_contract.errors import UsageError
from fleet.adapters.sqlite import SqliteEngine, SqliteStore
from fleet.adapters.store import Engine, Store

__all__ = ["files_turn", "note_database", "open_store", "used_database"]

_NOTE: Final = "database"
"""File of the data folder: the address of the server's PostgreSQL, without a password; missing for SQLite."""


def open_store(data: Path, url: str = "", *, leader: bool = False) -> Store:
    """Open the database of a fleet server.

    Args:
        data: The data folder; it holds ``fleet.db`` where no URL is given.
        url: ``postgresql://…``, or empty.
        leader: Be the one server that orders devices about; workers are not.

    Raises:
        UsageError: The URL names no database that is known here.
        MissingDependencyError: psycopg is not installed.
        StoreError: The database does not answer, is of a newer Strop, or has its leader.
    """
    if not url:
        return SqliteStore(data / "fleet.db")
    _check(url)
    from fleet.adapters.postgres import PostgresStore  # psycopg is an extra

    return PostgresStore(url, leader=leader)


def _check(url: str) -> None:
    if not url.startswith(("postgresql://", "postgres://")):
        fix = "give postgresql://user@host/name, or nothing for SQLite in the data folder"
        raise UsageError(f"no database is known by {url.split(':', maxsplit=1)[0][:20]!r}", where="--database", fix=fix)


def files_turn(data: Path, url: str = "", *, shared: bool) -> AbstractContextManager[None]:
    """Hold the files of bundles among processes, as ``Store.turn`` does, without opening the store.

    Raises:
        StoreError: Somebody holds them for too long, or the database does not answer.
    """
    if not url:
        engine: Engine = SqliteEngine(data / "fleet.db")
        return engine.turn(shared=shared)
    _check(url)
    from fleet.adapters.postgres import PostgresEngine

    return PostgresEngine(url).turn(shared=shared)


def note_database(data: Path, url: str) -> None:
    """Write down which database the server of a data folder runs on: a backup must not take another."""
    if not url:
        (data / _NOTE).unlink(missing_ok=True)
        return
    from fleet.adapters.postgres import shown

    durable.write(data / _NOTE, shown(url).encode() + b"\n")


def used_database(data: Path) -> str:
    """Return what ``note_database`` wrote, empty for SQLite."""
    path = data / _NOTE
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""
