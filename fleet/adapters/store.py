# SPDX-License-Identifier: Apache-2.0
"""The database: one writer thread that commits in groups, and as many readers as there are threads.

Theory of operation. A write is a function of a connection. The writer thread takes whatever waits, runs each
function inside its own savepoint, and commits them together; only then do their futures resolve. So an
answer, such as ``tm/ack``, can only follow a commit, and one fsync pays for many messages. A function that
raises undoes its own savepoint and nobody else's.

What differs between SQLite and PostgreSQL is behind ``Engine``: how a connection is opened, what a group's
transaction locks, and which errors mean that the server went away. After that the writer connects again and
runs the group once more: none of it was committed, or, where the answer to COMMIT itself was lost, each of its
functions must bear a second run. All of ours do: they fold state, or insert what a key makes unique.
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar

from edge_contract.errors import StoreError
from fleet.adapters.database import Connection
from fleet.adapters.engine import Engine, Session

__all__ = ["Engine", "Job", "Session", "Store"]

_log = logging.getLogger("strop.fleet.store")

T = TypeVar("T")

_GROUP: Final = 256
"""Most writes in one commit: a failing disk then loses little, and none of it was acknowledged."""

_WAITING: Final = 20_000
"""Most writes that may wait; then the caller waits, the broker's queue grows, and devices keep their rows."""

_READERS: Final = 8
"""Most connections that read at a time; more threads than that wait a moment."""

_AGAIN_S: Final = (0.05, 1.0)
"""First and longest wait between two attempts to reach a database that went away."""

Job = tuple[Callable[[Connection], Any], "Future[Any]"]
Outcome = tuple[Any, Exception | None]


