# SPDX-License-Identifier: Apache-2.0
"""The nine invariants of the rollout engine, each a real bug of another engine, under any order of events.

The machine plays the server's transaction (advance each rollout, newest first), devices that speak late, double
and out of order, an operator who pauses, resumes, stops and removes, and a server that restarts anywhere.
"""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edge_contract import canonical
from edge_contract.jobs import JobStatus
from edge_contract.states import Phase, RolloutEvent, RolloutState, Status
from fleet.core.engine import CloseOrder, Issue, World, abort, advance, remove_device
from fleet.core.execution import Execution, hear_status, settle
from fleet.core.rollout import LIVE, Limits, Rollout, new_rollout

DEVICES = ("a", "b", "c", "d")
BUNDLES = ("1" * 64, "2" * 64, "3" * 64)
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
        self.running, self.now, self.last_job, self.actions = dict.fromkeys(DEVICES, ""), 1e6, 0, []

    def rollout(self, number):
        return Rollout.from_json(json.loads(self.rollouts[number]))

    def of(self, number):
        found = [Execution.from_json(json.loads(text)) for text in self.executions.values()]
        return {e.device: e for e in found if e.number == number}

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
        newest = {}
        for execution in self.every():
            newest[execution.device] = max(newest.get(execution.device, 0), execution.number)
        known = {device: bundle for device, bundle in self.running.items() if device in self.devices}
        return World(self.rollout(number), self.of(number), known, newest, frozenset(), self.last_job)

    def tick(self):
        actions = []
        for number in sorted(self.rollouts, reverse=True):
            outcome = advance(self.world(number), self.now)
            self.put(outcome.rollout, *outcome.changed)
            self.last_job = outcome.last_job
            actions += outcome.actions
        self.actions += actions
        return actions


@settings(max_examples=60, stateful_step_count=40)
class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.server, self.told = Server(), {}

    @initialize(spread=st.integers(0, 3), failures=st.integers(0, 2))
    def first(self, spread, failures):
        self.start(spread, failures, 0)

    @rule(spread=st.integers(0, 3), failures=st.integers(0, 2), bundle=st.integers(0, 2))
    def start(self, spread, failures, bundle):
        if len(self.server.rollouts) >= 3:
            return
        devices = sorted(self.server.devices)
        waves = [devices[:spread], devices[spread:]]
        limits = Limits(soak_s=5.0, timeout_s=100.0, grace_s=10.0, max_failures=failures)
        number = len(self.server.rollouts) + 1
        version = ("digits", str(bundle), BUNDLES[bundle])
        self.server.put(new_rollout(number, version, waves, limits, now=self.server.now))
        self.server.tick()

    @rule(seconds=st.sampled_from([0.5, 4.0, 30.0, 120.0]))
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

    @rule(device=st.sampled_from(DEVICES), bundle=st.sampled_from(("", *BUNDLES)))
    def a_device_runs(self, device, bundle):
        self.server.running[device] = bundle
        self.server.tick()

    @rule(data=st.data(), verb=st.sampled_from(["pause", "resume", "abort"]))
    def an_operator(self, data, verb):
        rollout = self.server.rollout(data.draw(st.sampled_from(sorted(self.server.rollouts))))
        if verb == "abort" and rollout.state in LIVE:
            self.server.put(abort(rollout, "stopped", self.server.now))
        elif verb == "pause" and rollout.state in LIVE:
            once = rollout.after(RolloutEvent.PAUSE)
            assert once.after(RolloutEvent.PAUSE) == once  # 1: pausing a paused rollout is a no-op
            self.server.put(once)
        elif verb == "resume" and rollout.state is RolloutState.PAUSED:
            self.server.put(rollout.after(RolloutEvent.RESUME))
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
    def a_device_has_one_open_order(self):
        opened = [e.device for e in self.server.every() if e.is_open]
        assert len(opened) == len(set(opened))  # 7

    @invariant()
    def no_open_order_outlives_its_deadline(self):
        assert all(e.deadline > self.server.now for e in self.server.every() if e.is_open)  # 5

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
        for _ in range(8):
            self.server.now += 120.0
            self.server.tick()
        assert all(self.server.rollout(n).state not in LIVE for n in self.server.rollouts)
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
