# SPDX-License-Identifier: Apache-2.0
"""Stories of the rollout engine: a few lines of arrange, one act, plain asserts. Time is a value."""

from dataclasses import replace

import pytest

from edge_contract.errors import RolloutError
from edge_contract.jobs import JobStatus
from edge_contract.states import Phase, RolloutEvent, RolloutState, Status, WaveState
from fleet.core.engine import CloseOrder, Issue, World, abort, advance, remove_device
from fleet.core.execution import Execution, finish, hear_status, settle
from fleet.core.rollout import Limits, Rollout, new_rollout

BUNDLE, OLD = "b" * 64, "a" * 64


class Fleet:
    """One rollout and what its devices are known to run."""

    def __init__(self, *waves, number=1, now=1000.0, more=None, of=None, **limits):
        self.now, self.number, self.more = now, number, {} if more is None else more
        self.rollout = new_rollout(number, ("digits", "2", BUNDLE), waves, Limits(**limits), now=now, **(of or {}))
        self.executions, self.running, self.newest, self.busy = {}, {}, {}, frozenset()
        self.last_job, self.actions, self.past = 0, [], []
        self.tick()

    def tick(self, seconds=0.0):
        self.now += seconds
        paced = max((e.paced for e in self.executions.values()), default=0.0)
        world = World(
            self.rollout,
            self.executions,
            self.running,
            self.newest,
            self.busy,
            self.last_job,
            paced=paced,
            **self.more,
        )
        outcome = advance(world, self.now)
        self.past += [execution for execution in outcome.changed if execution.past]
        self.rollout, self.executions, self.last_job = outcome.rollout, outcome.executions, outcome.last_job
        self.actions += outcome.actions
        return outcome

    def says(self, device, status, phase=Phase.DOWNLOADING, seq=1, reason=""):
        order = self.executions[device]
        report = JobStatus(order.job_id, device, status, phase, seq, reason, {}, self.now)
        self.executions[device] = hear_status(order, report, self.now)
        self.tick()

    def succeeds(self, device):
        self.running[device] = BUNDLE
        self.says(device, Status.SUCCEEDED, Phase.DONE, seq=9)

    def fails(self, device, reason="agreement 0.3 < 0.8"):
        self.says(device, Status.FAILED, Phase.ROLLED_BACK, seq=9, reason=reason)

    def issued(self):
        return [action.execution.device for action in self.actions if isinstance(action, Issue)]

    def closed(self):
        return {a.execution.device: a for a in self.actions if isinstance(a, CloseOrder)}

    def waves(self):
        return [wave.state.value for wave in self.rollout.waves]

    def status(self, device):
        return self.executions[device].status


def test_canary_goes_first_and_the_rest_only_after_it_and_its_soak():
    fleet = Fleet(["a"], ["b", "c"], soak_s=60)
    assert fleet.issued() == ["a"]
    fleet.succeeds("a")
    assert fleet.waves() == ["SOAKING", "PENDING"]
    fleet.tick(59)
    assert fleet.issued() == ["a"]
    fleet.tick(1)
    assert fleet.issued() == ["a", "b", "c"]
    fleet.succeeds("b")
    fleet.succeeds("c")
    fleet.tick(60)
    assert fleet.rollout.state is RolloutState.COMPLETED
    assert fleet.rollout.reason == "3 devices updated"


def test_success_counts_only_when_the_running_bundle_proves_it():
    fleet = Fleet(["a"])
    fleet.says("a", Status.SUCCEEDED, Phase.DONE)
    assert fleet.status("a") is Status.IN_PROGRESS
    fleet.running["a"] = OLD
    fleet.tick(1)
    assert fleet.status("a") is Status.IN_PROGRESS
    fleet.running["a"] = BUNDLE
    fleet.tick(1)
    assert fleet.status("a") is Status.SUCCEEDED
    assert fleet.rollout.state is RolloutState.COMPLETED


def test_success_that_is_never_proved_times_out_and_says_what_runs():
    fleet = Fleet(["a"], ["b"], timeout_s=100, grace_s=10)
    fleet.running["a"] = OLD
    fleet.says("a", Status.SUCCEEDED, Phase.DONE)
    fleet.tick(110)
    assert fleet.status("a") is Status.TIMED_OUT
    assert fleet.rollout.reason == f"a timed out: said SUCCEEDED but runs {OLD[:12]}"


