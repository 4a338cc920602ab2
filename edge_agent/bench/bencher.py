# SPDX-License-Identifier: Apache-2.0
"""The control process's part of a benchmark: a thread that carries one order at a time through its states.

waiting → downloading → measuring → sending. Each look does what is due and says when to look again. While it measures,
``held`` is the update lock: the loop puts it into the conditions by which orders are held back, and nothing begins
before the core has seen it. A process that dies while it measures finds the order at its next start and says so.
"""

import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_agent.adapters import clock, time_floor
from edge_agent.adapters.beside import Beside
from edge_agent.adapters.download import Cancelled
from edge_agent.adapters.trust import TrustHelper
from edge_agent.bench.files import Goods
from edge_agent.bench.gate import has_lock, why_stop, why_wait
from edge_agent.bench.measuring import Measured, collected, measure
from edge_agent.bench.place import Place
from edge_agent.bench.quiet import Quiet
from edge_agent.bench_config import BenchRules
from edge_agent.core.renewal import pause_s
from edge_agent.core.state import State
from edge_agent.lanes_config import LaneConfig
from edge_contract import canonical
from edge_contract.bench_job import BenchJob, BenchOutcome
from edge_contract.bench_words import COMMAND
from edge_contract.errors import BundleError, DownloadError, EnrolmentError, MessageError, StropError

__all__ = ["Bencher", "Surroundings"]

IDLE_S: Final = 3600.0
WAIT_S: Final = 5.0
LOCK_S: Final = 20.0
"""The loop looks once a second; a lock that is not in force after so long is given back."""
HANDOVER_S: Final = 10.0
"""The server says the next order when it has the last word of the one before, which is still being forgotten here."""
GRACE_S: Final = 3600.0
"""What was measured is offered to the server for so long after the order's end."""
_MAY_PASS: Final = (DownloadError, EnrolmentError)


@dataclass(frozen=True)
class Surroundings:
    """What a bencher needs of the agent.

    Attributes:
        data: The device's data folder.
        device: Its name.
        rules: What the person at the device allows.
        helper: Checks orders and sends results.
        goods: Brings files.
        lane: Gives the configuration of a model's lane.
        state: Gives the core's newest state.
        publish: Sends on a channel; False where there is no connection.
        log: Writes a line: level, text.
    """

    data: Path
    device: str
    rules: BenchRules
    helper: TrustHelper
    goods: Goods
    lane: Callable[[str], LaneConfig]
    state: Callable[[], State]
    publish: Callable[[str, bytes], bool]
    log: Callable[[str, str], None]


