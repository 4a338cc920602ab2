# SPDX-License-Identifier: Apache-2.0
"""A device in memory that can update itself: the real core, and a launcher that keeps its record on the same disk.

A release is a behaviour. Leaving the process is a boot by the launcher; so is a crash and a power cut.
"""

from dataclasses import dataclass, field
from typing import Any

from edge_agent.core import effects as ef
from edge_agent.core import events as ev
from edge_agent.core.state import State
from edge_agent.software.launch import Launch
from edge_contract import canonical
from edge_contract.jobs import JobDocument, JobStatus, Probation, Signed
from edge_contract.messages import SOFTWARE, SOFTWARE_ORDERS
from edge_contract.states import TERMINAL_STATUS
from tests.support.device_sim import Device, PowerCut, job

FIRST, SECOND = "1" * 64, "2" * 64


@dataclass(frozen=True)
class Release:
    """How a release behaves: ``dies_at`` the second after its start, 0: at import; None: never."""

    dies_at: int | None = None
    connects: bool = True
    loads_models: bool = True
    fails_check: bool = False


@dataclass
class Records:
    """The launcher's record, durable."""

    launch: Launch = field(default_factory=Launch)


class SelfUpdating(Device):
    """One simulated device with a launcher."""

    def __init__(self, *, current: str = "", releases: dict[str, Release] | None = None, **more: Any) -> None:
        self.records, self.releases = Records(Launch(proven=(current,) if current else ())), releases or {}
        self.running, self.starts, self.lived, self.is_up, self.leaves = "", 0, 0, False, False
        self.pointers_of_software = {"active": current, "standby": "", "factory": ""}
        self.whole = {current} - {""}
        self.heard: list[str] = []
        super().__init__(**more)

    # the launcher

    def boot(self) -> None:
        """The service starts the launcher, again and again while what it chooses dies at once."""
        for _ in range(40):
            self.running, failed = self._choose()
            how = self.releases.get(self.running, Release())
            self.lived, self.leaves, self.is_up = 0, False, how.dies_at != 0
            self.starts += 1
            if self.is_up:
                self._told = ev.Software(self.running, self.slots(SOFTWARE), failed)
                super().boot()
                self.online = how.connects
                return
        raise AssertionError("nothing starts")

    def _choose(self) -> tuple[str, dict[str, str]]:
        """As ``launcher.choose``, on the disk in memory."""
        record = self.records.launch
        for release in dict.fromkeys((self.pointers_of_software["active"], self.pointers_of_software["standby"])):
            if not release or release in record.failed:
                continue
            if record.starts.get(release, 0) >= record.limit(release) or release not in self.whole:
                record = record.blamed(release, f"{record.starts.get(release, 0)} starts without a sign of health")
                self._write(record, "launch:failed")
                continue
            self._write(record.counted(release), "launch:counted")
            return release, dict(record.failed)
        return "", dict(record.failed)

    def _write(self, record: Launch, what: str) -> None:
        self._durable(what)
        self.records.launch = record

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            try:
                self._second()
                self.lived += 1
                how = self.releases.get(self.running, Release())
                if self.leaves or (how.dies_at is not None and self.lived >= how.dies_at):
                    self.boot()
            except PowerCut:
                self.power_cycle()

    # the disk

    def slots(self, model: str = "digits") -> ev.Slots:
        if model != SOFTWARE:
            return super().slots(model)
        found = {name: b if b in self.whole else "" for name, b in self.pointers_of_software.items()}
        return ev.Slots(found["active"], found["standby"], "", dict.fromkeys(filter(None, found.values()), "9"))

    def _feed(self, event: ev.Event) -> None:
        if isinstance(event, ev.Booted):
            event = ev.Booted(**{**vars(event), "software": self._told})
        super()._feed(event)

    def _on_FlipSlots(self, effect: ef.FlipSlots) -> list[ev.Event]:
        if effect.model != SOFTWARE:
            return super()._on_FlipSlots(effect)
        for pointer, bundle in (("standby", effect.standby), ("active", effect.active)):
            assert not bundle or bundle in self.whole, "a pointer to nothing complete"
            self._durable(f"software {pointer}:{bundle[:1]}")
            self.pointers_of_software[pointer] = bundle
        return [ev.Flipped(self.now(), self.slots(SOFTWARE), lane=effect.lane)]

    def _on_Forget(self, effect: ef.Forget) -> None:
        if effect.model != SOFTWARE:
            return super()._on_Forget(effect)
        self._durable("forget software")
        self.whole &= {*self.pointers_of_software.values(), *effect.keep}
        self.records.launch = self.records.launch.only(frozenset(self.whole))
        return None

    def _on_RunStep(self, effect: ef.RunStep) -> None:
        if effect.lane != SOFTWARE:
            return super()._on_RunStep(effect)
        order, step = effect.job, effect.step
        if step in ("preflight", "download") and not self.linked:
            self.later.append(ev.StepFailed(self.now(), order.job_id, step, "no network", may_retry=True))
            return None
        if step == "preflight":
            self._write(self.records.launch.forgiven(order.bundle), "launch:forgiven")
        if step == "verify":
            if self.releases.get(order.bundle, Release()).fails_check:
                self.later.append(ev.StepFailed(self.now(), order.job_id, step, "self-test of the new release: no"))
                return None
            self._durable("environment")
            self.whole.add(order.bundle)
        if step == "commit":
            self._write(self.records.launch.committed(order.bundle), "launch:proven")
        slots = self.slots(SOFTWARE) if step != "download" else None
        self.later.append(ev.StepDone(self.now(), order.job_id, step, slots))
        return None

    def _on_Restart(self, _effect: ef.Restart) -> None:
        self.leaves = True

    def _load(self, role: str, bundle: str, key: str) -> None:
        if self.releases.get(self.running, Release()).loads_models:
            super()._load(role, bundle, key)
        else:
            self._say({"event": "load_failed", "role": role, "bundle": bundle, "reason": "no such runtime"}, key)

    def _on_Publish(self, effect: ef.Publish) -> None:
        if effect.channel.startswith("job/") and self.linked:
            status = JobStatus.from_bytes(effect.payload)
            if status.status in TERMINAL_STATUS:
                text = f"{status.job_id} {status.status.value} {status.phase.value}"
                self.heard += [text] if self.heard[-1:] != [text] else []  # what is asked again is told again
        super()._on_Publish(effect)

    # the server

    def order_software(self, release: str, number: int = 1, **changes: Any) -> None:
        trial = changes.pop("probation", Probation(inferences=1, timeout_s=40.0))
        document: JobDocument = job(f"s{number}", release, model=SOFTWARE, probation=trial, **changes)
        self.say(SOFTWARE_ORDERS, Signed(document.to_bytes(), "key", "00").to_bytes())

    @property
    def order_state(self) -> str:
        state: State = self.state
        return state.software.update.phase if state.software else ""

    @property
    def journal(self) -> Any:
        return canonical.loads(self.disk.journal)
