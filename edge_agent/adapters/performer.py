# SPDX-License-Identifier: Apache-2.0
"""Carries out what the core asks. Quick effects at once, in the loop; slow ones in worker threads.

The order of effects is kept where it matters: ``Persist`` returns when the journal is on the disk, and the steps
and deletions of a model share one thread, so a slot is never deleted under a download. Checks of orders have their own,
because a cancel must not wait for the end of what it cancels.
"""

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from edge_agent.adapters import clock
from edge_agent.adapters.download import Cancelled, Throttle
from edge_agent.adapters.embedded_runner import EmbeddedRunner
from edge_agent.adapters.install import Installer
from edge_agent.adapters.runner_process import RunnerProcess
from edge_agent.adapters.slots import SlotStore
from edge_agent.adapters.store import Journal, OutboxStore
from edge_agent.adapters.trust import TrustHelper
from edge_agent.core import effects as ef
from edge_agent.core import events as ev
from edge_agent.core.lane import Plan
from edge_contract.batches import TelemetryBatch, encode_batch
from edge_contract.errors import ContractError, DownloadError, EnrolmentError, SlotError, StoreError, StropError
from edge_contract.manifest import MANIFEST_NAME, Manifest
from edge_contract.messages import SOFTWARE
from edge_contract.profile import ReferenceProfile

__all__ = ["PERSIST_PAUSE_S", "PERSIST_TRIES", "Performer", "Worker"]

BATCH_BYTES: Final = 90_000
"""Plain bytes of a batch's rows: with frame and zlib never more than 100 KB."""
_MAY_PASS: Final = (DownloadError, EnrolmentError)
"""Errors whose cause may pass by itself: the network, or a server that is being set up."""


_TOLD: Final = {"event": "info", "alarm": "warning"}
"""Classes of rows that a person who reads the log wants to see, too."""
PERSIST_TRIES: Final = 60
PERSIST_PAUSE_S: Final = 5.0


class Worker:
    """One thread that does one thing after the other; started with the first one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def do(self, task: Callable[[], None]) -> None:
        """Put a task at the end."""
        self._tasks.put(task)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()

    def close(self) -> None:
        """End after the tasks that wait."""
        self._tasks.put(None)


class LaneRim(Protocol):
    """The adapters of one model, and what its runner needs artefacts for."""

    @property
    def runner(self) -> RunnerProcess | EmbeddedRunner: ...
    @property
    def installer(self) -> Installer: ...
    @property
    def plan(self) -> Plan: ...
    def without_accelerator(self, slot: Path) -> str: ...
    def re_enumerate(self) -> None: ...


class SoftwareRim(Protocol):
    """What an update of the agent's own software needs: its slots, its steps, and the way out of this process."""

    @property
    def slots(self) -> SlotStore: ...
    @property
    def installer(self) -> Installer: ...
    def leave(self) -> None: ...


@dataclass(frozen=True)
class Rim:
    """The adapters that effects need.

    Attributes:
        lanes: What each model has of its own, by the key of its lane.
        throttle: The pace of all downloads.
        commands: Name of a heavy command → what carries it out and returns the answer's body.
        publish: The link's ``publish``, None on a device without a broker.
        post: Puts an event into the loop's queue; may be called from any thread.
        log: Writes a line: level, text.
        software: Present if the agent can update itself.
    """

    slots: SlotStore
    journal: Journal
    outbox: OutboxStore
    lanes: Mapping[str, LaneRim]
    throttle: Throttle
    trust: TrustHelper
    publish: Callable[..., bool] | None
    post: Callable[[ev.Event], None]
    log: Callable[[str, str], None]
    commands: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = field(default_factory=dict)
    software: SoftwareRim | None = None


