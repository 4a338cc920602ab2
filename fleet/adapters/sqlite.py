# SPDX-License-Identifier: Apache-2.0
"""SQLite as the server's database: WAL, one file.

synchronous=FULL: what was acknowledged survives a power cut. Readers are in query-only mode; WAL lets them read
while the writer commits. Other processes, such as ingest workers, may write to the same file: a transaction takes
the write lock when it begins, and waits for it for up to ten seconds.
"""

import contextlib
import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from edge_contract.errors import StoreError
from fleet.adapters import store
from fleet.adapters.database import Connection
from fleet.adapters.database_advice import of_sqlite as advice
from fleet.adapters.migrations import missing
from fleet.adapters.turns import file_turn

__all__ = ["SqliteEngine", "SqliteStore"]

_BUSY_S: Final = 10.0
_LOG_PAGES: Final = 4000
"""The log goes into the file after so many pages (16 MB): a page that changed often is then written there once."""

_WRITES: Final = ("journal_mode = WAL", "synchronous = FULL", f"wal_autocheckpoint = {_LOG_PAGES}")


class _Session:
    def __init__(self, path: Path, *, write: bool) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S)
        self._connection.row_factory = sqlite3.Row
        settings = _WRITES if write else ("query_only = ON",)
        for setting in (*settings, "cache_size = -8000"):
            self._connection.execute(f"PRAGMA {setting}")

    @property
    def db(self) -> Connection:
        return self._connection

    def begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._connection.execute("COMMIT")

    def undo(self) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back by itself (disk full, I/O error)
                self._connection.execute("ROLLBACK")

    def close(self) -> None:
        self._connection.close()

    def migrate(self, path: Path) -> None:
        connection = self._connection
        connection.execute("CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY)")
        for one in missing(self._versions(), str(path)):
            try:
                connection.executescript(f"BEGIN IMMEDIATE; INSERT INTO migrations VALUES ({one.number}); {one.script}")
                connection.execute("COMMIT")
            except sqlite3.Error:
                self.undo()
                if one.number not in self._versions():  # else another process, started with this one, was faster
                    raise

    def _versions(self) -> set[int]:
        return {row["version"] for row in self._connection.execute("SELECT version FROM migrations")}


class SqliteEngine:
    """SQLite behind a ``Store``.

    Args:
        path: The file; its folder exists.
    """

    errors: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, path: Path) -> None:
        self._path, self.where = path, str(path)

    def open(self, *, write: bool) -> store.Session:
        """Open the file; the first time a session writes, the schema is brought up to date."""
        try:
            session = _Session(self._path, write=write)
            if write:
                session.migrate(self._path)
        except sqlite3.Error as error:
            raise StoreError(f"the database cannot be opened: {error}", where=self.where) from error
        return session

    def is_passing(self, error: Exception) -> bool:
        """Return True if another process held the write lock for too long."""
        return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY

    def has_committed(self, session: store.Session, lost: store.Session) -> bool:
        """Return False: there is no connection to lose."""
        return False

    def advice(self, error: Exception) -> str:
        """Return what a person can do about an error."""
        return advice(error)

    def turn(self, *, shared: bool) -> AbstractContextManager[None]:
        """Hold the lock file beside the database."""
        return file_turn(self._path.with_suffix(".files"), shared=shared)


class SqliteStore(store.Store):
    """The database in a file.

    Args:
        path: The file; its folder exists.

    Raises:
        StoreError: Not a database, written by a newer Strop, or the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(SqliteEngine(path))


Store = SqliteStore
"""The name that was used before there were two."""
