# SPDX-License-Identifier: Apache-2.0
"""Stories of a rollout's limits: rates, windows, shares, offline devices, attempts, gates, cancel. Time is a value."""

from dataclasses import replace

import pytest

from edge_contract.errors import RolloutError
from edge_contract.jobs import Probation
from edge_contract.states import Phase, RolloutEvent, RolloutState, Status
from fleet.core import changes
from fleet.core.engine import AskCancel, CloseOrder, Issue
from fleet.core.gates import WaveVerdict
from fleet.core.limits import NO_LIMIT, Limits, Offline, Rate, Schedule
from fleet.core.ordering import MOST
from fleet.core.rollout import Rollout
from fleet.core.waves import Wave, build_waves
from tests.fleet.test_engine import BUNDLE, OLD, Fleet

NAMES = [f"d{i:02}" for i in range(40)]
THURSDAY_NOON = 12 * 3600.0


def seconds(fleet, count, step=1.0):
    for _ in range(count):
        fleet.tick(step)


def test_a_constant_rate_lets_so_many_devices_a_minute_go():
    fleet = Fleet(NAMES, rate=Rate(10))
    assert len(fleet.issued()) == 1
    seconds(fleet, 60)
    assert len(fleet.issued()) == 11
    seconds(fleet, 120)
    assert len(fleet.issued()) == 31


def test_a_rate_that_was_held_up_floods_nobody_afterwards():
    fleet = Fleet(NAMES, rate=Rate(60))
    fleet.rollout = changes.pause(fleet.rollout)
    seconds(fleet, 600)
    fleet.rollout = changes.resume(fleet.rollout, fleet.now)
    fleet.tick()
    assert len(fleet.issued()) <= 12  # ten seconds' worth, not ten minutes'


def test_an_exponential_rate_grows_with_the_successes_of_its_wave():
    fleet = Fleet(NAMES, rate=Rate(6, factor=10, after=2))
    seconds(fleet, 11)
    first = fleet.issued()
    assert len(first) == 2
    for device in first:
        fleet.succeeds(device)
    seconds(fleet, 20)
    assert len(fleet.issued()) >= 20


def test_a_clock_that_goes_back_does_not_stop_a_rate():
    fleet = Fleet(NAMES, rate=Rate(60))
    seconds(fleet, 3)
    fleet.now -= 5000.0
    before = len(fleet.issued())
    seconds(fleet, 5)
    assert len(fleet.issued()) > before


def test_one_step_orders_no_more_than_it_can_carry():
    fleet = Fleet([f"d{i}" for i in range(MOST + 5)])
    assert len(fleet.issued()) == MOST
    fleet.tick(1)
    assert len(fleet.issued()) == MOST + 5


def test_orders_leave_only_inside_the_windows_and_devices_at_work_finish():
    fleet = Fleet(["a", "b"], now=THURSDAY_NOON, schedule=Schedule(windows=("22:00-05:00",)), rate=Rate(1))
    assert fleet.issued() == []
    fleet.tick(10 * 3600)
    assert fleet.issued() == ["a"]
    fleet.tick(7 * 3600)
    assert fleet.issued() == ["a"]
    assert fleet.status("a") is Status.TIMED_OUT


def test_a_window_by_the_devices_clock_opens_for_each_of_them_at_its_own_time():
    more = {"offsets": {"tokyo": 9 * 3600.0, "berlin": 3600.0}}
    night = Schedule(windows=("20:00-23:00",), clock="device")
    fleet = Fleet(["berlin", "tokyo"], now=THURSDAY_NOON, more=more, schedule=night)
    assert fleet.issued() == ["tokyo"]
    fleet.succeeds("tokyo")
    fleet.tick(7 * 3600)
    assert fleet.issued() == ["tokyo", "berlin"]


def test_a_rollout_waits_for_its_start_and_orders_nobody_after_its_end():
    fleet = Fleet([], schedule=Schedule(start_at=5000.0, end_at=9000.0))
    waiting = Rollout("r1", 1, "digits", "2", BUNDLE, fleet.rollout.limits, (Wave(("a",)), Wave(("b",))), 1000.0)
    fleet.rollout = changes.release(waiting)
    fleet.now = 4999.0
    fleet.tick()
    assert (fleet.rollout.state, fleet.issued()) == (RolloutState.SCHEDULED, [])
    fleet.tick(1)
    assert fleet.issued() == ["a"]
    fleet.now = 9000.0
    fleet.succeeds("a")
    assert fleet.issued() == ["a"]
    assert fleet.rollout.state is RolloutState.COMPLETED
    assert fleet.waves() == ["PASSED", "SKIPPED"]