def test_failing_canary_stops_the_rollout_and_nothing_else_is_touched():
    fleet = Fleet(["a"], ["b", "c"])
    fleet.running = {"a": OLD, "b": OLD, "c": OLD}
    fleet.fails("a")
    assert fleet.rollout.state is RolloutState.ABORTED
    assert fleet.waves() == ["FAILED", "SKIPPED"]
    assert fleet.rollout.reason == "a rolled back: agreement 0.3 < 0.8"
    assert fleet.issued() == ["a"]
    assert set(fleet.executions) == {"a"}
    assert fleet.closed()["a"].restore == OLD


def test_failures_up_to_the_limit_are_forgiven():
    fleet = Fleet(["a", "b"], ["c"], max_failures=1)
    fleet.fails("a")
    assert fleet.rollout.state is RolloutState.RUNNING
    fleet.succeeds("b")
    assert fleet.waves() == ["PASSED", "RUNNING"]
    fleet.fails("c")
    assert fleet.rollout.state is RolloutState.ABORTED


def test_forgiven_failures_do_not_let_a_canary_pass_in_which_nobody_succeeded():
    fleet = Fleet(["a"], ["b"], max_failures=5)
    fleet.fails("a")
    assert fleet.rollout.state is RolloutState.ABORTED
    assert "no device of wave 1 succeeded" in fleet.rollout.reason


def test_silent_device_times_out_at_its_deadline_and_is_told_to_cancel():
    fleet = Fleet(["a"], ["b"], timeout_s=100, grace_s=10)
    fleet.tick(109)
    assert fleet.status("a") is Status.QUEUED
    fleet.tick(1)
    assert fleet.status("a") is Status.TIMED_OUT
    assert fleet.rollout.reason == "a timed out: no answer from the device"
    assert fleet.closed()["a"].ask_cancel


def test_device_that_stands_still_times_out_with_its_phase():
    fleet = Fleet(["a"], timeout_s=100, grace_s=0)
    fleet.says("a", Status.IN_PROGRESS, Phase.DOWNLOADING)
    fleet.tick(100)
    assert fleet.executions["a"].reason == "still downloading at the deadline"


def test_paused_rollout_sends_nothing_new_and_devices_at_work_finish():
    fleet = Fleet(["a"], ["b"])
    fleet.rollout = fleet.rollout.after(RolloutEvent.PAUSE)
    fleet.succeeds("a")
    fleet.tick(100)
    assert fleet.status("a") is Status.SUCCEEDED
    assert fleet.issued() == ["a"]
    fleet.rollout = fleet.rollout.after(RolloutEvent.RESUME)
    fleet.tick()
    assert fleet.issued() == ["a", "b"]


def test_failure_stops_a_paused_rollout_too():
    fleet = Fleet(["a"], ["b"])
    fleet.rollout = fleet.rollout.after(RolloutEvent.PAUSE)
    fleet.fails("a")
    assert fleet.rollout.state is RolloutState.ABORTED


def test_device_that_goes_back_after_its_success_stops_the_rollout():
    fleet = Fleet(["a"], ["b"], soak_s=100)
    fleet.succeeds("a")
    fleet.running["a"] = OLD
    fleet.tick(10)
    assert fleet.rollout.state is RolloutState.ABORTED
    assert fleet.rollout.reason == f"a went back to {OLD[:12]} after its success"


def test_runner_that_reports_nothing_for_a_moment_is_no_regression():
    fleet = Fleet(["a"], soak_s=100)
    fleet.succeeds("a")
    fleet.running["a"] = ""
    fleet.tick(100)
    assert fleet.rollout.state is RolloutState.COMPLETED


def test_device_that_runs_the_bundle_already_gets_no_order():
    fleet = Fleet([])
    fleet.running["a"] = BUNDLE
    again = new_rollout(2, ("digits", "2", BUNDLE), [["a"]], Limits(), now=fleet.now)
    outcome = advance(World(again, running={"a": BUNDLE}), fleet.now)
    assert outcome.rollout.state is RolloutState.COMPLETED
    assert outcome.actions == ()
    assert outcome.executions["a"].reason == "ran it already"


def test_empty_rollout_completes():
    assert Fleet().rollout.reason == "empty: no device matched"
    assert Fleet([], []).rollout.state is RolloutState.COMPLETED


def test_removed_device_leaves_the_count():
    fleet = Fleet(["a", "b"], ["c"])
    fleet.succeeds("a")
    fleet.executions = remove_device(fleet.executions, "b", fleet.now)
    fleet.tick()
    assert fleet.waves() == ["PASSED", "RUNNING"]
    assert fleet.status("b") is Status.REMOVED


