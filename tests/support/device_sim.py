# SPDX-License-Identifier: Apache-2.0
"""A device in memory: the real core, a disk that survives power cuts, a runner, a trust helper and a server.

Durable operations are counted; ``cut_before=k`` loses power before the k-th of them. What is not durable is lost.
"""

from collections import deque
from dataclasses import replace
from typing import Any

from edge_agent.core import agent
from edge_agent.core import effects as ef
from edge_agent.core import events as ev
from edge_agent.core.lane import Identity, Plan
from edge_agent.core.outbox import ROW_COST, Held
from edge_agent.core.state import State
from edge_agent.core.twin import Settings
from edge_contract import canonical
from edge_contract.counts import Counters, latency_bucket
from edge_contract.jobs import JobDocument, Signed
from edge_contract.messages import DesiredState
from tests.support.device_effects import Effects
from tests.support.device_world import FACES, FACES_NEW, NEW, NEWER, OLD, Behaviour, Disk, PowerCut, Server, job

__all__ = ["FACES", "FACES_NEW", "NEW", "NEWER", "OLD", "Behaviour", "Device", "Disk", "PowerCut", "Server", "job"]

_NAMES = {"old": OLD, "new": NEW, "newer": NEWER, "faces_old": FACES, "faces_new": FACES_NEW}


