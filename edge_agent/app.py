# SPDX-License-Identifier: Apache-2.0
"""The control process: the only place that wires core and rim, and its one loop.

Events wait in one queue; ``App.feed`` gives each to the core and carries out what it asks, in order. What takes
long (downloads, the trust helper) runs in worker threads that only put events into the queue. Standard
library and paho: no numpy, no runtime, no typer.
"""

import os
import queue
import random
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge_agent.adapters import board, clock, conditions, reporter, tls
from edge_agent.adapters.caretaker import Caretaker
from edge_agent.adapters.download import Throttle
from edge_agent.adapters.guard import GuardedJournal, StorageGuard
from edge_agent.adapters.install import Installer
from edge_agent.adapters.log import LogFile
from edge_agent.adapters.mqtt import Link, Listener, Whose, parse_address
from edge_agent.adapters.notify import Notifier
from edge_agent.adapters.performer import Performer, Rim
from edge_agent.adapters.sensors import Sensors
from edge_agent.adapters.slots import SlotStore
from edge_agent.adapters.store import OutboxStore
from edge_agent.adapters.trust import TrustHelper
from edge_agent.bench.opening import open_bench
from edge_agent.capture.courier import Courier
from edge_agent.config import AGENT_VERSION, AgentConfig
from edge_agent.core import agent, policy
from edge_agent.core import events as ev
from edge_agent.core.commands import key_of
from edge_agent.core.echo import Echo
from edge_agent.core.lane import Identity
from edge_agent.core.state import State
from edge_agent.lanes_config import LaneConfig
from edge_agent.wiring import open_lane
from edge_contract.errors import StoreError
from edge_contract.states import Phase

if TYPE_CHECKING:
    from edge_agent.software.install import ReleaseInstaller
    from edge_agent.software.parts import SoftwareParts
    from edge_agent.software.store import ReleaseStore

__all__ = ["App"]

TICK_S: Final = 1.0