class Bencher:
    """Carries out the benchmarks of one device.

    Attributes:
        held: Id of the benchmark that measures; empty while none does.
        quiet: What the loop is to ask of the runners.
    """

    def __init__(self, around: Surroundings) -> None:
        self._around, self._place = around, Place(around.data)
        self.held = ""
        self.quiet = Quiet()
        self._cancelled, self._closing = set[str](), threading.Event()
        self._stirred, self._failures, self._told = threading.Event(), 0, ""
        self._thread = Beside("bench", self._looked, first_s=0.0)

    def start(self) -> None:
        """Take up what an earlier process left, and wait for orders."""
        self._thread.start()

    def stop(self) -> None:
        """End; a measurement is killed, and reported at the next start."""
        self._closing.set()
        self._stirred.set()
        self._thread.stop()

    def order(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Take an order: the command ``bench``.

        Raises:
            SignatureError, MessageError, DownloadError, EnrolmentError: As ``edge_agent.bench.errand.check``.
            BundleError: It was carried out already, or asks for more than the person at the device allows.
        """
        envelope = body.get("order")
        if not isinstance(envelope, dict):
            raise MessageError("holds no order", where="command.bench")
        around = self._around
        job = around.helper.check_bench(canonical.dumps(envelope), around.device, now=clock.now().wall)
        if body.get("id") != job.id:
            raise MessageError(f"the order is '{job.id[:63]}'", where="command.bench")
        current = self._in_hand(job)
        if current is not None:
            is_same = current.id == job.id
            state = self._place.state(current)
            return {"state": state if is_same else "busy", "why": "" if is_same else f"it has {current.id} in hand"}
        self._check_rules(job)
        self._place.take(job, self._now())
        if not self._closing.is_set():
            self._stirred.clear()
        around.log("info", f"benchmark {job.id}: taken")
        self._thread.wake(0.0)
        return {"state": "accepted", "why": ""}

    def _in_hand(self, job: BenchJob) -> BenchJob | None:
        """Return the order in hand; one whose last word is being taken is waited for: the next one comes at once."""
        for _ in range(round(HANDOVER_S / 0.2)):
            current = self._place.current()
            if current is None or current.id == job.id or self._place.state(current) != "sending" or self._failures:
                return current
            self._closing.wait(0.2)
        return self._place.current()

    def _check_rules(self, job: BenchJob) -> None:
        rules, where = self._around.rules, f"benchmark {job.id}"
        if not job.is_registered and not rules.unregistered:
            fix = "the person at the device writes [bench] unregistered = true"
            raise BundleError("its files are signed by no targets key, which is not allowed here", where=where, fix=fix)
        if job.max_seconds > rules.max_minutes * 60:
            raise BundleError(f"{job.max_seconds:g} s, at most {rules.max_minutes} min are allowed here", where=where)
        if job.max_bytes > rules.max_mb * 1_000_000:
            raise BundleError(f"{job.max_bytes} bytes, at most {rules.max_mb} MB are allowed here", where=where)

    def cancel(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Withdraw the order in hand: the command ``bench-cancel``; raises BundleError if there is no such order."""
        current = self._place.current()
        if current is None or current.id != body.get("id"):
            raise BundleError("is not in hand here", where=f"benchmark {str(body.get('id'))[:63]}")
        self._cancelled.add(current.id)
        self._stirred.set()
        self._thread.wake(0.0)
        return {"state": "cancelling"}

    def _now(self) -> float:
        """Return the time by which an order ends; by a clock that is not set nothing ends."""
        try:
            return time_floor.trusted_now(self._around.data / "tuf", clock.now().wall)
        except DownloadError:
            return 0.0

    def _looked(self) -> float:
        try:
            job = self._place.current()
            return self._step(job) if job is not None else IDLE_S
        except (StropError, OSError) as error:
            self._around.log("warning", f"benchmark: {error}")
        except Exception as error:  # the thread must live
            self._around.log("error", f"benchmark: {type(error).__name__}: {error}")
        return self._later()

    def _later(self) -> float:
        self._failures += 1
        return max(WAIT_S, pause_s(self._failures, random.random()))

    def _step(self, job: BenchJob) -> float:
        self._place.note(job)
        state = self._place.state(job)
        if state == "sending":
            return self._send(job)
        if state == "measuring":
            return self._end(job, "the agent ended while it measured; nothing is known of the result")
        if job.id in self._cancelled:
            return self._end(job, "withdrawn")
        if self._now() >= job.expires_at:
            return self._end(job, f"it waited until its end: {self._told or 'never came to its turn'}")
        return self._begin(job)

    def _begin(self, job: BenchJob) -> float:
        around = self._around
        if why := why_wait(around.state(), clock.now()):
            self._tell(job, "waiting", why)
            self._place.set_state(job, "waiting")
            return WAIT_S
        self._place.set_state(job, "downloading")
        self._tell(job, "downloading")
        try:
            own = around.lane(job.model)
            plan = around.goods.bring(job, self._place.of(job.id) / "files", own, lambda s: self._is_off(job, s))
        except Cancelled:
            return WAIT_S if self._closing.is_set() else self._end(job, "withdrawn")
        except _MAY_PASS as error:
            self._tell(job, "waiting", str(error))
            return self._later()
        except StropError as error:
            return self._end(job, str(error))
        self._failures = 0
        return self._measure(job, own, plan)

    def _is_off(self, job: BenchJob, seconds: float) -> bool:
        """Sleep; True if the order was withdrawn or the agent ends."""
        self._stirred.wait(seconds)
        return self._closing.is_set() or job.id in self._cancelled

    def _measure(self, job: BenchJob, own: LaneConfig, plan: Mapping[str, Any]) -> float:
        if not self._locked(job):
            self.held = ""
            self._tell(job, "waiting", "an update came first")
            return WAIT_S
        try:
            note = self._quiet(plan)
            self._place.set_state(job, "measuring")
            self._tell(job, "measuring")
            found = self._measured(job, own, plan)
        finally:
            self.held, self.quiet.is_wanted = "", False
        if self._closing.is_set() and not found.ok:
            return IDLE_S  # said at the next start, by what stands on the disk
        return self._end(job, "; ".join(filter(None, (found.why, note))), found)

    def _locked(self, job: BenchJob) -> bool:
        """Take the update lock, and wait until the core has seen it; False if an order was faster."""
        self.held = job.id
        until = time.monotonic() + LOCK_S
        while (found := has_lock(self._around.state(), job.id)) is None:
            if self._is_off(job, 0.2) or time.monotonic() >= until:
                return False
        return found

    def _quiet(self, plan: Mapping[str, Any]) -> str:
        """Let the models' own inference pause where the plan wants the bare model; return what a reader must know."""
        if plan.get("mode", "bare") != "bare":
            return ""
        self.quiet.begin(WAIT_S)
        self._closing.wait(0.5)  # the inference under way ends
        embedded = [key for key, lane in self._around.state().lanes.items() if not lane.plan.owns_runner]
        return "an application's own inference could not be paused" if embedded else ""

    def _measured(self, job: BenchJob, own: LaneConfig, plan: Mapping[str, Any]) -> Measured:
        folder = self._place.of(job.id)
        out = self._place.fresh(job)
        (folder / "job.json").write_text(json.dumps(dict(plan), sort_keys=True))
        command = [own.runner_python, "-P", "-m", "benchmarks.on_device", str(folder / "job.json"), str(out)]

        def why() -> str:
            if job.id in self._cancelled or self._closing.is_set():
                return "withdrawn"
            return why_stop(self._around.state(), clock.now())

        return measure(self._around.data, folder, command, job, why, self._stirred.wait)

    def _end(self, job: BenchJob, why: str, found: Measured | None = None) -> float:
        """Write the last word down; from here on it is only sent."""
        place = self._place
        files, left_out = collected(place.of(job.id) / "out") if found is not None and found.ok else ({}, "")
        words = "; ".join(filter(None, (why, left_out)))
        facts = found.facts if found is not None else {}
        place.end(job, BenchOutcome(job.id, bool(files), words, files, facts))
        self._around.log("info", f"benchmark {job.id}: {'measured' if files else words}")
        self._tell(job, "sending")
        self._failures = 0
        return 0.0

    def _send(self, job: BenchJob) -> float:
        try:
            done = self._around.helper.send_bench()
        except _MAY_PASS as error:
            if self._now() < job.expires_at + GRACE_S:
                if self._failures == 0:  # once; the link may be away for days
                    self._around.log("info", f"benchmark {job.id} waits: {error}")
                return self._later()
            done = {"refused": f"its time is over: {error}"}
        if done["refused"]:
            self._around.log("warning", f"benchmark {job.id} is not wanted: {done['refused']}")
        self._place.finish(job)
        self._cancelled.discard(job.id)
        self._failures, self._told = 0, ""
        return IDLE_S

    def _tell(self, job: BenchJob, state: str, why: str = "") -> None:
        """Say where the order stands, once; what gets lost is said by the last word."""
        said = f"{state} {why}"
        if said != self._told:
            self._told = said
            words = canonical.dumps({"v": 1, "ok": True, "state": state, "why": why[:300]})
            self._around.publish(f"cmd/{COMMAND}/{job.id}/result", words)