@pytest.mark.parametrize(("policy", "state"), [("wait", "ABORTED"), ("excuse", "COMPLETED")])
def test_a_device_that_never_answers_fails_or_is_excused(policy, state):
    fleet = Fleet(["a", "b"], offline=Offline(policy), timeout_s=100, grace_s=0)
    fleet.succeeds("b")
    fleet.tick(100)
    assert fleet.rollout.state.value == state


def test_devices_that_were_not_seen_for_long_are_skipped():
    fleet = Fleet(["a", "b"], more={"absent": {"a": "skipped: not seen for 9.0 days"}})
    assert fleet.issued() == ["b"]
    assert (fleet.status("a"), fleet.executions["a"].reason) == (Status.REMOVED, "skipped: not seen for 9.0 days")
    fleet.succeeds("b")
    assert fleet.rollout.state is RolloutState.COMPLETED


def test_a_failed_device_tries_again_and_only_its_last_attempt_counts():
    fleet = Fleet(["a"], retries=2, retry_wait_s=30)
    fleet.says("a", Status.FAILED, Phase.FAILED, seq=9, reason="no space")
    assert fleet.rollout.state is RolloutState.RUNNING
    fleet.tick(29)
    assert fleet.executions["a"].attempt == 1
    fleet.tick(1)
    first, second = fleet.past[0], fleet.executions["a"]
    assert (second.attempt, second.status, first.past) == (2, Status.QUEUED, True)
    assert second.job_id > first.job_id
    fleet.says("a", Status.FAILED, Phase.FAILED, seq=9, reason="no space")
    fleet.tick(59)
    assert fleet.executions["a"].attempt == 2  # the pause doubles
    fleet.tick(1)
    fleet.succeeds("a")
    assert fleet.rollout.state is RolloutState.COMPLETED
    assert [a.execution.attempt for a in fleet.actions if isinstance(a, Issue)] == [1, 2, 3]


def test_attempts_that_are_used_up_count_as_one_failure():
    fleet = Fleet(["a", "b"], retries=1, retry_wait_s=10, max_failures=1)
    for _ in range(2):
        fleet.says("a", Status.FAILED, Phase.FAILED, seq=9, reason="no space")
        fleet.tick(10)
    fleet.succeeds("b")
    assert fleet.rollout.state is RolloutState.COMPLETED
    assert len(fleet.past) == 1


def test_a_device_that_rolled_back_has_judged_the_bundle_and_is_not_asked_again():
    fleet = Fleet(["a"], ["b"], retries=5)
    fleet.fails("a")
    assert fleet.rollout.state is RolloutState.ABORTED


def test_a_share_of_the_finished_devices_stops_the_rollout_once_enough_have_finished():
    limits = {"max_failures": NO_LIMIT, "max_failed_share": 0.25, "min_finished": 4}
    fleet = Fleet(["a", "b", "c", "d", "e", "f"], **limits)
    fleet.fails("a")
    fleet.fails("b")
    fleet.succeeds("c")
    assert fleet.rollout.state is RolloutState.RUNNING
    fleet.succeeds("d")
    assert fleet.rollout.state is RolloutState.ABORTED
    assert fleet.rollout.reason.startswith("2 of 4 finished devices failed, more than 25%; a and 1 more rolled back")


def test_a_wave_has_a_share_of_its_own():
    limits = {"max_failures": NO_LIMIT, "max_wave_failed_share": 0.5, "min_wave_finished": 2}
    fleet = Fleet(["a", "b", "c"], ["d", "e", "f"], **limits)
    for device in "abc":
        fleet.succeeds(device)
    fleet.fails("d")
    assert fleet.rollout.state is RolloutState.RUNNING
    fleet.fails("e")
    assert fleet.rollout.reason.startswith("wave 2: 2 of 2 finished devices failed, more than 50%; d and 1 more")


def test_a_wave_may_go_on_without_its_last_devices_but_the_rollout_waits_for_them():
    fleet = Fleet(["a", "b", "c", "d"], ["e"], finished_share=0.75)
    for device in "abc":
        fleet.succeeds(device)
    assert fleet.waves() == ["PASSED", "RUNNING"]
    fleet.succeeds("e")
    assert fleet.rollout.state is RolloutState.RUNNING
    fleet.succeeds("d")
    assert fleet.rollout.reason == "5 devices updated"


