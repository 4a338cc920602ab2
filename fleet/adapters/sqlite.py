# SPDX-License-Identifier: Apache-2.0
"""The database: one writer thread that commits in groups, and as many readers as there are threads.

Theory of operation. A write is a function of a connection. The writer thread takes whatever waits, runs each
function inside its own savepoint, and commits them together; only then do their futures resolve. So an
answer, such as ``tm/ack``, can only follow a commit, and one fsync pays for many messages (synchronous=FULL:
what was acknowledged survives a power cut). A function that raises undoes its own savepoint and nobody else's.

Readers have their own connections in query-only mode: WAL lets them read while the writer commits.
"""

import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeVar

from edge_contract.errors import StoreError
from fleet.adapters.migrations import migrations

__all__ = ["Store"]

T = TypeVar("T")

_GROUP: Final = 256
"""Most writes in one commit: a failing disk then loses little, and none of it was acknowledged."""

_WAITING: Final = 20_000
"""Most writes that may wait; then the caller waits, the broker's queue grows, and devices keep their rows."""


_Job = tuple[Callable[[sqlite3.Connection], Any], "Future[Any]"]


def _connect(path: Path, *, write: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
    connection.row_factory = sqlite3.Row
    if write:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    else:
        connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA cache_size = -8000")
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY)")
    done = {row["version"] for row in connection.execute("SELECT version FROM migrations")}
    if unknown := done - {one.number for one in migrations()}:
        fix = "update Strop, or restore the backup that was made before the update"
        raise StoreError(f"schema {max(unknown)} is of a newer Strop", where=str(path), fix=fix)
    for one in migrations():
        if one.number not in done:
            insert = f"INSERT INTO migrations VALUES ({one.number});"
            connection.executescript(f"BEGIN IMMEDIATE; {one.script} {insert} COMMIT;")


class Store:
    """The database of one fleet server.

    Args:
        path: The file; its folder exists.

    Raises:
        StoreError: Not a database, written by a newer Strop, or the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._local = path, threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._lock, self._closed = threading.Lock(), False
        self._queue: queue.Queue[_Job | None] = queue.Queue(_WAITING)
        self._own: list[_Job] = []
        try:
            self._connection = _connect(path, write=True)
            _migrate(self._connection, path)
        except sqlite3.Error as error:
            raise StoreError(f"the database cannot be opened: {error}", where=str(path)) from error
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(
        self, job: Callable[[sqlite3.Connection], T], then: Callable[["Future[T]"], None] | None = None
    ) -> "Future[T]":
        """Queue a write; the future resolves after its commit.

        ``then`` is called with the future on the writer's thread, in the order of the commits.

        Raises:
            StoreError: The store is closed.
        """
        future: Future[T] = Future()
        if then is not None:
            future.add_done_callback(then)
        if threading.current_thread() is self._thread:
            self._own.append((job, future))  # a callback after a commit: a full queue must not stop the writer
            return future
        if self._closed:
            raise StoreError("the database is closed", where=str(self._path))
        self._queue.put((job, future))
        return future

    def write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a write and return its result after the commit; raises what the function raised."""
        return self.submit(job).result()

    def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a read on this thread's own connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _connect(self._path, write=False)
            with self._lock:
                self._readers.append(connection)
        try:
            return job(connection)
        except sqlite3.Error as error:
            raise StoreError(f"the database refused a read: {error}", where=str(self._path)) from error

    def close(self) -> None:
        """Finish the writes that wait, and close every connection."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._thread.join()
        self._connection.close()
        with self._lock:
            for reader in self._readers:
                reader.close()

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            group = [job]
            while len(group) < _GROUP:
                try:
                    follower = self._queue.get_nowait()
                except queue.Empty:
                    break
                if follower is None:
                    self._queue.put(None)
                    break
                group.append(follower)
            self._commit(group)
            while self._own:
                own, self._own = self._own, []
                self._commit(own)

    def _commit(self, group: list[_Job]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            outcomes = [self._one(job) for job, _ in group]
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._undo()
            failed = StoreError(f"the database refused a write: {error}", where=str(self._path), fix="check the disk")
            outcomes = [(None, failed)] * len(group)
        for (_, future), (result, raised) in zip(group, outcomes, strict=True):
            if raised is None:
                future.set_result(result)
            else:
                future.set_exception(raised)

    def _one(self, job: Callable[[sqlite3.Connection], Any]) -> tuple[Any, Exception | None]:
        self._connection.execute("SAVEPOINT one")
        try:
            outcome: tuple[Any, Exception | None] = job(self._connection), None
        except Exception as error:
            self._connection.execute("ROLLBACK TO one")
            outcome = None, error
        self._connection.execute("RELEASE one")
        return outcome

    def _undo(self) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back by itself (disk full, I/O error)
                self._connection.execute("ROLLBACK")