class Performer:
    """Knows which adapter does what.

    Args:
        rim: The adapters.
        device: Who we are.
    """

    def __init__(self, rim: Rim, device: str) -> None:
        self._slots, self._journal, self._outbox, self._lanes = rim.slots, rim.journal, rim.outbox, rim.lanes
        self._throttle, self._trust, self._device = rim.throttle, rim.trust, device
        self._publish, self._post, self._log = rim.publish, rim.post, rim.log
        self._closing = threading.Event()
        self.is_patient = True
        self._checks, self._errands, self._commands = Worker("checks"), Worker("commands"), rim.commands
        self._resets = Worker("resets")
        self._software = rim.software
        keys = [*rim.lanes, *([SOFTWARE] if rim.software else [])]
        self._steps = {key: Worker(f"steps {key}".strip()) for key in keys}
        self._cancels: dict[str, threading.Event] = {}
        self._how: dict[type[ef.Effect], Callable[[Any], list[ev.Event]]] = {
            ef.Persist: self._persist,
            ef.Publish: self._say,
            ef.CheckJob: self._check,
            ef.RunStep: self._step,
            ef.RunCommand: self._run_command,
            ef.AbortStep: self._abort,
            ef.SetPace: self._set_pace,
            ef.FlipSlots: self._flip,
            ef.Forget: self._forget,
            ef.ReadProfile: self._read_profile,
            ef.StartRunner: self._start_runner,
            ef.StopRunner: self._stop_runner,
            ef.ReEnumerate: self._re_enumerate,
            ef.Restart: self._restart,
            ef.Command: self._command,
            ef.KeepRow: self._keep,
            ef.DropRows: self._drop,
            ef.CountLost: self._count_lost,
            ef.RemoveRows: self._remove,
            ef.SendBatch: self._send,
            ef.Log: self._write_log,
        }

    def perform(self, effect: ef.Effect) -> list[ev.Event]:
        """Carry out one effect; return the events that it gives at once.

        Raises:
            StoreError: The journal cannot be written. The agent must not go on: the caller ends the process, and
                the next start takes up the last journal.
        """
        return self._how[type(effect)](effect)

    def close(self) -> None:
        """Cancel what runs, and let the threads end."""
        self._closing.set()
        for cancel in self._cancels.values():
            cancel.set()
        for steps in self._steps.values():
            steps.close()
        self._checks.close()
        self._errands.close()
        self._resets.close()

    def _persist(self, effect: ef.Persist) -> list[ev.Event]:
        """Write the journal. On a full disk nothing may go on, but the runner does: wait for space, then give up.

        Whoever is not ``is_patient`` hears of the first refusal at once, and waits itself.
        """
        for _ in range(PERSIST_TRIES):
            try:
                self._journal.write(effect.journal)
                self.is_patient = True
                return []
            except StoreError as error:
                self._log("error", str(error))
                if not self.is_patient:
                    raise
                if self._closing.wait(PERSIST_PAUSE_S):
                    break
        self._journal.write(effect.journal)
        return []

    def _say(self, effect: ef.Publish) -> list[ev.Event]:
        if self._publish is not None:
            try:
                self._publish(effect.channel, effect.payload, retain=effect.retain, token=effect.token)
            except (ContractError, ValueError) as error:  # a topic that nobody speaks, a payload too large for MQTT
                self._log("error", f"cannot publish: {error}")
        return []

    def _check(self, effect: ef.CheckJob) -> list[ev.Event]:
        def task() -> None:
            try:
                job = self._trust.verify_job(effect.payload, self._device, now=clock.now().wall)
                self._post(ev.JobChecked(clock.now(), effect.envelope, job))
            except StropError as error:
                may_retry = isinstance(error, _MAY_PASS)
                self._post(ev.JobRefused(clock.now(), effect.envelope, str(error), may_retry))

        self._checks.do(task)
        return []

    def _step(self, effect: ef.RunStep) -> list[ev.Event]:
        job, step = effect.job, effect.step
        cancel = self._cancels.setdefault(job.job_id, threading.Event())

        def task() -> None:
            if cancel.is_set():
                return
            self._log("info", f"order {job.job_id}: {step} of {job.model} {job.version}")
            try:
                done = self._run_step(step, effect, cancel)
                self._post(ev.StepDone(clock.now(), job.job_id, step, *done, lane=effect.lane))
            except Cancelled:
                return
            except StropError as error:
                self._log("warning", f"order {job.job_id}: {step}: {error}")
                may_retry = isinstance(error, _MAY_PASS)
                self._post(ev.StepFailed(clock.now(), job.job_id, step, str(error), may_retry))
            except Exception as error:  # a full disk, a fault of ours: the order ends, the agent does not
                self._log("error", f"order {job.job_id}: {step}: {type(error).__name__}: {error}")
                self._post(ev.StepFailed(clock.now(), job.job_id, step, f"{type(error).__name__}: {error}"))

        self._steps[effect.lane].do(task)
        return []

    def _run_step(self, step: str, effect: ef.RunStep, cancel: threading.Event) -> tuple[Any, ...]:
        job = effect.job
        ours = self._software if effect.lane == SOFTWARE else None
        installer = ours.installer if ours else self._lanes[effect.lane].installer
        if step == "preflight":
            installer.preflight(job, cancel.wait)
        elif step == "download":
            installer.download(
                job,
                cancel.wait,
                lambda done, total: self._post(ev.Progress(clock.now(), job.job_id, done, total)),
            )
            return None, 0, installer.fetcher.facts(job.bundle)
        elif step == "verify":
            return installer.verify(job)  # the slots, and the memory that the model will take
        else:
            return (installer.commit(job),)
        return ()

    def _run_command(self, effect: ef.RunCommand) -> list[ev.Event]:
        def task() -> None:
            try:
                body = self._commands[effect.kind]({**effect.body, "id": effect.channel.rpartition("/")[2]})
                self._post(ev.CommandDone(clock.now(), effect.channel, ok=True, body=body))
            except StropError as error:
                self._post(ev.CommandDone(clock.now(), effect.channel, ok=False, body={"error": str(error)}))
            except Exception as error:  # a fault of ours: it is counted against the command
                self._log("error", f"{effect.channel}: {type(error).__name__}: {error}")
                self._post(ev.HandlerFailed(clock.now(), effect.channel, f"{type(error).__name__}: {error}"))

        self._errands.do(task)
        return []

    def _abort(self, effect: ef.AbortStep) -> list[ev.Event]:
        cancel = self._cancels.pop(effect.job_id, None)
        if cancel is not None:
            cancel.set()
        return []

    def _set_pace(self, effect: ef.SetPace) -> list[ev.Event]:
        self._throttle.limit_bps, self._throttle.held = effect.kbps * 1000, effect.held
        return []

    def _flip(self, effect: ef.FlipSlots) -> list[ev.Event]:
        try:
            slots = self._store(effect).flip(effect.model, effect.active, effect.standby)
            self._log(
                "info", f"active is {effect.active[:16] or 'nothing'}, standby {effect.standby[:16] or 'nothing'}"
            )
            return [ev.Flipped(clock.now(), slots, lane=effect.lane)]
        except (SlotError, OSError) as error:
            self._log("error", str(error))
            return [ev.Flipped(clock.now(), self._store(effect).read(effect.model), str(error), lane=effect.lane)]

    def _store(self, effect: ef.OfLane) -> SlotStore:
        """Return where the slots are of which an effect speaks."""
        return self._software.slots if self._software and effect.lane == SOFTWARE else self._slots

    def _restart(self, _effect: ef.Restart) -> list[ev.Event]:
        if self._software:
            self._log("info", "this process ends for the launcher")
            self._software.leave()
        return []

    def _forget(self, effect: ef.Forget) -> list[ev.Event]:
        def task() -> None:
            try:
                self._store(effect).forget(effect.model, effect.keep)
            except (SlotError, OSError) as error:
                self._log("warning", f"cannot delete old slots: {error}")

        self._steps[effect.lane].do(task)
        return []

    def _read_profile(self, effect: ef.ReadProfile) -> list[ev.Event]:
        try:
            folder = self._slots.folder(effect.model, effect.bundle)
            profile = _profile(folder, self._lanes[effect.lane].plan.runtime)
        except (StropError, OSError) as error:
            self._log("warning", f"no reference profile for {effect.bundle[:16]}: {error}")
            profile = None
        return [ev.ProfileRead(clock.now(), effect.bundle, profile, lane=effect.lane)]

    def _start_runner(self, effect: ef.StartRunner) -> list[ev.Event]:
        lane = self._lanes[effect.lane]
        if effect.is_on_cpu and effect.bundle:
            runtime = lane.without_accelerator(self._slots.folder(effect.model, effect.bundle))
            self._log("warning", f"without the accelerator: the runner is started with {runtime}")
        lane.runner.start()
        return []

    def _re_enumerate(self, effect: ef.ReEnumerate) -> list[ev.Event]:
        def task() -> None:
            reason = ""
            try:
                self._lanes[effect.lane].re_enumerate()
            except (StropError, OSError, ValueError) as error:
                reason = str(error)
            self._post(ev.ReEnumerated(clock.now(), reason, lane=effect.lane))

        self._resets.do(task)
        return []

    def _stop_runner(self, effect: ef.StopRunner) -> list[ev.Event]:
        self._lanes[effect.lane].runner.stop(clock.now().mono)
        return []

    def _command(self, effect: ef.Command) -> list[ev.Event]:
        words = dict(effect.words)
        if effect.bundle:
            words["folder"] = str(self._slots.folder(effect.model, effect.bundle).resolve())
        self._lanes[effect.lane].runner.send(words)
        return []

    def _keep(self, effect: ef.KeepRow) -> list[ev.Event]:
        if effect.cls in _TOLD:
            self._log(_TOLD[effect.cls], effect.body.decode())
        self._outbox.keep(effect.boot, effect.cls, (effect.seq, effect.time, effect.body), clock.now().mono)
        return []

    def _drop(self, effect: ef.DropRows) -> list[ev.Event]:
        gone = self._outbox.drop_oldest(effect.boot, effect.cls, effect.size, clock.now().mono)
        return [ev.RowsGone(clock.now(), *gone, dropped=True, asked=effect.size)]

    def _count_lost(self, effect: ef.CountLost) -> list[ev.Event]:
        self._outbox.count_lost(effect.cls, clock.now().mono)
        return []

    def _remove(self, effect: ef.RemoveRows) -> list[ev.Event]:
        gone = self._outbox.remove(effect.boot, effect.cls, effect.up_to_seq, clock.now().mono)
        return [ev.RowsGone(clock.now(), *gone)]

    def _send(self, effect: ef.SendBatch) -> list[ev.Event]:
        rows = self._outbox.batch(effect.boot, effect.cls, effect.after_seq, max_bytes=BATCH_BYTES)
        up_to = 0
        if rows and self._publish is not None:
            batch = TelemetryBatch(self._device, effect.boot, effect.cls, effect.after_seq, tuple(rows))
            if self._publish(f"tm/{effect.cls}", encode_batch(batch)):
                up_to = rows[-1].seq
        return [ev.BatchSent(clock.now(), effect.boot, effect.cls, up_to)]

    def _write_log(self, effect: ef.Log) -> list[ev.Event]:
        self._log(effect.level, effect.text)
        return []


def _profile(folder: Path, runtime: str) -> ReferenceProfile | None:
    """Return the reference profile of our artefact in a slot, None if the bundle has none.

    Raises:
        ManifestError, ProfileError, OSError: It cannot be read.
    """
    manifest = Manifest.from_bytes((folder / MANIFEST_NAME).read_bytes())
    name = manifest.profiles.get(manifest.artefact_for(runtime).path)
    return ReferenceProfile.from_bytes((folder / name).read_bytes()) if name else None
