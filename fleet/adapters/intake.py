# SPDX-License-Identifier: Apache-2.0
"""Telemetry on its way into the database: whatever waits goes into one transaction, and is acknowledged after it.

One thread reads from the broker and decodes; another stores what waits, commits it, and acknowledges it. While it
waits for the disk or the database, the next group is decoded: the busier the server, the larger its groups and the
cheaper a batch. They hand over whole groups, since two threads that hand over batches cost more than they save. When
too much waits, the reader waits, and the broker's queue grows. A group that fails as a whole is tried batch by batch,
so that one bad message costs nobody else anything.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Final

from edge_contract import PROTOCOL_VERSION
from edge_contract.batches import TelemetryBatch
from edge_contract.errors import MessageError
from edge_contract.topics import ROOT, Topic
from fleet.adapters import tables
from fleet.adapters.batches import Key, Unfold
from fleet.adapters.database import Connection
from fleet.adapters.quarantine import keep_sorted
from fleet.adapters.store import Store

__all__ = ["Arrival", "Intake", "acknowledgement"]

_log = logging.getLogger("strop.fleet.intake")

_GROUP: Final = 512
"""Most batches in one transaction."""
_MOST: Final = 2 * _GROUP
"""Most batches that wait; then the reader does."""
_ENOUGH: Final = 64
_LINGER_S: Final = 0.004
"""A group begins with so many batches, or so long after its first one: a commit costs as much as many batches."""
_COUNTED_S: Final = 1.0
"""The counters of all workers are one row each, on which their transactions would wait for each other."""


def acknowledgement(boot: str, cls: str, up_to: int) -> bytes:
    """Return ``TelemetryAck(boot, cls, up_to).to_bytes()`` in a fraction of its time: one goes out for each batch.

    Example:
        >>> acknowledgement("b1", "metric", 5)
        b'{"boot":"b1","class":"metric","up_to_seq":5,"v":1}'
    """
    quoted = encode_basestring(boot)
    return f'{{"boot":{quoted},"class":"{cls}","up_to_seq":{up_to},"v":{PROTOCOL_VERSION}}}'.encode()


@dataclass(eq=False, slots=True)
class Arrival:
    """One batch that was read, with what it came in."""

    said: Topic
    payload: bytes
    batch: TelemetryBatch
    future: "Future[bytes] | None" = None
    """Resolves to the acknowledgement after the commit, for who waits for it."""

    @property
    def key(self) -> Key:
        """What an acknowledgement is for."""
        return self.said.device, self.batch.boot, self.batch.cls


class Intake:
    """Takes batches one by one and stores them in groups; before ``start``, on the caller's thread.

    Args:
        store: Where they go.
        unfold: Reads rows of results and drift windows into their tables.
        clock: Seconds since 1970.
        acknowledge: Sends (topic, payload), after the commit.
        failed: Told of a batch that was not stored, and why.
    """

    def __init__(
        self,
        store: Store,
        unfold: Unfold,
        *,
        clock: Callable[[], float],
        acknowledge: Callable[[str, bytes], None],
        failed: Callable[[Arrival, BaseException], None],
    ) -> None:
        self._store, self._unfold, self._clock = store, unfold, clock
        self._acknowledge, self._failed = acknowledge, failed
        self._waiting, self._turn = list[Arrival](), threading.RLock()
        self._lock = threading.Lock()
        self._work, self._room = threading.Condition(self._lock), threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._counts, self._counted_at = (0, 0), 0.0

    def start(self) -> None:
        """Store on a thread of its own from now on."""
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Store what waits and end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._work.notify()
            self._room.notify()
        if thread is not None:
            thread.join()
        self.flush()

    def take(self, arrival: Arrival) -> "Future[bytes] | None":
        """Keep a batch for the next transaction and return its future; waits while too many wait."""
        with self._lock:
            self._waiting.append(arrival)
            count = len(self._waiting)
            if self._thread is not None:
                if count in (1, _ENOUGH):
                    self._work.notify()
                while len(self._waiting) >= _MOST and self._thread is not None:
                    self._room.wait()
                return arrival.future
        if count >= _GROUP:
            self.flush()
        return arrival.future

    def pause(self) -> None:
        """Nothing more is there to read at this moment: without a thread, store what waits."""
        if self._thread is None:
            self.flush()

    def flush(self) -> None:
        """Store what waits and acknowledge it, on this thread."""
        with self._turn:
            with self._lock:
                group = self._next()
            while group:
                self._store_group(group)
                with self._lock:
                    group = self._next()

    def _next(self) -> list[Arrival]:
        group, self._waiting = self._waiting[:_GROUP], self._waiting[_GROUP:]
        self._room.notify()
        return group

    def _run(self) -> None:
        mine = threading.current_thread()
        while self._thread is mine:
            group = self._awaited(mine)
            try:
                with self._turn:
                    if group:
                        self._store_group(group)
                    elif any(self._counts):
                        self._count()
            except Exception:  # what went wrong with one group must not end the thread that stores all others
                _log.exception("a group of %d batches was not stored", len(group))

    def _awaited(self, mine: threading.Thread) -> list[Arrival]:
        """Wait for a group; return none where there is only something left to count, or at the end."""
        with self._lock:
            while not self._waiting and self._thread is mine:
                if not self._work.wait(_COUNTED_S) and any(self._counts):
                    break
            if 0 < len(self._waiting) < _ENOUGH and self._thread is mine:
                self._work.wait(_LINGER_S)
            return self._next()

    def _count(self) -> None:
        counts, self._counts = self._counts, (0, 0)
        self._store.submit(lambda db: _bump(db, counts))

    def _store_group(self, group: list[Arrival]) -> None:
        more, now = self._with(group), time.monotonic()
        is_due = self._thread is None or now - self._counted_at >= _COUNTED_S
        try:
            kept = self._store.here(lambda db: self._keep(db, group, more if is_due else (0, 0)))
        except Exception as error:
            if len(group) == 1:
                self._refuse(group[0], error)
                return
            for arrival in group:
                self._store_group([arrival])
        else:
            self._counts, self._counted_at = ((0, 0), now) if is_due else (more, self._counted_at)
            self._answer(group, kept)

    def _with(self, group: Sequence[Arrival]) -> tuple[int, int]:
        """Return (batches, rows) that are to be counted with a group."""
        return self._counts[0] + len(group), self._counts[1] + sum(len(arrival.batch.rows) for arrival in group)

    def _keep(self, db: Connection, group: Sequence[Arrival], counts: tuple[int, int]) -> list[int | MessageError]:
        kept = keep_sorted(db, [arrival.batch for arrival in group], self._clock(), self._unfold)
        _bump(db, counts)
        return kept

    def _answer(self, group: list[Arrival], kept: list[int | MessageError]) -> None:
        said = dict[Key, bytes]()
        for arrival, up_to in zip(group, kept, strict=True):
            if isinstance(up_to, MessageError):
                self._refuse(arrival, up_to)
                continue
            key = arrival.key
            if key not in said:  # several batches of one queue share a mark
                said[key] = acknowledgement(arrival.batch.boot, arrival.batch.cls, up_to)
                self._acknowledge(f"{ROOT}/{arrival.said.tenant}/{arrival.said.device}/tm/ack", said[key])
            if arrival.future is not None:
                arrival.future.set_result(said[key])

    def _refuse(self, arrival: Arrival, error: BaseException) -> None:
        if isinstance(error, ValueError | RecursionError):  # a text without UTF-8 form, nested without end
            error = MessageError(f"cannot be stored: {error}", where=str(arrival.said))
        self._failed(arrival, error)
        if arrival.future is not None:
            arrival.future.set_exception(error)


def _bump(db: Connection, counts: tuple[int, int]) -> None:
    batches, rows = counts
    if batches:
        tables.bump(db, "batches", batches)
    if rows:
        tables.bump(db, "rows", rows)
