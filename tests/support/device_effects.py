# SPDX-License-Identifier: Apache-2.0
"""How a simulated device carries out what the core asks: journal, slots, steps, runner and outbox in memory."""

from collections import deque
from collections.abc import Callable
from typing import Any

from edge_agent.core import effects as ef
from edge_agent.core import events as ev
from edge_agent.core.outbox import ROW_COST
from edge_contract import canonical
from edge_contract.batches import TelemetryAck, TelemetryRow
from edge_contract.errors import ContractError
from edge_contract.jobs import JobDocument, Signed
from tests.support.device_world import FACES, FACES_NEW, NEW, NEWER, OLD, Behaviour, Disk, Server


class Effects:
    """One method for each effect, ``_on_`` and its name; made whole by ``device_sim.Device``."""

    disk: Disk
    server: Server
    bundles: dict[str, Behaviour]
    keys: tuple[str, ...]
    later: deque[ev.Event]
    runners: dict[str, dict[str, Any] | None]
    pace: tuple[int, str]
    hanging: set[str]
    forged: set[str]
    history: list[str]
    flips_fail: bool
    linked: bool
    need_kb: int
    fits: int
    checks: int
    epoch: int
    now: Callable[[], ev.Instant]
    slots: Callable[..., ev.Slots]
    _durable: Callable[[str], None]

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
