# SPDX-License-Identifier: Apache-2.0
"""A device whose disk is real: the real core, performer, installer, slots, journal and outbox, in one thread.

Time is a number and worker threads are a queue, so that the same story makes the same durable operations each time.
What the server has heard is told to ``World.said``: it must be true after any crash.
"""

import json
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.adapters import performer
from edge_agent.adapters.download import Throttle
from edge_agent.adapters.install import Installer
from edge_agent.adapters.slots import SlotStore
from edge_agent.adapters.store import Journal, OutboxStore
from edge_agent.core import agent
from edge_agent.core import events as ev
from edge_agent.core.lane import Identity, Plan
from edge_agent.core.settings import Settings
from edge_agent.core.state import State
from edge_contract.batches import TelemetryAck, decode_batch
from edge_contract.jobs import JobStatus
from edge_contract.states import TERMINAL_STATUS
from tests.edge_agent.crash.outside import MODEL, RUNTIME, Guest, Signer, World, envelope

PATIENCE_S = 400


class Inline:
    """A worker without a thread: its tasks wait in the rig's one queue."""

    def __init__(self, _name: str, tasks: deque[Callable[[], None]]) -> None:
        self._tasks = tasks

    def do(self, task: Callable[[], None]) -> None:
        self._tasks.append(task)

    def close(self) -> None:
        """Nothing to end."""


@dataclass
class LaneParts:
    """One lane's adapters, as the performer wants them."""

    runner: Any
    installer: Installer
    plan: Plan

    def start(self, spare_of: Path | None = None) -> None:
        del spare_of  # this runner needs no accelerator
        self.runner.start()

    def re_enumerate(self) -> None:
        """Nothing to find anew."""


