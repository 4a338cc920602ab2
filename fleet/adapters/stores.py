# SPDX-License-Identifier: Apache-2.0
"""Which database a server runs on: a file in its data folder, or PostgreSQL by a URL."""

from pathlib import Path

from edge_contract.errors import UsageError
from fleet.adapters.sqlite import SqliteStore
from fleet.adapters.store import Store

__all__ = ["open_store"]


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
    if not url.startswith(("postgresql://", "postgres://")):
        fix = "give postgresql://user@host/name, or nothing for SQLite in the data folder"
        raise UsageError(f"no database is known by {url.split(':', maxsplit=1)[0][:20]!r}", where="--database", fix=fix)
    from fleet.adapters.postgres import PostgresStore  # psycopg is an extra

    return PostgresStore(url, leader=leader)
