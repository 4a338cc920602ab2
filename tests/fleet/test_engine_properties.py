# SPDX-License-Identifier: Apache-2.0
"""The nine invariants of the rollout engine, each a real bug of another engine, under any order of events.

The machine plays the server's transaction (advance each rollout, newest first), devices that speak late, double
and out of order, some with two models and one that takes one order at a time, an operator who pauses, resumes,
cancels, stops, tries again and removes, a clock that jumps both ways, and a server that restarts anywhere.
"""

import contextlib
import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edge_contract import canonical
from edge_contract.errors import RolloutError
from edge_contract.jobs import JobStatus
from edge_contract.states import Phase, RolloutEvent, RolloutState, Status
from fleet.core.changes import advance_wave, cancel, pause, skip_wave
from fleet.core.engine import CloseOrder, Issue, World, abort, advance, remove_device
from fleet.core.execution import EXCUSED, Execution, hear_status, settle
from fleet.core.limits import Limits, Rate
from fleet.core.rollout import LIVE, UNDER_WAY, Rollout, new_rollout
from fleet.core.tally import bucket_of

DEVICES = ("a", "b", "c", "d")
OLD_AGENT = "d"
"""Takes one order at a time, whatever the model."""
BUNDLES = ("1" * 64, "2" * 64, "3" * 64)
MODELS = ("digits", "faces")
TIMEOUT, GRACE, RETRIES, CANCEL = 100.0, 10.0, 1, 40.0
PHASES = (Phase.ACCEPTED, Phase.DOWNLOADING, Phase.VERIFYING, Phase.HEALTH_CHECK)
ENDS = {
    Status.SUCCEEDED: Phase.DONE,
    Status.FAILED: Phase.ROLLED_BACK,
    Status.REJECTED: Phase.REJECTED,
    Status.TIMED_OUT: Phase.FAILED,
}


class Server:
    """The engine as the store drives it: state as JSON texts only, so that every step is also a restart."""

    def __init__(self):
        self.rollouts, self.executions, self.devices = {}, {}, set(DEVICES)
        self.running = {(device, model): "" for device in DEVICES for model in MODELS}
        self.now, self.last_job, self.actions = 1e6, 0, []

    def rollout(self, number):
        return Rollout.from_json(json.loads(self.rollouts[number]))

    def of(self, number):
        found = [Execution.from_json(json.loads(text)) for text in self.executions.values()]
        return {e.device: e for e in found if e.number == number and not e.past}

    def every(self):
        return [Execution.from_json(json.loads(text)) for text in self.executions.values()]

    def put(self, *records):
        for record in records:
            text = canonical.dumps(record.to_json()).decode()
            if isinstance(record, Rollout):
                self.rollouts[record.number] = text
            else:
                self.executions[record.job_id] = text

    def world(self, number):
        rollout, every = self.rollout(number), self.every()
        ours = [e for e in every if e.model == rollout.model]
        newest = {}
        for execution in ours:
            if execution.issued_at or execution.status not in EXCUSED:
                newest[execution.device] = max(newest.get(execution.device, 0), execution.number)
        known = {d: b for (d, model), b in self.running.items() if model == rollout.model and d in self.devices}
        at_work = [e for e in every if e.is_open and e.issued_at]
        return World(
            rollout,
            self.of(number),
            known,
            newest,
            frozenset(e.device for e in at_work if e.model != rollout.model and e.device == OLD_AGENT),
            self.last_job,
            absent={device: "the device left the fleet" for device in DEVICES if device not in self.devices},
            taken=frozenset(e.device for e in at_work if e.model == rollout.model),
            paced=max((e.paced for e in every if e.number == number), default=0.0),
        )

    def step(self):
        """One pass over the rollouts, the newest first."""
        actions = []
        for number in sorted(self.rollouts, reverse=True):
            outcome = advance(self.world(number), self.now)
            self.put(outcome.rollout, *outcome.changed)
            self.last_job = outcome.last_job
            actions += outcome.actions
        self.actions += actions
        return actions

    def tick(self):
        """Passes until nothing follows: the end of an older order may free a device for a newer one."""
        found = []
        while more := self.step():
            found += more
        return found