class App:
    """One agent over one data folder.

    Args:
        data: The data folder.
        config: Its configuration.
        log: Where lines go.
    """

    def __init__(self, data: Path, config: AgentConfig, log: LogFile) -> None:
        self.data, self.config, self.log = data, config, log
        self.inbox: queue.SimpleQueue[ev.Event] = queue.SimpleQueue()
        self.boot = clock.new_boot_id()
        self.slots = SlotStore(data / "models")
        self.notifier, self.guard, self.sensors = Notifier(), StorageGuard(data, config.storage), Sensors()
        self.journal = GuardedJournal(data / "journal.json", self._disk_refused)
        self.outbox = OutboxStore(data / "outbox.db")
        self.commands: dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {}
        self.throttle, self._turn = Throttle(), threading.Lock()
        self.lanes = {own.key: open_lane(data, own, self._installer(own), self.inbox.put) for own in config.lanes}
        self.link, self.echo = self._link(), Echo()
        self.software = self._software()
        if self.link is not None:
            self.commands.update(reporter.commands(data, self.link.publish))
            self.commands["captures"] = lambda body: self.courier.nudge(body)  # noqa: PLW0108 - it is made below
        self.bench = open_bench(self, self._context, self._turn)
        rim = Rim(
            slots=self.slots,
            journal=self.journal,
            outbox=self.outbox,
            lanes=self.lanes,
            throttle=self.throttle,
            trust=TrustHelper(data),
            publish=self.link.publish if self.link else None,
            post=self.inbox.put,
            log=log.write,
            commands=self.commands,
            software=self.software,
        )
        self._performer = Performer(rim, config.device)
        self.state: State = agent.initial(self._identity(), plans=[lane.plan for lane in self.lanes.values()])
        self.caretaker = Caretaker(data, config.device, TrustHelper(data), log.write)
        self.courier = self._courier()
        self._is_stopping = False
        self._link_text = ""

    def _identity(self) -> Identity:
        config = self.config
        return Identity(
            device=config.device,
            boot=self.boot,
            runtime=config.runtime,
            agent_version=AGENT_VERSION,
            board=board.facts(),
            sources=config.sources,
            defaults=config.settings,
            outbox_bytes=config.outbox_bytes,
            commands=tuple(self.commands),
            allows_captures=config.capture,
        )

    def _courier(self) -> Courier:
        """The state is a value, so another thread may read the newest one."""

        def may_send() -> bool:
            state, sample = self.state, self.state.first.sample
            is_free = not policy.pace(state.settings, replace(sample.conditions, storage="")).held  # it makes room
            return is_free and policy.gate(Phase.STAGED, state.settings, sample, clock.now()) is None

        def is_drifted() -> bool:
            found = [lane.windows.drift for lane in self.state.lanes.values()]
            return any(drift is not None and drift.is_alarmed for drift in found)

        helper, log = TrustHelper(self.data), self.log.write
        wishes = {"allowed": self.config.capture, "may_send": may_send, "is_drifted": is_drifted}
        return Courier(self.data, self.config.device, helper, log, **wishes)  # type: ignore[arg-type]

    def _context(self) -> Any:
        return tls.device_context(self.data / "identity") if self.config.tls else None

    def _installer(self, own: LaneConfig) -> Installer:
        trust, url = TrustHelper(self.data), self.config.device_url
        ours = (self.slots, trust, url, own.runtime, self._context)
        return Installer(*ours, throttle=self.throttle, turn=self._turn)

    def _software(self) -> "SoftwareParts | None":
        """Without a launcher nothing of it is loaded."""
        if "STROP_LAUNCHER" not in os.environ:
            return None
        from edge_agent.software.parts import open_parts

        return open_parts(self.data, self._release_installer, self.inbox.put)

    def _release_installer(self, python: str, store: "ReleaseStore") -> "ReleaseInstaller":
        from edge_agent.software.install import ReleaseInstaller  # with the first order

        ours = {"data": self.data, "python": python, "limits": self.config.storage}
        shared = (store, TrustHelper(self.data), self.config.device_url, self._context)
        return ReleaseInstaller(*shared, **ours, throttle=self.throttle, turn=self._turn)  # type: ignore[arg-type]

    def _link(self) -> Link | None:
        config = self.config
        if not config.broker:
            return None
        host, port = parse_address(config.broker)
        hear = Listener(
            lambda session: self.inbox.put(ev.Connected(clock.now(), session)),
            lambda reason: self.inbox.put(ev.Disconnected(clock.now(), reason)),
            lambda channel, payload: self.inbox.put(ev.Message(clock.now(), channel, payload)),
            lambda token: self.inbox.put(ev.Published(clock.now(), token)),
        )
        whose = Whose(config.tenant, config.device, self.boot)
        return Link(whose, (host, port), self._context, hear, cap_s=config.reconnect_max_s)

    def begin(self) -> None:
        """Take up what the disk remembers, and start the link."""
        remembered = self.journal.read()
        on_disk = self.slots.models()
        model = self.config.model or str(remembered.get("model", "")) or (on_disk[0] if len(on_disk) == 1 else "")
        found = (model, self.slots.read(model), remembered, self.outbox.held(), self.outbox.dropped())
        others = {own.key: self.slots.read(own.model) for own in self.config.lanes[1:]}
        told = self.software.told if self.software else None
        self._boot(ev.Booted(clock.now(), *found, others, told))
        if self.link is not None:
            self.link.start()
        self.caretaker.start()
        self.courier.start()
        if self.bench:
            self.bench.start()
        self.notifier.ready("starting to connect" if self.link else "no server; infers and keeps its telemetry")
        self.log.write(
            "info", f"ready device={self.config.device} boot={self.boot} active={self.state.first.slots.active[:16]}"
        )

    def _boot(self, event: ev.Booted) -> None:
        """Begin; while the disk refuses the journal, with inference alone. Raises StoreError after five minutes."""
        before, self._performer.is_patient = self.state, False
        try:
            self.feed(event)
            return
        except StoreError:
            if self._performer.is_patient:  # it was written once, and refused later: that was waited for
                raise
        from edge_agent.alone import Alone  # on a bad day only

        self.log.write("error", "the disk refuses the journal: the model answers, and nothing else begins")
        self.state, self._performer.is_patient = before, True
        alone = Alone(agent.handle(before, event)[0].lanes, self._performer.perform, self.inbox)
        alone.until_written(self.journal, event.journal, self.notifier.alive)
        self.feed(replace(event, at=clock.now(), runners=alone.runners))
        for said in alone.heard:
            self.feed(said)

    def feed(self, event: ev.Event) -> None:
        """Give one event to the core and carry out what it asks; answers at once go before other events.

        A fault of the core costs the event that met it: its state is a value, so it stands as it was before.
        """
        waiting = deque([event])
        while waiting:
            one = waiting.popleft()
            try:
                self.state, effects = agent.handle(self.state, one)
            except Exception:
                if isinstance(one, ev.Booted):
                    raise  # there is no state from before to go on with
                self.log.write("error", f"{type(one).__name__} is dropped: {traceback.format_exc(limit=-3)}")
                if isinstance(one, ev.Message):
                    reason = traceback.format_exc(limit=0).strip()
                    waiting.append(ev.HandlerFailed(one.at, key_of(one.channel, one.payload), reason))
                continue
            for effect in effects:
                waiting.extend(self._performer.perform(effect))

    def loop(self) -> None:
        """Handle events until a stop was asked for."""
        next_tick = clock.now().mono
        while not self._is_stopping:
            now = clock.now()
            self.notifier.alive(now.mono)
            if now.mono >= next_tick:
                if self.software:
                    self.software.alive(now.mono)
                self._tick(now)
                next_tick = now.mono + TICK_S
            self._commit(now)
            try:
                until = min(next_tick, self.outbox.due)
                event = self.inbox.get(timeout=max(0.001, until - clock.now().mono))
            except queue.Empty:
                continue
            self._hear(event)
            self._is_stopping = isinstance(event, ev.Stopping)
            self.feed(event)

    def _hear(self, event: ev.Event) -> None:
        """Say once that the link is up or why it is down; a device may be offline for months."""
        if isinstance(event, ev.Message):
            self.echo.heard(event.at.mono)
        if isinstance(event, (ev.Connected, ev.Disconnected)):
            text = "online" if isinstance(event, ev.Connected) else f"offline: {event.reason}"
            if text != self._link_text:
                self.log.write("info", text)
                self.notifier.status(text)
            self._link_text = text

    def _tick(self, now: ev.Instant) -> None:
        ours = [lane.runner.pid for lane in self.lanes.values() if lane.config.runner == "process"]
        self.guard.look(now.mono, filter(None, ours))
        seen = conditions.read(self.config.watched, now.wall)
        held = self.bench.held if self.bench else ""
        seen = replace(seen, storage=self.guard.low, written=self.guard.over, benchmark=held)
        health = {**board.health(self.data), **self.sensors.read(), **self.guard.facts}
        first, *others = self.lanes.values()
        samples = {lane.config.key: lane.sample(seen, {}) for lane in others}
        self.feed(ev.Tick(now, first.sample(seen, health), samples))
        for lane in self.lanes.values():
            lane.runner.watch(now.mono)
        if self.bench:
            self.bench.tend([lane.runner for lane in self.lanes.values()])
        waits = self.state.is_connected and self.state.outbox.rows > 0
        if self.link and self.echo.is_dead(now.mono, waits=waits, share=random.random()):
            self.link.renew("nothing came back from the server for minutes: building a new connection")

    def _disk_refused(self) -> bool:
        """The journal cannot be written: give up the reserve. Waiting for room is no hang of the loop."""
        self.notifier.alive(clock.now().mono)
        return self.guard.give_up()

    def _commit(self, now: ev.Instant) -> None:
        """Bring rows to the disk that have waited long enough; a disk that refuses costs the least important ones."""
        for boot, cls, rows, size, up_to in self.outbox.commit_if_due(now.mono):
            self.feed(ev.RowsGone(now, boot, cls, rows, size, up_to, dropped=True))

    def stop(self) -> None:
        """Ask the loop to end; may be called from a signal handler."""
        self.inbox.put(ev.Stopping(clock.now()))

    def end(self) -> None:
        """Let go of everything, in order."""
        self.notifier.stopping()
        self._performer.close()
        self.caretaker.stop()
        self.courier.stop()
        if self.bench:
            self.bench.stop()
        if self.link is not None:
            self.link.stop()
        for lane in self.lanes.values():
            lane.runner.wait(2.0)
        self.outbox.close(clock.now().mono)
        self.log.write("info", "stopped")