def test_newer_rollout_takes_a_device_and_the_older_one_goes_on_without_it():
    fleet = Fleet(["a"], ["b"])
    fleet.newest = {"a": 2}
    fleet.tick()
    assert fleet.status("a") is Status.SUPERSEDED
    assert "a" not in fleet.closed()  # the newer order stands on its job/next
    assert fleet.issued() == ["a", "b"]


def test_older_rollout_never_orders_a_device_that_a_newer_one_had():
    fleet = Fleet(["a"], ["b"])
    fleet.newest = {"b": 2}
    fleet.succeeds("a")
    assert fleet.status("b") is Status.SUPERSEDED
    assert fleet.issued() == ["a"]
    assert fleet.rollout.state is RolloutState.COMPLETED


def test_device_busy_with_another_model_waits_for_its_order():
    fleet = Fleet([])
    fleet.rollout = new_rollout(1, ("digits", "2", BUNDLE), [["a"]], Limits(), now=fleet.now)
    fleet.busy = frozenset({"a"})
    fleet.tick()
    assert fleet.issued() == []
    fleet.busy = frozenset()
    fleet.tick(50)
    assert fleet.issued() == ["a"]
    assert fleet.executions["a"].deadline == fleet.now + 3600 + 30


def test_operator_stops_a_rollout_and_orders_that_nobody_began_are_called_back():
    fleet = Fleet(["a", "b"], ["c"])
    fleet.says("a", Status.IN_PROGRESS)
    fleet.rollout = abort(fleet.rollout, "stopped by operator", fleet.now)
    fleet.tick()
    assert fleet.waves() == ["FAILED", "SKIPPED"]
    assert fleet.status("a") is Status.IN_PROGRESS
    assert fleet.status("b") is Status.CANCELED
    assert fleet.closed()["b"].ask_cancel


def test_stopped_rollout_still_sees_its_devices_to_their_end():
    fleet = Fleet(["a", "b"], timeout_s=100, grace_s=0)
    fleet.says("a", Status.IN_PROGRESS)
    fleet.fails("b")
    fleet.tick(100)
    assert fleet.rollout.state is RolloutState.ABORTED
    assert fleet.status("a") is Status.TIMED_OUT


def test_stopping_twice_is_refused_in_one_line():
    stopped = abort(Fleet(["a"]).rollout, "enough", 1.0)
    with pytest.raises(RolloutError, match=r"rollout r1: ABORTED does not accept 'abort'"):
        abort(stopped, "again", 2.0)


def test_order_numbers_grow_even_when_the_clock_goes_back():
    fleet = Fleet(["a"], ["b"], now=5000.0)
    first = fleet.executions["a"].job_id
    fleet.now = 10.0
    fleet.succeeds("a")
    assert fleet.executions["b"].job_id > first


def test_records_survive_a_round_trip():
    fleet = Fleet(["a"], ["b"], soak_s=5.5)
    fleet.succeeds("a")
    assert Rollout.from_json(fleet.rollout.to_json()) == fleet.rollout
    assert Execution.from_json(fleet.executions["a"].to_json()) == fleet.executions["a"]


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.TIMED_OUT, Status.CANCELED])
def test_a_final_status_never_changes(status):
    order = Execution("j1", "r1", 1, 0, "a", "digits", BUNDLE, status, Phase.DONE, 10.0)
    late = JobStatus("j1", "a", Status.FAILED, Phase.FAILED, 99, "late", {}, 1.0)
    assert hear_status(order, late, 1.0) == order
    assert settle(order, running=OLD, now=1e9) == order
    assert finish(order, Status.REMOVED, "gone", 1e9) == order


def test_report_of_another_device_or_order_is_ignored():
    order = Execution("j1", "r1", 1, 0, "a", "digits", BUNDLE, Status.QUEUED, Phase.QUEUED, 10.0)
    report = JobStatus("j1", "a", Status.FAILED, Phase.FAILED, 1, "", {}, 1.0)
    assert hear_status(order, replace(report, device="b"), 1.0) == order
    assert hear_status(order, replace(report, job_id="j2"), 1.0) == order


def test_wave_states_are_the_contract_words():
    assert {wave.state for wave in Fleet(["a"], ["b"]).rollout.waves} == {WaveState.RUNNING, WaveState.PENDING}