@settings(max_examples=15, stateful_step_count=25)
class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.server, self.told, self.by_hand = Server(), {}, 0

    @initialize(spread=st.integers(0, 3), failures=st.integers(0, 2))
    def first(self, spread, failures):
        self.start(spread, failures, 0, MODELS[0], None)

    @rule(
        spread=st.integers(0, 3),
        failures=st.integers(0, 2),
        bundle=st.integers(0, 2),
        model=st.sampled_from(MODELS),
        rate=st.sampled_from([None, Rate(30.0)]),
    )
    def start(self, spread, failures, bundle, model, rate):
        if len(self.server.rollouts) >= 4:
            return
        devices = sorted(self.server.devices)
        waves = [devices[:spread], devices[spread:]]
        limits = Limits(
            soak_s=5.0,
            timeout_s=TIMEOUT,
            grace_s=GRACE,
            max_failures=failures,
            retries=RETRIES,
            retry_wait_s=7.0,
            cancel_s=CANCEL,
            rate=rate,
        )
        number = len(self.server.rollouts) + 1
        version = (model, str(bundle), BUNDLES[bundle])
        self.server.put(new_rollout(number, version, waves, limits, now=self.server.now))
        self.server.tick()

    @rule(seconds=st.sampled_from([0.5, 4.0, 30.0, 120.0, -600.0]))
    def time_passes(self, seconds):
        self.server.now += seconds
        self.server.tick()

    @rule(data=st.data(), seq=st.integers(0, 5))
    def a_device_reports(self, data, seq):
        orders = [e for e in self.server.every() if e.issued_at]
        if not orders:
            return
        order = data.draw(st.sampled_from(orders))
        end = data.draw(st.sampled_from([None, *ENDS]))
        phase = ENDS[end] if end else data.draw(st.sampled_from(PHASES))
        report = JobStatus(order.job_id, order.device, end or Status.IN_PROGRESS, phase, seq, "why", {}, 0.0)
        self.server.put(hear_status(order, report, self.server.now))
        self.server.tick()

    @rule(device=st.sampled_from(DEVICES), model=st.sampled_from(MODELS), bundle=st.sampled_from(("", *BUNDLES)))
    def a_device_runs(self, device, model, bundle):
        self.server.running[device, model] = bundle
        self.server.tick()

    @rule(data=st.data(), verb=st.sampled_from(["pause", "resume", "abort", "cancel", "advance", "skip"]))
    def an_operator(self, data, verb):
        rollout = self.server.rollout(data.draw(st.sampled_from(sorted(self.server.rollouts))))
        if verb == "abort" and rollout.state in LIVE:
            self.server.put(abort(rollout, "stopped", self.server.now))
        elif verb == "cancel" and rollout.state in LIVE:
            self.server.put(cancel(rollout, "cancelled", self.server.now))
        elif verb in ("advance", "skip"):
            with contextlib.suppress(RolloutError):  # no wave is at work, or none is to come
                self.server.put((advance_wave if verb == "advance" else skip_wave)(rollout))
        elif verb == "pause" and rollout.state in LIVE:
            once = rollout.after(RolloutEvent.PAUSE)
            assert once.after(RolloutEvent.PAUSE) == pause(once) == once  # 1: pausing a paused one is a no-op
            self.server.put(once)
        elif verb == "resume" and rollout.state is RolloutState.PAUSED:
            self.server.put(rollout.after(RolloutEvent.RESUME))
        self.server.tick()

    @rule(data=st.data())
    def failed_devices_are_tried_again_by_hand(self, data):
        number = data.draw(st.sampled_from(sorted(self.server.rollouts)))
        failed = [e for e in self.server.of(number).values() if bucket_of(e) == "failed"]
        if self.server.rollout(number).state in LIVE:
            self.by_hand += len(failed)
            self.server.put(*(replace(e, retry_at=self.server.now) for e in failed))
        self.server.tick()

    @rule(device=st.sampled_from(DEVICES))
    def a_device_is_removed(self, device):
        self.server.devices.discard(device)
        for number in self.server.rollouts:
            self.server.put(*remove_device(self.server.of(number), device, self.server.now).values())
        self.server.tick()

    @invariant()
    def a_second_caller_finds_nothing_to_do(self):
        before = dict(self.server.rollouts), dict(self.server.executions)
        assert self.server.tick() == []  # 3: starting a wave is idempotent
        assert (self.server.rollouts, self.server.executions) == before  # 9: so is every restart

    @invariant()
    def each_order_goes_out_once_and_is_closed_once(self):
        for kind in (Issue, CloseOrder):
            jobs = [a.execution.job_id for a in self.server.actions if isinstance(a, kind)]
            assert len(jobs) == len(set(jobs))  # 2: exactly one end action

    @invariant()
    def a_device_has_one_open_order_for_a_model(self):
        opened = [(e.device, e.model) for e in self.server.every() if e.is_open]
        assert len(opened) == len(set(opened))  # 7
        old = [e for e in self.server.every() if e.is_open and e.issued_at and e.device == OLD_AGENT]
        assert len(old) <= 1

    @invariant()
    def no_open_order_outlives_its_deadline(self):
        left = [e.deadline - self.server.now for e in self.server.every() if e.is_open]  # 5
        assert all(0 < seconds <= TIMEOUT + GRACE for seconds in left)

    @invariant()
    def attempts_are_counted_and_old_ones_count_no_more(self):
        for number in self.server.rollouts:
            mine = [e for e in self.server.every() if e.number == number]
            current = [e.device for e in mine if not e.past]
            assert len(current) == len(set(current))
            assert not any(e.is_open for e in mine if e.past)
            assert max((e.attempt for e in mine), default=1) <= 1 + RETRIES + self.by_hand

    @invariant()
    def a_cancel_ends_in_time(self):
        for execution in self.server.every():
            if execution.is_open and execution.cancel_by:
                assert execution.cancel_by > self.server.now

    @invariant()
    def a_final_status_stays(self):
        now = {e.job_id: e.status for e in self.server.every() if not e.is_open}
        assert {job: now[job] for job in self.told} == self.told  # 8
        self.told = now

    @invariant()
    def nothing_succeeds_without_its_order(self):
        ordered = {a.execution.job_id for a in self.server.actions if isinstance(a, Issue)}
        for execution in self.server.every():
            if execution.status is Status.SUCCEEDED:
                assert execution.job_id in ordered or execution.reason == "ran it already"

    def teardown(self):
        """4, 6: whatever happened, time alone brings every rollout that is not paused to an end."""
        for number in self.server.rollouts:
            rollout = self.server.rollout(number)
            if rollout.state is RolloutState.PAUSED:
                self.server.put(rollout.after(RolloutEvent.RESUME))
        for _ in range(24):
            self.server.now += 120.0
            self.server.tick()
        assert all(self.server.rollout(n).state not in UNDER_WAY for n in self.server.rollouts)
        assert not any(e.is_open for e in self.server.every())


TestEngine = Machine.TestCase

REPORTS = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from([None, *ENDS])), min_size=1, max_size=8, unique_by=lambda r: r[0]
)


@given(reports=REPORTS, data=st.data())
def test_double_and_reordered_reports_leave_the_same_claim_or_an_end(reports, data):
    """8: of a device's reports, the one with the highest number decides, in whatever order they come."""
    # A device says nothing after its end, so only the last report may be one.
    last = max(seq for seq, _ in reports)
    said = [(seq, end if seq == last else None) for seq, end in reports]
    order = Execution("j1", "r1", 1, 0, "a", "digits", BUNDLES[0], Status.QUEUED, Phase.QUEUED, 1e9, issued_at=1.0)

    def heard(sequence):
        execution = order
        for seq, end in sequence:
            phase = ENDS[end] if end else Phase.DOWNLOADING
            report = JobStatus("j1", "a", end or Status.IN_PROGRESS, phase, seq, "", {}, 0.0)
            execution = hear_status(execution, report, 5.0)
        return settle(execution, running=BUNDLES[0], now=6.0)

    shuffled = data.draw(st.permutations(said + said))
    assert heard(shuffled) == heard(sorted(said, key=lambda r: r[0]))