def test_gates_hold_a_wave_after_its_soak_and_let_it_pass():
    fleet = Fleet(["a"], ["b"], soak_s=10, more={"verdict": WaveVerdict("wait", "2 of 40 rows")})
    fleet.succeeds("a")
    fleet.tick(100)
    assert fleet.waves() == ["SOAKING", "PENDING"]
    fleet.more["verdict"] = WaveVerdict("pass", "nothing speaks against it")
    fleet.tick(1)
    assert fleet.waves() == ["PASSED", "RUNNING"]


def test_gates_look_at_a_wave_once_it_is_in_however_short_its_soak():
    """The verdict at hand when the last device comes in is of before it was in: it lets nobody pass."""
    fleet = Fleet(["a"], ["b"], soak_s=0, gates={}, more={"verdict": WaveVerdict("pass", "of one look before")})
    fleet.succeeds("a")
    assert fleet.waves() == ["SOAKING", "PENDING"]
    fleet.tick(1)
    assert fleet.waves() == ["PASSED", "RUNNING"]


def test_gates_stop_a_rollout_with_their_words():
    fleet = Fleet(["a", "b"], ["c"], more={"verdict": WaveVerdict("fail", "latency grew by 12 %")})
    assert fleet.rollout.state is RolloutState.ABORTED
    assert fleet.rollout.reason == "latency grew by 12 %"


def test_gates_without_evidence_pause_the_rollout_and_an_operator_sends_it_on():
    fleet = Fleet(["a"], ["b"], gate_timeout_s=60, more={"verdict": WaveVerdict("wait", "no rows")})
    fleet.succeeds("a")
    fleet.tick(60)
    assert fleet.rollout.state is RolloutState.PAUSED
    assert fleet.rollout.reason == "wave 1 has too little evidence: no rows"
    fleet.rollout = changes.resume(fleet.rollout, fleet.now)
    fleet.tick(59)
    assert (fleet.rollout.state, fleet.rollout.reason) == (RolloutState.RUNNING, "")
    fleet.rollout = changes.advance_wave(fleet.rollout)
    fleet.tick()
    assert fleet.waves() == ["PASSED", "RUNNING"]


def test_a_cancel_is_a_handshake_and_the_rollout_ends_after_the_last_word():
    fleet = Fleet(["a", "b", "c"], cancel_s=60)
    fleet.says("a", Status.IN_PROGRESS)
    fleet.succeeds("c")
    fleet.rollout = changes.cancel(fleet.rollout, "cancelled by eve", fleet.now)
    fleet.tick()
    assert fleet.rollout.state is RolloutState.ABORTING
    assert {a.execution.device for a in fleet.actions if isinstance(a, AskCancel)} == {"a", "b"}
    fleet.says("a", Status.CANCELED, Phase.CANCELED, seq=2)
    assert fleet.rollout.state is RolloutState.ABORTING
    fleet.tick(60)
    assert fleet.status("b") is Status.CANCELED
    assert fleet.executions["b"].reason.startswith("forced")
    assert fleet.rollout.state is RolloutState.ABORTED
    assert fleet.rollout.reason == "cancelled by eve: 1 updated, 0 failed, 2 cancelled"
    assert len([a for a in fleet.actions if isinstance(a, AskCancel)]) == 2


def test_a_device_that_cannot_cancel_any_more_ends_with_its_own_result():
    fleet = Fleet(["a"], cancel_s=60)
    fleet.says("a", Status.IN_PROGRESS, Phase.COMMITTING)
    fleet.rollout = changes.cancel(fleet.rollout, "cancelled by eve", fleet.now)
    fleet.tick()
    fleet.succeeds("a")
    assert fleet.status("a") is Status.SUCCEEDED
    assert fleet.rollout.reason == "cancelled by eve: 1 updated, 0 failed, 0 cancelled"


def test_an_automatic_roll_back_waits_for_the_rollouts_that_carry_it_out():
    fleet = Fleet(["a"], ["b"], on_failure="roll-back", max_failures=0)
    fleet.succeeds("a")
    fleet.fails("b")
    assert fleet.rollout.state is RolloutState.ROLLING_BACK
    fleet.rollout = replace(fleet.rollout, rollbacks=("r2", "r3"))
    fleet.more["rollbacks"] = {"r2": RolloutState.COMPLETED, "r3": RolloutState.RUNNING}
    fleet.tick()
    assert fleet.rollout.state is RolloutState.ROLLING_BACK
    fleet.more["rollbacks"]["r3"] = RolloutState.COMPLETED
    fleet.tick()
    assert fleet.rollout.state is RolloutState.ROLLED_BACK


