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

__all__ = ["SCHEMA_VERSION", "Store"]

T = TypeVar("T")

_GROUP: Final = 256
"""Most writes in one commit: a failing disk then loses little, and none of it was acknowledged."""

_WAITING: Final = 20_000
"""Most writes that may wait; then the caller waits, the broker's queue grows, and devices keep their rows."""

MIGRATIONS: Final = (
    """
    CREATE TABLE devices (
      device TEXT PRIMARY KEY, enrolled_at REAL NOT NULL,
      boot TEXT NOT NULL DEFAULT '', session INTEGER NOT NULL DEFAULT -1,
      dead_boot TEXT NOT NULL DEFAULT '', dead_session INTEGER NOT NULL DEFAULT -1,
      born_at REAL NOT NULL DEFAULT 0, last_seen REAL NOT NULL DEFAULT 0,
      agent_version TEXT NOT NULL DEFAULT '', runtime TEXT NOT NULL DEFAULT '',
      runtime_version TEXT NOT NULL DEFAULT '', board TEXT NOT NULL DEFAULT '{}',
      reported BLOB, desired BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE tokens (id TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE models (
      bundle TEXT PRIMARY KEY, model TEXT NOT NULL, version TEXT NOT NULL,
      registered_at REAL NOT NULL, manifest BLOB NOT NULL, UNIQUE (model, version)
    ) WITHOUT ROWID;
    CREATE TABLE rollouts (
      number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, state TEXT NOT NULL, document BLOB NOT NULL
    );
    CREATE TABLE executions (
      job_id TEXT PRIMARY KEY, number INTEGER NOT NULL, device TEXT NOT NULL, model TEXT NOT NULL,
      closed INTEGER NOT NULL, document BLOB NOT NULL, UNIQUE (number, device)
    ) WITHOUT ROWID;
    CREATE INDEX executions_to_close ON executions (number) WHERE closed = 0;
    CREATE INDEX executions_by_device ON executions (device, model, number);
    CREATE TABLE orders (device TEXT PRIMARY KEY, job_id TEXT NOT NULL, envelope BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE telemetry (
      id INTEGER PRIMARY KEY, device TEXT NOT NULL, boot TEXT NOT NULL, class TEXT NOT NULL,
      seq INTEGER NOT NULL, time REAL NOT NULL, received REAL NOT NULL, body BLOB NOT NULL,
      UNIQUE (device, boot, class, seq)
    );
    CREATE INDEX telemetry_by_class ON telemetry (device, class, id);
    CREATE TABLE marks (
      device TEXT NOT NULL, boot TEXT NOT NULL, class TEXT NOT NULL, up_to INTEGER NOT NULL,
      dropped INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (device, boot, class)
    ) WITHOUT ROWID;
    CREATE TABLE results (
      id INTEGER PRIMARY KEY, device TEXT NOT NULL, time REAL NOT NULL, bundle TEXT NOT NULL,
      ref TEXT NOT NULL, class INTEGER NOT NULL, confidence REAL NOT NULL
    );
    CREATE INDEX results_by_device ON results (device, id);
    CREATE TABLE labels (
      device TEXT NOT NULL, ref TEXT NOT NULL, label INTEGER NOT NULL, PRIMARY KEY (device, ref)
    ) WITHOUT ROWID;
    CREATE TABLE windows (
      id INTEGER PRIMARY KEY, device TEXT NOT NULL, bundle TEXT NOT NULL, time REAL NOT NULL,
      level TEXT NOT NULL, summary BLOB NOT NULL, verdict BLOB NOT NULL
    );
    CREATE INDEX windows_by_device ON windows (device, id);
    CREATE TABLE drift_states (
      device TEXT NOT NULL, bundle TEXT NOT NULL, state BLOB NOT NULL, PRIMARY KEY (device, bundle)
    ) WITHOUT ROWID;
    CREATE TABLE audit (
      number INTEGER PRIMARY KEY, time TEXT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
      subject TEXT NOT NULL, detail BLOB NOT NULL, previous TEXT NOT NULL, digest TEXT NOT NULL
    );
    CREATE TABLE dead_letters (
      id INTEGER PRIMARY KEY, time REAL NOT NULL, topic TEXT NOT NULL, reason TEXT NOT NULL, payload BLOB NOT NULL
    );
    CREATE TABLE counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    """,
    """
    CREATE TABLE certificates (
      serial TEXT PRIMARY KEY, device TEXT NOT NULL, key_digest TEXT NOT NULL, issued_at REAL NOT NULL,
      not_after REAL NOT NULL, seen_at REAL NOT NULL DEFAULT 0, revoked_at REAL NOT NULL DEFAULT 0,
      reason TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;
    CREATE INDEX certificates_by_device ON certificates (device, issued_at);
    CREATE TABLE identities (device TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID;
    """,
    """
    CREATE TABLE capture_campaigns (
      id TEXT PRIMARY KEY, started_at REAL NOT NULL, document BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE capture_samples (
      campaign TEXT NOT NULL, device TEXT NOT NULL, number INTEGER NOT NULL, size INTEGER NOT NULL,
      sha256 TEXT NOT NULL, received REAL NOT NULL, PRIMARY KEY (campaign, device, number)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE orders_of_models (
      device TEXT NOT NULL, model TEXT NOT NULL, job_id TEXT NOT NULL, envelope BLOB NOT NULL,
      PRIMARY KEY (device, model)
    ) WITHOUT ROWID;
    INSERT INTO orders_of_models SELECT device, '', job_id, envelope FROM orders;
    DROP TABLE orders;
    ALTER TABLE orders_of_models RENAME TO orders;
    """,
)
"""Each one runs once, in order, in one transaction with its row in ``migrations``."""

SCHEMA_VERSION: Final = len(MIGRATIONS)

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
    done = connection.execute("SELECT COALESCE(MAX(version), 0) FROM migrations").fetchone()[0]
    if done > SCHEMA_VERSION:
        fix = "update Strop, or restore the backup that was made before the update"
        raise StoreError(f"schema {done} is newer than ours ({SCHEMA_VERSION})", where=str(path), fix=fix)
    for version in range(done, SCHEMA_VERSION):
        insert = f"INSERT INTO migrations VALUES ({version + 1});"
        connection.executescript(f"BEGIN IMMEDIATE; {MIGRATIONS[version]} {insert} COMMIT;")


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
