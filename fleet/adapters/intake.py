# SPDX-License-Identifier: Apache-2.0
"""Telemetry on its way into the database: whatever waits goes into one transaction, and is acknowledged after it.

The thread that reads from the broker stores, too: it takes what is there, commits it, and acknowledges it. While it
commits, more arrives at the socket: the busier the server, the larger its groups and the cheaper a batch. A group that
fails as a whole is tried batch by batch, so that one bad message costs nobody else anything.
"""

import threading
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

_GROUP: Final = 512
"""Most batches in one transaction."""


def acknowledgement(boot: str, cls: str, up_to: int) -> bytes:
    """Return ``TelemetryAck(boot, cls, up_to).to_bytes()`` in a fraction of its time: one goes out for each batch.

    Example:
        >>> acknowledgement("b1", "metric", 5)
        b'{"boot":"b1","class":"metric","up_to_seq":5,"v":1}'
    """
    quoted = encode_basestring(boot)
    return f'{{"boot":{quoted},"class":"{cls}","up_to_seq":{up_to},"v":{PROTOCOL_VERSION}}}'.encode()


@dataclass(eq=False)
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
    """Takes batches one by one and stores them in groups.

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
        self._waiting, self._lock = list[Arrival](), threading.RLock()

    def take(self, arrival: Arrival) -> "Future[bytes] | None":
        """Keep a batch for the next transaction and return its future; begins one when enough wait."""
        with self._lock:
            self._waiting.append(arrival)
            if len(self._waiting) >= _GROUP:
                self.flush()
        return arrival.future

    def flush(self) -> None:
        """Store what waits and acknowledge it, on this thread."""
        with self._lock:
            group, self._waiting = self._waiting, []
            if group:
                self._store_group(group)

    def _store_group(self, group: list[Arrival]) -> None:
        try:
            kept = self._store.here(lambda db: self._keep(db, group))
        except Exception as error:
            if len(group) == 1:
                self._refuse(group[0], error)
                return
            for arrival in group:
                self._store_group([arrival])
        else:
            self._answer(group, kept)

    def _keep(self, db: Connection, group: Sequence[Arrival]) -> list[int | MessageError]:
        kept = keep_sorted(db, [arrival.batch for arrival in group], self._clock(), self._unfold)
        tables.bump(db, "batches", len(group))
        tables.bump(db, "rows", sum(len(arrival.batch.rows) for arrival in group))
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
