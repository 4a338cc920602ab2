# SPDX-License-Identifier: Apache-2.0
"""A device in memory: the real core, a disk that survives power cuts, a runner, a trust helper and a server.

Durable operations are counted; ``cut_before=k`` loses power before the k-th of them. What is not durable is lost.
"""

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from edge_agent.core import agent
from edge_agent.core import effects as ef
from edge_agent.core import events as ev
from edge_agent.core.lane import Identity, Plan
from edge_agent.core.outbox import ROW_COST, Held
from edge_agent.core.state import State
from edge_agent.core.twin import Settings
from edge_contract import canonical
from edge_contract.batches import TelemetryAck, TelemetryRow
from edge_contract.counts import Counters, latency_bucket
from edge_contract.errors import ContractError
from edge_contract.jobs import JobDocument, JobStatus, Probation, Signed
from edge_contract.messages import DesiredState, ReportedState
from edge_contract.states import TERMINAL_STATUS

OLD, NEW, NEWER = "a" * 64, "b" * 64, "c" * 64
FACES, FACES_NEW = "d" * 64, "e" * 64
_NAMES = {"old": OLD, "new": NEW, "newer": NEWER, "faces_old": FACES, "faces_new": FACES_NEW}


class PowerCut(BaseException):
    """The power fails before a durable operation."""


@dataclass(frozen=True)
class Behaviour:
    """How a bundle behaves in the runner."""

    version: str = "1.0.0"
    loads: bool = True
    crashes_on_load: bool = False
    crash_after: int = 0  # inferences
    agreement: float = 1.0
    error_rate: float = 0.0
    latency_us: float = 100.0


@dataclass
class Disk:
    """What survives."""

    journal: bytes = b""
    models: dict[str, dict[str, str]] = field(default_factory=dict)
    complete: set[str] = field(default_factory=set)
    rows: dict[tuple[str, str], dict[int, tuple[float, bytes]]] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    def of(self, model: str) -> dict[str, str]:
        """The pointers of a model."""
        return self.models.setdefault(model, {"active": "", "standby": "", "factory": ""})

    @property
    def pointers(self) -> dict[str, str]:
        """Those of the first model."""
        return self.of("digits")


@dataclass
class Server:
    """What the server has heard."""

    statuses: dict[str, JobStatus] = field(default_factory=dict)
    rows: dict[tuple[str, str], dict[int, dict[str, Any]]] = field(default_factory=dict)
    reported: ReportedState | None = None
    said: list[tuple[str, bytes]] = field(default_factory=list)

    def hear(self, channel: str, payload: bytes) -> None:
        self.said.append((channel, payload))
        if channel.startswith("job/"):
            status = JobStatus.from_bytes(payload)
            known = self.statuses.get(status.job_id)
            if known is None or (status.seq >= known.seq and known.status not in TERMINAL_STATUS):
                self.statuses[status.job_id] = status
        if channel == "twin/reported":
            self.reported = ReportedState.from_bytes(payload)

    def bodies(self, cls: str) -> list[dict[str, Any]]:
        return [body for (_, name), rows in self.rows.items() if name == cls for body in rows.values()]


def job(job_id: str = "j1", bundle: str = NEW, **changes: Any) -> JobDocument:
    probation = changes.pop("probation", Probation(inferences=100, timeout_s=60.0))
    order = JobDocument(
        job_id=job_id,
        device="pi",
        rollout="r1",
        kind="install",
        model="digits",
        version="2.0.0",
        bundle=bundle,
        issued_at=1000.0,
        expires_at=1e9,
        timeout_s=600.0,
        probation=probation,
    )
    return replace(order, **changes)