class Rig:
    """One start of the device's process over a data folder.

    ``boot`` is a number that no earlier start of this folder had.
    """

    def __init__(self, data: Path, world: World, boot: int = 1) -> None:
        self.data, self.world, self.boot = data, world, f"{boot:016x}"
        self.wall, self.mono = 1_000_000.0 + 1000 * boot, 100.0
        self.later: deque[ev.Event] = deque()
        self.tasks: deque[Callable[[], None]] = deque()
        self.acks: deque[tuple[float, ev.Event]] = deque()
        self.trouble: list[str] = []
        self.slots, self.journal = SlotStore(data / "models"), Journal(data / "journal.json")
        self.outbox = OutboxStore(data / "outbox.db")
        signer: Any = Signer(world.manifests)
        throttle = Throttle()
        installer = Installer(self.slots, signer, world.url, RUNTIME, lambda: None, throttle=throttle)
        self.runner = Guest(self.later.append, self.now, world.bad)
        settings = Settings(source="test", heartbeat_s=10.0)
        plan = Plan("", MODEL, RUNTIME, settings)
        parts: Any = LaneParts(self.runner, installer, plan)
        self._patch()
        rim = performer.Rim(
            slots=self.slots,
            journal=self.journal,
            outbox=self.outbox,
            lanes={"": parts},
            throttle=throttle,
            trust=signer,
            publish=self._publish,
            post=self.later.append,
            log=self._log,
        )
        self.performer = performer.Performer(rim, "pi")
        me = Identity("pi", self.boot, RUNTIME, "0", sources={"test": {"kind": "replay"}}, defaults=settings)
        self.state: State = agent.initial(me, plans=[plan])

    def _patch(self) -> None:
        """Time and threads are ours; this process does nothing else."""
        performer.clock.now = self.now  # type: ignore[attr-defined]
        workers: Any = lambda name: Inline(name, self.tasks)  # noqa: E731
        performer.Worker = workers  # type: ignore[misc]
        performer.PERSIST_PAUSE_S = 0.0  # type: ignore[misc]

    def now(self) -> ev.Instant:
        return ev.Instant(self.wall, self.mono)

    def _log(self, level: str, text: str) -> None:
        if level == "error":
            self.trouble.append(text)

    def _publish(self, channel: str, payload: bytes, *, retain: bool = False, token: str = "") -> bool:
        del retain
        if channel.startswith("tm/"):
            self._take(channel, payload)
        elif channel.startswith("job/"):
            self._hear(JobStatus.from_bytes(payload))
        if token:
            self.later.append(ev.Published(self.now(), token))
        return True

    def _hear(self, status: JobStatus) -> None:
        known = self.world.heard.get(status.job_id, "")
        if status.status in TERMINAL_STATUS:
            assert known in ("", status.status.value), f"{status.job_id}: first {known}, then {status.status.value}"
            self.world.heard[status.job_id] = status.status.value
            self.world.said(
                json.dumps({"ended": status.job_id, "status": status.status.value, "reason": status.reason})
            )

    def _take(self, channel: str, payload: bytes) -> None:
        """The server takes rows, and says so later."""
        batch = decode_batch(payload)
        if channel == "tm/alarm":
            self.world.alarms += [row.body["kind"] for row in batch.rows]
        if self.world.acks:
            ack = TelemetryAck(batch.boot, batch.cls, batch.rows[-1].seq)
            self.acks.append((self.mono + 2, ev.Message(self.now(), "tm/ack", ack.to_bytes())))

    def _acknowledge(self) -> None:
        """Hand over the acks that are due; from now on their rows need not be on the disk."""
        while self.acks and self.acks[0][0] <= self.mono:
            event = self.acks.popleft()[1]
            assert isinstance(event, ev.Message)
            ack = TelemetryAck.from_bytes(event.payload)
            self.world.said(json.dumps({"acked": [ack.boot, ack.cls, ack.up_to_seq]}))
            self.later.append(event)

    def begin(self) -> None:
        """Take up what the disk remembers, as ``App.begin`` does, and connect."""
        remembered, slots = self.journal.read(), self.slots.read(MODEL)
        self.feed(ev.Booted(self.now(), MODEL, slots, remembered, self.outbox.held(), self.outbox.dropped()))
        self.feed(ev.Connected(self.now(), 1))

    def feed(self, event: ev.Event) -> None:
        """As ``App.feed``, but a fault of the core is a fault of the test."""
        waiting = deque([event])
        while waiting:
            self.state, effects = agent.handle(self.state, waiting.popleft())
            for effect in effects:
                waiting.extend(self.performer.perform(effect))

    def second(self) -> None:
        """Let a second pass: what waits, then the clock, then the disk of the outbox."""
        self.wall, self.mono = self.wall + 1, self.mono + 1
        self.runner.infer()
        self._acknowledge()
        self._settle()
        self.feed(ev.Tick(self.now(), ev.Sample()))
        self._settle()
        self._commit()

    def _settle(self) -> None:
        while self.later or self.tasks:
            if self.later:
                self.feed(self.later.popleft())
            else:
                self.tasks.popleft()()

    def _commit(self) -> None:
        before = self.outbox.due
        gone = self.outbox.commit_if_due(self.mono)
        for boot, cls, rows, size, up_to in gone:
            self.feed(ev.RowsGone(self.now(), boot, cls, rows, size, up_to, dropped=True))
        if before <= self.mono and self.outbox.due == float("inf"):
            self.world.said(json.dumps({"committed": rows_of(self.outbox)}))

    def last_order(self) -> int:
        """Return the number of the newest order that the device knows, by its journal."""
        return int((self.state.first.update.last_job or "j0")[1:])

    def run(self) -> None:
        """Go through all orders to the end of the last one."""
        self.begin()
        for _ in range(PATIENCE_S):
            self.second()
            if self.state.first.update.execution is None:
                number = self.last_order() + 1
                if number > len(self.world.orders):
                    break
                self.feed(ev.Message(self.now(), "job/next", envelope(self.world.order(number))))
        else:
            raise AssertionError(f"no end: {self.state.first.update.phase}, {self.trouble[-3:]}")
        for _ in range(3):  # the old slots are deleted, the last rows committed
            self.second()

    def close(self) -> None:
        self.performer.close()
        self.outbox.close(self.mono)


def rows_of(outbox: OutboxStore) -> list[list[Any]]:
    """Return boot, class, number and checksum of each row on the disk."""
    query = "SELECT boots.boot, cls, seq, body FROM rows JOIN boots ON boots.no = rows.boot"
    return [[boot, cls, seq, zlib.crc32(body)] for boot, cls, seq, body in outbox._db.execute(query)]
