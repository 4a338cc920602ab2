# SPDX-License-Identifier: Apache-2.0
"""What the outbox keeps, drops, sends and forgets: the policy, not the storage.

Theory of operation. A queue is one (boot, class). Its rows carry 1, 2, 3, …; they leave only at the old end:
by an ack (the server has committed them) or by the drop policy. So the lowest sequence number that is
missing can be told from the first row alone, and ``after_seq`` of a batch is honest after any crash.
One batch per queue is in flight until its ack, and is sent again after ``resend_s``, which doubles each time: a
server that is slow is not helped by more. Rows of earlier boots are sent like any others. An ack beyond what was
sent is not believed.

When bytes run out, the oldest rows of the least important class go first (``CLASSES``), never a row that is
more important than the new one; if nothing may go, the new row is lost and counted.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from edge_agent.core.effects import CountLost, DropRows, Effect, KeepRow, RemoveRows, SendBatch
from edge_contract import canonical
from edge_contract.batches import CLASSES, TelemetryAck

__all__ = ["MAX_IN_FLIGHT", "ROW_COST", "Held", "Outbox", "Queue", "resend_s"]

_RESEND_FIRST_S: Final = 5.0
_RESEND_LONGEST_S: Final = 120.0
MAX_IN_FLIGHT: Final = 4
ROW_COST: Final = 64
"""Bytes that a row costs beside its body: key, index and SQLite's cell."""
MAX_ROW_BYTES: Final = 80_000
"""A body above this could not travel in a batch of 100 KB, whatever zlib makes of it."""

Key = tuple[str, str]


def resend_s(tries: int) -> float:
    """Return how long a batch may stay without an ack, in seconds, after so many that did.

    Example:
        >>> [resend_s(n) for n in (0, 1, 9)]
        [5.0, 10.0, 120.0]
    """
    return min(_RESEND_LONGEST_S, _RESEND_FIRST_S * 2.0 ** min(tries, 10))


@dataclass(frozen=True)
class Held:
    """What the store holds of one queue when the process starts."""

    boot: str
    cls: str
    rows: int
    size: int
    first_seq: int
    last_seq: int


@dataclass(frozen=True)
class Queue:
    """One (boot, class): how much it holds, and what is in flight.

    ``freeing`` bytes were asked to be dropped and are not yet confirmed.
    """

    rows: int = 0
    size: int = 0
    after_seq: int = 0
    last_seq: int = 0
    sent_to: int = 0
    sent_at: float | None = None
    tries: int = 0
    freeing: int = 0

    def is_flying(self, mono: float) -> bool:
        """True while a batch is out whose ack may still come."""
        return self.sent_at is not None and mono - self.sent_at < resend_s(self.tries)