class Device:
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

    # the rim

    def _feed(self, event: ev.Event) -> None:
        waiting = deque([event])
        while waiting:
            self.state, effects = agent.handle(self.state, waiting.popleft())
            for effect in effects:
                self.trace.append(effect)
                waiting.extend(getattr(self, f"_on_{type(effect).__name__}")(effect) or [])

    def _on_Persist(self, effect: ef.Persist) -> None:
        data = canonical.dumps(effect.journal)
        execution = effect.journal["update"]["execution"]
        self._durable(f"journal:{execution['phase'] if execution else '-'}")
        self.disk.journal = data

    def _on_FlipSlots(self, effect: ef.FlipSlots) -> list[ev.Event]:
        if self.flips_fail:
            return [ev.Flipped(self.now(), self.slots(effect.model), "disk error", lane=effect.lane)]
        for pointer, bundle in (("standby", effect.standby), ("active", effect.active)):
            assert not bundle or bundle in self.disk.complete, "a pointer to nothing complete"
            self._durable(f"{pointer}:{bundle[:1]}")
            self.disk.of(effect.model)[pointer] = bundle
        return [ev.Flipped(self.now(), self.slots(effect.model), lane=effect.lane)]

    def _on_Forget(self, effect: ef.Forget) -> None:
        self._durable("forget")
        ours = {FACES, FACES_NEW} if effect.model == "faces" else {OLD, NEW, NEWER}
        self.disk.complete -= ours - {*self.disk.of(effect.model).values(), *effect.keep}

    def _on_RunStep(self, effect: ef.RunStep) -> None:
        order, step = effect.job, effect.step
        if step in self.hanging:
            return
        if step in ("preflight", "download") and not self.linked:
            self.later.append(ev.StepFailed(self.now(), order.job_id, step, "no network", may_retry=True))
            return
        if step == "verify":
            self._durable("publish")
            self.disk.complete.add(order.bundle)
        pointers = self.disk.of(order.model)
        if step == "commit" and not pointers["factory"]:
            self._durable("pin")
            pointers["factory"] = pointers["active"]
        if step == "download":
            self.later.append(ev.Progress(self.now(), order.job_id, 5, 10))
        if step == "download" and self.pace[1]:
            self.later.append(ev.StepFailed(self.now(), order.job_id, step, self.pace[1], may_retry=True))
            return
        slots = self.slots(order.model) if step != "download" else None
        self.later.append(ev.StepDone(self.now(), order.job_id, step, slots, self.need_kb if step == "verify" else 0))

    def _on_SetPace(self, effect: ef.SetPace) -> None:
        self.pace = (effect.kbps, effect.held)

    def _on_AbortStep(self, effect: ef.AbortStep) -> None:
        def is_of(event: ev.Event) -> bool:
            return isinstance(event, (ev.StepDone, ev.StepFailed)) and event.job_id == effect.job_id

        self.later = deque(event for event in self.later if not is_of(event))

    def _on_CheckJob(self, effect: ef.CheckJob) -> None:
        self.checks += 1
        if effect.envelope in self.forged:
            self.later.append(ev.JobRefused(self.now(), effect.envelope, "signed by nobody"))
            return
        try:
            document = JobDocument.from_bytes(Signed.from_bytes(effect.payload).payload)
        except ContractError as error:
            self.later.append(ev.JobRefused(self.now(), effect.envelope, str(error)))
            return
        self.later.append(ev.JobChecked(self.now(), effect.envelope, document))

    def _on_ReadProfile(self, effect: ef.ReadProfile) -> list[ev.Event]:
        return [ev.ProfileRead(self.now(), effect.bundle, None, lane=effect.lane)]

    def _on_Publish(self, effect: ef.Publish) -> None:
        if not self.linked:
            return
        self.server.hear(effect.channel, effect.payload)
        if effect.token:
            self.later.append(ev.Published(self.now(), effect.token))

    def _on_Log(self, effect: ef.Log) -> None:
        self.history.append(effect.text)

    # the runner

    @property
    def runner(self) -> dict[str, Any] | None:
        """The first model's runner."""
        return self.runners[self.keys[0]]

    def _on_StartRunner(self, effect: ef.StartRunner) -> None:
        assert self.runners[effect.lane] is None, "one runner at a time"
        self.runners[effect.lane] = {"active": "", "shadow": "", "source": "", "n": 0, "compared": 0, "first": 0}
        self._say({"event": "ready", "runtime": "litert", "runtime_version": "2.3.0", "pid": 7}, effect.lane)

    def _on_StopRunner(self, effect: ef.StopRunner) -> None:
        self.end_runner(0, effect.lane)

    def _on_ReEnumerate(self, effect: ef.ReEnumerate) -> None:
        if "re_enumerate" not in self.hanging:
            self.later.append(ev.ReEnumerated(self.now(), lane=effect.lane))

    def end_runner(self, code: int = -11, key: str = "") -> None:
        key = key or self.keys[0]
        if self.runners[key] is not None:
            self.runners[key] = None
            self.later = deque(e for e in self.later if not (isinstance(e, ev.RunnerSaid) and e.lane == key))
            self.later.append(ev.RunnerExited(self.now(), code, lane=key))

    def _say(self, words: dict[str, Any], key: str) -> None:
        self.later.append(ev.RunnerSaid(self.now(), words, lane=key))

    def _on_Command(self, effect: ef.Command) -> None:
        words, runner = effect.words, self.runners[effect.lane]
        if runner is None:
            return
        if words["cmd"] == "unload":
            runner["shadow"] = ""
        elif words["cmd"] == "source":
            runner["source"] = words["name"]
            self._say({"event": "source", "name": words["name"]}, effect.lane)
        elif words["cmd"] == "load":
            self._load(words["role"], effect.bundle, effect.lane)

    def _load(self, role: str, bundle: str, key: str) -> None:
        runner, how = self.runners[key], self.bundles[bundle]
        assert runner is not None
        held = [name for name in (runner["active"], runner["shadow"]) if name]
        self.history.append(f"load {role}:{bundle[:1]} beside {len(held)}")
        if len(held) + 1 > self.fits:
            self.end_runner(-9, key)
        elif how.crashes_on_load:
            self.end_runner(-11, key)
        elif not how.loads:
            reason = "golden self-test failed"
            self._say({"event": "load_failed", "role": role, "bundle": bundle, "reason": reason}, key)
        else:
            runner.update({role: bundle, "compared": 0})
            if role == "active":
                self.epoch += 1
                runner.update(n=0, epoch=self.epoch)
            words = {"event": "loaded", "role": role, "bundle": bundle, "version": how.version, "golden": "exact"}
            self._say(words, key)

    def _infer(self) -> None:
        """Twenty inputs a second for each model."""
        for key, runner in list(self.runners.items()):
            if runner is not None and runner["active"] and runner["source"]:
                self._answer(key, runner)

    def _answer(self, key: str, runner: dict[str, Any]) -> None:
        how = self.bundles[runner["active"]]
        errors = round(20 * how.error_rate)
        for _ in range(errors):
            self._say({"event": "error", "bundle": runner["active"], "reason": "NaN"}, key)
        rows = [[f"test:{i}", 1, 0.5] for i in range(20 - errors)]
        self._say({"event": "results", "bundle": runner["active"], "first": runner["first"], "rows": rows}, key)
        runner["first"] += len(rows)
        runner["n"] += 20
        if runner["shadow"]:
            runner["compared"] += len(rows)
            n, other = runner["compared"], self.bundles[runner["shadow"]]
            agree = round(n * min(how.agreement, other.agreement))
            self._say({"event": "shadow", "bundle": runner["shadow"], "n": n, "agree": agree, "errors": 0}, key)
        if how.crash_after and runner["n"] >= how.crash_after:
            self.end_runner(-11, key)

    # the outbox

    def _on_KeepRow(self, effect: ef.KeepRow) -> None:
        queue = self.disk.rows.setdefault((effect.boot, effect.cls), {})
        assert effect.seq not in queue, "a sequence number twice"
        queue[effect.seq] = (effect.time, effect.body)

    def _gone(self, boot: str, cls: str, seqs: list[int], *, dropped: bool, asked: int = 0) -> list[ev.Event]:
        queue = self.disk.rows.get((boot, cls), {})
        size = sum(len(queue.pop(seq)[1]) + ROW_COST for seq in seqs)
        last = max(seqs, default=0)
        if dropped:
            self.disk.dropped[cls] = self.disk.dropped.get(cls, 0) + len(seqs)
        return [ev.RowsGone(self.now(), boot, cls, len(seqs), size, last, dropped=dropped, asked=asked)]

    def _on_RemoveRows(self, effect: ef.RemoveRows) -> list[ev.Event]:
        queue = self.disk.rows.get((effect.boot, effect.cls), {})
        return self._gone(effect.boot, effect.cls, [s for s in queue if s <= effect.up_to_seq], dropped=False)

    def _on_DropRows(self, effect: ef.DropRows) -> list[ev.Event]:
        queue, seqs, freed = self.disk.rows.get((effect.boot, effect.cls), {}), [], 0
        for seq in sorted(queue):
            if freed >= effect.size:
                break
            freed += len(queue[seq][1]) + ROW_COST
            seqs.append(seq)
        return self._gone(effect.boot, effect.cls, seqs, dropped=True, asked=effect.size)

    def _on_CountLost(self, effect: ef.CountLost) -> None:
        self.disk.dropped[effect.cls] = self.disk.dropped.get(effect.cls, 0) + 1

    def _on_SendBatch(self, effect: ef.SendBatch) -> list[ev.Event]:
        queue = self.disk.rows.get((effect.boot, effect.cls), {})
        if not queue or not self.linked:
            return [ev.BatchSent(self.now(), effect.boot, effect.cls, 0)]
        rows = [TelemetryRow(seq, *queue[seq]) for seq in sorted(queue)]  # type: ignore[arg-type]
        assert rows[0].seq > effect.after_seq
        heard = self.server.rows.setdefault((effect.boot, effect.cls), {})
        heard.update({row.seq: canonical.loads(row.body) for row in rows})  # type: ignore[arg-type]
        ack = TelemetryAck(effect.boot, effect.cls, rows[-1].seq).to_bytes()
        self.later.append(ev.Message(self.now(), "tm/ack", ack))
        return [ev.BatchSent(self.now(), effect.boot, effect.cls, rows[-1].seq)]