def test_a_roll_back_that_fails_leaves_the_rollout_aborted_and_says_so():
    fleet = Fleet(["a"], ["b"], on_failure="roll-back")
    fleet.succeeds("a")
    fleet.fails("b")
    fleet.rollout = replace(fleet.rollout, rollbacks=("r2",))
    fleet.more["rollbacks"] = {"r2": RolloutState.ABORTED}
    fleet.tick()
    assert fleet.rollout.state is RolloutState.ABORTED
    assert fleet.rollout.reason.endswith("; r2 did not bring it all back")


def shadowed(**more):
    waves = build_waves([{"count": 1, "kind": "shadow"}, {"rest": True}], ["a", "b"])
    return Fleet(*waves, shadow=Probation(inferences=10), more={"can_shadow": {"a", "b"}, **more})


def test_a_shadow_wave_switches_nothing_and_is_proved_by_what_was_compared():
    fleet = shadowed()
    fleet.running = {"a": OLD, "b": OLD}
    assert [(a.execution.device, a.execution.kind) for a in fleet.actions] == [("a", "shadow")]
    fleet.says("a", Status.SUCCEEDED, Phase.DONE)
    assert fleet.status("a") is Status.IN_PROGRESS  # a claim without a comparison
    order = fleet.executions["a"]
    fleet.executions["a"] = replace(order, details={"compared": 10, "agreement": 0.98})
    fleet.tick()
    assert fleet.waves() == ["PASSED", "RUNNING"]
    assert [e.status for e in fleet.past] == [Status.SUCCEEDED]
    assert sorted(fleet.issued()) == ["a", "a", "b"]
    assert fleet.executions["a"].kind == "install"


def test_a_failed_shadow_stops_the_plan_before_anything_is_installed():
    fleet = shadowed()
    fleet.says("a", Status.FAILED, Phase.FAILED, seq=9, reason="agrees on 40.0% of 10 inputs, below 80%")
    assert fleet.rollout.state is RolloutState.ABORTED
    assert fleet.issued() == ["a"]
    assert fleet.closed()["a"].restore is None


def test_a_shadow_that_nobody_can_run_stops_the_plan():
    fleet = shadowed(can_shadow=set())
    assert fleet.rollout.state is RolloutState.ABORTED
    assert fleet.rollout.reason == ("no device of wave 1 could compare the models: a: its agent cannot run a shadow")


def test_waves_by_hand_and_who_may_approve():
    draft = Rollout("r1", 1, "m", "1", BUNDLE, Limits(), (Wave(("a",)),), 0.0, created_by="ann", needs_approval=True)
    asked = changes.release(draft)
    with pytest.raises(RolloutError, match=r"rollout r1: 'ann' wrote it and may not approve it"):
        changes.approve(asked, "ann")
    with pytest.raises(RolloutError, match="may not deny it"):
        changes.deny(asked, "ann", "", 1.0)
    approved = changes.approve(asked, "bob")
    assert (approved.state, approved.approved_by) == (RolloutState.SCHEDULED, "bob")
    assert changes.deny(asked, "bob", "too large", 1.0).reason == "denied by bob: too large"
    with pytest.raises(RolloutError, match="SCHEDULED does not accept 'approve'"):
        changes.approve(approved, "bob")
    with pytest.raises(RolloutError, match="it is SCHEDULED"):
        changes.advance_wave(approved)
    running = approved.after(RolloutEvent.START)
    assert changes.skip_wave(running).waves[0].state.value == "SKIPPED"
    with pytest.raises(RolloutError, match="no wave is at work"):
        changes.advance_wave(running)


def test_a_stopped_rollout_takes_every_order_back_once():
    fleet = Fleet(["a", "b", "c"], retries=3)
    fleet.says("a", Status.FAILED, Phase.FAILED, seq=9)
    fleet.rollout = changes.abort(fleet.rollout, "enough", fleet.now)
    fleet.tick()
    fleet.tick(1e6)
    assert {d: e.status.value for d, e in fleet.executions.items()} == {
        "a": "FAILED",
        "b": "CANCELED",
        "c": "CANCELED",
    }
    assert len([a for a in fleet.actions if isinstance(a, CloseOrder)]) == 3
    assert not any(e.retry_at for e in fleet.executions.values())