@dataclass(frozen=True)
class Outbox:
    """All queues, oldest boot first.

    Example:
        >>> box = Outbox(limit=1000, boot="b1")
        >>> box, effects = box.put("metric", 5.0, {"n": 3})
        >>> box.rows, effects[0].seq, effects[0].body
        (1, 1, b'{"n":3}')
    """

    limit: int
    boot: str
    queues: Mapping[Key, Queue] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def opened(cls, limit: int, boot: str, held: Iterable[Held], dropped: Mapping[str, int]) -> "Outbox":
        """Return the outbox over rows that an earlier process left."""
        queues = {(h.boot, h.cls): Queue(h.rows, h.size, h.first_seq - 1, h.last_seq) for h in held if h.rows}
        return cls(limit, boot, queues, dict(dropped))

    @property
    def rows(self) -> int:
        """Rows held."""
        return sum(queue.rows for queue in self.queues.values())

    @property
    def size(self) -> int:
        """Bytes held, after the drops that are under way."""
        return sum(queue.size - queue.freeing for queue in self.queues.values())

    def put(self, cls: str, time: float, body: Mapping[str, Any]) -> tuple["Outbox", list[Effect]]:
        """Take one row in, after making room for it.

        Raises:
            ContractError: The body has no canonical form, such as one that holds NaN.
        """
        data = canonical.dumps(body)
        size = len(data) + ROW_COST
        box, effects = self._make_room(cls, size)
        if len(data) > MAX_ROW_BYTES or box.size + size > box.limit:
            return self._lost(cls), [CountLost(cls)]
        key = (box.boot, cls)
        queue = box.queues.get(key, Queue())
        seq = queue.last_seq + 1
        grown = replace(queue, rows=queue.rows + 1, size=queue.size + size, last_seq=seq)
        return _with(box, key, grown), [*effects, KeepRow(box.boot, cls, seq, time, data)]

    def _lost(self, cls: str) -> "Outbox":
        return replace(self, dropped={**self.dropped, cls: self.dropped.get(cls, 0) + 1})

    def _victims(self, cls: str) -> Iterator[tuple[Key, Queue]]:
        for name in CLASSES[: CLASSES.index(cls) + 1]:
            yield from ((key, q) for key, q in self.queues.items() if key[1] == name and q.size > q.freeing)

    def _make_room(self, cls: str, size: int) -> tuple["Outbox", list[Effect]]:
        """Ask for drops until the row fits. A fiftieth of the box goes at once, to spare the SD card."""
        box, effects = self, list[Effect]()
        missing = self.size + size - self.limit
        if missing <= 0 or size > self.limit:
            return box, effects
        missing = max(missing, self.limit // 50)
        for key, queue in self._victims(cls):
            take = min(missing, queue.size - queue.freeing)
            effects.append(DropRows(*key, take))
            box = _with(box, key, replace(queue, freeing=queue.freeing + take))
            missing -= take
            if missing <= 0:
                break
        return box, effects

    def gone(
        self, boot: str, cls: str, *, rows: int, size: int, up_to_seq: int, dropped: bool, asked: int = 0
    ) -> "Outbox":
        """Count rows that the store has deleted; an empty queue of an earlier boot is forgotten."""
        key = (boot, cls)
        queue = self.queues.get(key)
        if queue is None:
            return self
        left = replace(
            queue,
            rows=queue.rows - rows,
            size=queue.size - size,
            after_seq=max(queue.after_seq, up_to_seq),
            freeing=max(0, queue.freeing - asked),
        )
        box = _with(self, key, left)
        if dropped and rows:
            box = replace(box, dropped={**self.dropped, cls: self.dropped.get(cls, 0) + rows})
        if left.rows == 0 and boot != self.boot:
            box = replace(box, queues={k: q for k, q in box.queues.items() if k != key})
        return box

    def due(self, mono: float) -> tuple["Outbox", list[Effect]]:
        """Send what may go now: alarms before metrics, old boots before this one."""
        box, effects = self, list[Effect]()
        flying = sum(1 for q in self.queues.values() if q.is_flying(mono))
        for cls in reversed(CLASSES):
            for key, queue in self.queues.items():
                if key[1] == cls and queue.rows and not queue.is_flying(mono) and flying < MAX_IN_FLIGHT:
                    tries = 0 if queue.sent_at is None else queue.tries + 1
                    box = _with(box, key, replace(queue, sent_at=mono, tries=tries))
                    effects.append(SendBatch(*key, queue.after_seq))
                    flying += 1
        return box, effects

    def sent(self, boot: str, cls: str, up_to_seq: int) -> "Outbox":
        """A batch went out; with 0 none did, and the queue is free again."""
        queue = self.queues.get((boot, cls))
        if queue is None:
            return self
        if up_to_seq == 0:
            return _with(self, (boot, cls), replace(queue, sent_at=None))
        return _with(self, (boot, cls), replace(queue, sent_to=max(queue.sent_to, up_to_seq)))

    def acked(self, ack: TelemetryAck) -> tuple["Outbox", list[Effect]]:
        """The server has committed rows: let them go, but never more than was sent."""
        queue = self.queues.get((ack.boot, ack.cls))
        if queue is None:
            return self, []
        up_to = min(ack.up_to_seq, queue.sent_to)
        if up_to <= queue.after_seq:
            return self, []
        box = self
        if up_to == queue.sent_to:
            box = _with(self, (ack.boot, ack.cls), replace(queue, sent_at=None))
        return box, [RemoveRows(ack.boot, ack.cls, up_to)]

    def offline(self) -> "Outbox":
        """The link is gone: whatever was in flight may be lost, and is sent again on the next one."""
        return replace(self, queues={key: replace(q, sent_at=None) for key, q in self.queues.items()})

    def report(self) -> dict[str, Any]:
        """Return what the heartbeat says of the outbox."""
        return {"rows": self.rows, "bytes": self.size, "dropped": {k: v for k, v in self.dropped.items() if v}}


def _with(box: Outbox, key: Key, queue: Queue) -> Outbox:
    return replace(box, queues={**box.queues, key: queue})