class Store:
    """The database of one fleet server.

    Args:
        engine: SQLite or PostgreSQL.

    Raises:
        StoreError: Not a database, written by a newer Strop, it does not answer, or the disk refuses.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._local = engine, threading.local()
        self._idle: list[Session] = []
        self._free, self._lock, self._closed = threading.BoundedSemaphore(_READERS), threading.Lock(), False
        self._queue: queue.Queue[Job | None] = queue.Queue(_WAITING)
        self._own: list[Job] = []
        self._stopping, self._turn = threading.Event(), threading.Lock()
        self._session = engine.open(write=True)
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def where(self) -> str:
        """The file or address, without a password."""
        return self._engine.where

    def submit(self, job: Callable[[Connection], T], then: Callable[["Future[T]"], None] | None = None) -> "Future[T]":
        """Queue a write; the future resolves after its commit.

        ``then`` is called with the future on the writer's thread, in the order of the commits. The function may run
        more than once before the commit, so it changes nothing but the database.

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
            raise StoreError("the database is closed", where=self.where)
        self._queue.put((job, future))
        return future

    def write(self, job: Callable[[Connection], T]) -> T:
        """Run a write and return its result after the commit; raises what the function raised."""
        return self.submit(job).result()

    def here(self, job: Callable[[Connection], T]) -> T:
        """Do what ``write`` does on the caller's thread, in a transaction of its own.

        For who has a group already: two threads that hand work to each other cost more than they save.
        """
        if self._closed:
            raise StoreError("the database is closed", where=self.where)
        with self._turn:
            ((result, raised),) = self._settled([job])
        if raised is not None:
            raise raised
        answer: T = result
        return answer

    def read(self, job: Callable[[Connection], T]) -> T:
        """Run a read on a connection of the pool; once more if the database had gone away.

        Raises:
            StoreError: It cannot be read, or the function wanted to write.
        """
        held: Session | None = getattr(self._local, "session", None)
        if held is not None:  # a read inside a read
            return job(held.db)
        try:
            try:
                return self._read(job)
            except self._engine.errors as error:
                if not self._engine.is_passing(error):
                    raise
                self._forget_readers()
                return self._read(job)
        except self._engine.errors as error:
            what = f"the database refused a read: {str(error).strip()}"
            raise StoreError(what, where=self.where, fix=self._engine.advice(error)) from error

    def turn(self, *, shared: bool) -> AbstractContextManager[None]:
        """Hold the files of bundles among processes, as ``Engine.turn``."""
        return self._engine.turn(shared=shared)

    def close(self) -> None:
        """Finish the writes that wait, and close every connection."""
        if self._closed:
            return
        self._closed = True
        self._stopping.set()
        self._queue.put(None)
        self._thread.join()
        with self._turn:
            self._session.close()
        self._forget_readers()

    def _read(self, job: Callable[[Connection], T]) -> T:
        with self._free:
            with self._lock:
                session = self._idle.pop() if self._idle else None
            session = session or self._engine.open(write=False)
            self._local.session = session
            try:
                result = job(session.db)
            except self._engine.errors:
                session.close()
                raise
            except BaseException:
                self._idle.append(session)
                raise
            finally:
                self._local.session = None
            self._idle.append(session)
            return result

    def _forget_readers(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()

    def _run(self) -> None:
        is_ending = False
        while not is_ending or self._own:
            group, self._own = self._own, []
            try:
                while len(group) < _GROUP and not is_ending:
                    job = self._queue.get_nowait() if group else self._queue.get()
                    if job is None:
                        is_ending = True
                    else:
                        group.append(job)
            except queue.Empty:
                pass
            if group:
                self._commit(group)

    def _commit(self, group: list[Job]) -> None:
        with self._turn:
            outcomes = self._settled([job for job, _ in group])
        for (_, future), (result, raised) in zip(group, outcomes, strict=True):
            if raised is None:
                future.set_result(result)
            else:
                future.set_exception(raised)

    def _settled(self, group: list[Callable[[Connection], Any]]) -> list[Outcome]:
        """Commit a group, however often it takes, and return what became of each function."""
        waits = self._waits()
        while True:
            outcomes: list[Outcome] = []
            try:
                self._attempt(group, outcomes)
                return outcomes
            except self._engine.errors as error:
                self._session.undo()
                if not self._engine.is_passing(error) or self._stopping.is_set():
                    return [(None, self._refused(error))] * len(group)
                _log.warning("the database went away (%s); it is tried again", str(error).strip())
                if self._again(next(waits), outcomes, len(group)):
                    return outcomes

    def _attempt(self, group: list[Callable[[Connection], Any]], outcomes: list[Outcome]) -> None:
        self._session.begin()
        if len(group) == 1:  # the transaction itself is what a fault undoes
            outcomes.append(self._alone(group[0]))
            if outcomes[0][1] is not None:
                return
        else:
            outcomes.extend(self._one(job) for job in group)
        self._session.commit()

    def _alone(self, job: Callable[[Connection], Any]) -> Outcome:
        try:
            return job(self._session.db), None
        except self._engine.errors as error:
            if self._engine.is_passing(error):
                raise
            raised: Exception = self._refused(error)
        except Exception as error:
            raised = error
        self._session.undo()
        return None, raised

    def _one(self, job: Callable[[Connection], Any]) -> Outcome:
        db = self._session.db
        db.execute("SAVEPOINT one")
        try:
            outcome: Outcome = job(db), None
        except self._engine.errors as error:
            if self._engine.is_passing(error):
                raise
            db.execute("ROLLBACK TO one")
            outcome = None, self._refused(error)
        except Exception as error:
            db.execute("ROLLBACK TO one")
            outcome = None, error
        db.execute("RELEASE one")
        return outcome

    def _again(self, wait_s: float, outcomes: list[Outcome], wanted: int) -> bool:
        """Wait, connect again, and return True if the transaction whose commit was under way had been committed."""
        self._stopping.wait(wait_s)
        try:
            fresh = self._engine.open(write=True)
        except (StoreError, *self._engine.errors) as error:  # type: ignore[misc]
            _log.warning("the database does not answer yet: %s", str(error).strip())
            return False
        committed = len(outcomes) == wanted and self._engine.has_committed(fresh, self._session)
        self._session.close()
        self._session = fresh
        return committed

    def _refused(self, error: Exception) -> StoreError:
        what = f"the database refused a write: {str(error).strip()}"
        return StoreError(what, where=self.where, fix=self._engine.advice(error))

    @staticmethod
    def _waits() -> Iterator[float]:
        wait_s, most = _AGAIN_S
        while True:
            yield wait_s
            wait_s = min(2 * wait_s, most)