class Device(Effects):
    """One simulated device. Time is a number; ``run`` lets seconds pass.

    With ``faces`` it has a second lane, whose bundles have their own ids; else one lane for the model ``digits``.
    """

    def __init__(self, *, installed: str = OLD, faces: str = "", **bundles: Behaviour) -> None:
        self.bundles = {OLD: Behaviour("1.0.0"), NEW: Behaviour("2.0.0"), NEWER: Behaviour("3.0.0")}
        self.bundles.update({FACES: Behaviour("1.0.0"), FACES_NEW: Behaviour("2.0.0")})
        self.bundles.update({_NAMES[k]: b for k, b in bundles.items()})
        self.disk, self.server = Disk(), Server()
        if installed:
            self.disk.complete.add(installed)
            self.disk.pointers.update(active=installed, factory=installed)
        self.keys = ("digits", "faces") if faces else ("",)
        if faces:
            self.disk.complete.add(faces)
            self.disk.of("faces").update(active=faces, factory=faces)
        self.wall, self.boots, self.ops = 1_000_000.0, 0, 0
        self.cut_before: int | None = None
        self.online, self.has_source, self.flips_fail = True, True, False
        self.conditions, self.health, self.need_kb = ev.Conditions(), dict[str, Any](), 0
        self.fits = 2  # so many models at once; one more, and the kernel ends the runner
        self.hanging: set[str] = set()  # steps that never answer
        self.retained: dict[str, bytes] = {}
        self.forged: set[str] = set()
        self.checks = self.epoch = 0
        self.history: list[str] = []
        self.trace: list[ef.Effect] = []
        self.boot()

    # time and power

    def now(self) -> ev.Instant:
        return ev.Instant(self.wall, self.mono)

    def boot(self) -> None:
        """Start the process: everything volatile is new, the monotonic clock begins again."""
        self.boots += 1
        self.mono = 100.0
        self.pace = (0, "")
        self.later: deque[ev.Event] = deque()
        self.runners: dict[str, dict[str, Any] | None] = dict.fromkeys(self.keys)
        self.session, self.linked = 0, False
        me = Identity(
            device="pi",
            boot=f"boot{self.boots}",
            runtime="litert",
            agent_version="0",
            sources={"test": {"kind": "replay"}, "other": {"kind": "replay"}},
            defaults=Settings(source="test" if self.has_source else "", heartbeat_s=10.0),
            outbox_bytes=200_000,
        )
        left = Settings(source="other", heartbeat_s=10.0)
        plans = [Plan(key, key, "litert", left if key == "faces" else me.defaults) for key in self.keys if key]
        self.state: State = agent.initial(me, "digits", plans)
        held = tuple(
            Held(boot, cls, len(rows), sum(len(b) + ROW_COST for _, b in rows.values()), min(rows), max(rows))
            for (boot, cls), rows in self.disk.rows.items()
            if rows
        )
        journal = canonical.loads(self.disk.journal) if self.disk.journal else {}
        others = {key: self.slots(key) for key in self.keys[1:]}
        self._feed(ev.Booted(self.now(), "digits", self.slots(), journal, held, dict(self.disk.dropped), others))

    def power_cycle(self) -> None:
        """Lose power, and come back."""
        self.history.append("power")
        self.cut_before = None
        self.boot()

    def run(self, seconds: int) -> None:
        """Let time pass; a power cut that was planned happens, and the device boots again."""
        for _ in range(seconds):
            try:
                self._second()
            except PowerCut:
                self.power_cycle()

    def run_until(self, phase: str, limit: int = 30) -> None:
        """Handle one event after the other until the order stands in a phase."""
        for _ in range(limit * 200):
            if self.state.first.update.phase == phase:
                return
            if self.later:
                self.deliver()
            else:
                self.wall, self.mono = self.wall + 1, self.mono + 1
                self._infer()
                self._feed(ev.Tick(self.now(), self._sample(), self._others()))
        raise AssertionError(f"never in phase {phase}")

    def deliver(self) -> None:
        """Hand over the one event that waits longest."""
        self._feed(self.later.popleft())

    def _second(self) -> None:
        self.wall, self.mono = self.wall + 1, self.mono + 1
        if self.online != self.linked:
            self._link()
        self._drain()
        self._infer()
        self._feed(ev.Tick(self.now(), self._sample(), self._others()))
        self._drain()

    def _others(self) -> dict[str, ev.Sample]:
        return {key: self._sample(key) for key in self.keys[1:]}

    def _sample(self, key: str = "") -> ev.Sample:
        """The counter file: only numbers of inferences and their latency."""
        runner = self.runners[key or self.keys[0]]
        if runner is None or not runner["active"]:
            return ev.Sample(None, self.health, self.conditions)
        zero, n = Counters.zero(10), runner["n"]
        latency = [0] * len(zero.latency)
        latency[latency_bucket(self.bundles[runner["active"]].latency_us)] = n
        counted = replace(zero, n_infer=n, latency=tuple(latency))
        return ev.Sample((runner["epoch"], runner["active"], counted), self.health, self.conditions)

    def _drain(self) -> None:
        for _ in range(1000):
            if not self.later:
                return
            self._feed(self.later.popleft())
        raise AssertionError("the device never comes to rest")

    def _link(self) -> None:
        self.linked = self.online
        if not self.linked:
            self._feed(ev.Disconnected(self.now(), "test"))
            return
        self.session += 1
        self._feed(ev.Connected(self.now(), self.session))
        for channel, payload in self.retained.items():
            self.later.append(ev.Message(self.now(), channel, payload))

    # the server's side

    def order(self, document: JobDocument) -> None:
        """Publish an order, retained: on its model's channel, and the first model's on ``job/next``, too."""
        payload = Signed(document.to_bytes(), "key", "00").to_bytes()
        if self.keys != ("",):
            self.say(f"job/next/{document.model}", payload)
        if document.model in (self.keys[0], "digits") or self.keys == ("",):
            self.say("job/next", payload)

    def want(self, version: int, **config: Any) -> None:
        self.say("twin/desired", DesiredState(version, {}, config).to_bytes())

    def say(self, channel: str, payload: bytes) -> None:
        self.retained[channel] = payload
        if self.linked:
            self.later.append(ev.Message(self.now(), channel, payload))

    def status(self, job_id: str = "j1") -> str:
        found = self.server.statuses.get(job_id)
        return found.status.value if found else ""

    # the disk

    def slots(self, model: str = "digits") -> ev.Slots:
        found = {name: b if b in self.disk.complete else "" for name, b in self.disk.of(model).items()}
        versions = {b: self.bundles[b].version for b in found.values() if b}
        return ev.Slots(found["active"], found["standby"], found["factory"], versions)

    @property
    def active(self) -> str:
        return self.disk.pointers["active"]

    def _durable(self, what: str) -> None:
        if self.cut_before is not None and self.ops >= self.cut_before:
            raise PowerCut(what)
        self.ops += 1
        self.history.append(what)

    def _feed(self, event: ev.Event) -> None:
        waiting = deque([event])
        while waiting:
            self.state, effects = agent.handle(self.state, waiting.popleft())
            for effect in effects:
                self.trace.append(effect)
                waiting.extend(getattr(self, f"_on_{type(effect).__name__}")(effect) or [])
