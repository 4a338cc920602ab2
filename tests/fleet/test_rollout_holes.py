# SPDX-License-Identifier: Apache-2.0
"""Holes of other engines by name, and what ours does instead. Each is a public bug or a documented limit."""

import pytest

from edge_contract.states import Phase, RolloutState, Status, WaveState
from fleet.core import changes
from fleet.core.engine import CloseOrder, remove_device
from fleet.core.limits import NO_LIMIT, Offline
from fleet.core.rollout import Rollout
from tests.fleet.test_engine import BUNDLE, OLD, Fleet


def test_hawkbit_3185_success_before_the_device_is_healthy_is_a_claim():
    fleet = Fleet(["a"], ["b"])
    fleet.running["a"] = OLD
    fleet.says("a", Status.SUCCEEDED, Phase.DONE, seq=9)
    assert fleet.status("a") is Status.IN_PROGRESS
    assert fleet.issued() == ["a"]


def test_hawkbit_693_nothing_stays_in_progress_for_ever():
    fleet = Fleet(["a"], timeout_s=60, grace_s=5)
    fleet.says("a", Status.IN_PROGRESS, Phase.DOWNLOADING)
    fleet.tick(65)
    assert fleet.rollout.state is RolloutState.ABORTED
    assert fleet.closed()["a"].ask_cancel


def test_hawkbit_threshold_over_the_whole_group_trips_late_and_ours_at_the_first_answers():
    """2 of 100 is 2 % of the group, but 2 of the 2 that have an answer: the canary of a slow group has failed."""
    names = [f"d{i:03}" for i in range(100)]
    fleet = Fleet(names, ["later"], max_failures=NO_LIMIT, max_failed_share=0.1, min_finished=2)
    fleet.fails(names[3])
    assert fleet.rollout.state is RolloutState.RUNNING
    fleet.fails(names[7])
    assert fleet.rollout.state is RolloutState.ABORTED
    assert "later" not in fleet.executions


def test_hawkbit_2161_pausing_a_paused_rollout_is_a_no_op():
    fleet = Fleet(["a"])
    once = changes.pause(fleet.rollout)
    assert changes.pause(once) == once


def test_hawkbit_3110_a_deleted_device_cannot_make_a_threshold_unreachable():
    fleet = Fleet(["a", "b", "c"], max_failures=NO_LIMIT, max_failed_share=0.5, min_finished=3)
    fleet.succeeds("a")
    fleet.fails("b")
    fleet.executions = remove_device(fleet.executions, "c", fleet.now)
    fleet.tick()
    assert fleet.rollout.state is RolloutState.COMPLETED


def test_hawkbit_3110_a_wave_that_meets_neither_limit_still_runs_one_end_action():
    fleet = Fleet(["a", "b"], ["c"], max_failures=1)
    fleet.fails("a")
    fleet.succeeds("b")
    for _ in range(3):
        fleet.tick(1)
    assert fleet.waves() == ["PASSED", "RUNNING"]
    assert [a.execution.device for a in fleet.actions if isinstance(a, CloseOrder)] == ["a", "b"]


@pytest.mark.parametrize("waves", [(), ([],), ([], [])])
def test_hawkbit_1770_and_735_a_rollout_to_nobody_ends(waves):
    assert Fleet(*waves).rollout.reason == "empty: no device matched"


def test_aws_a_retried_execution_counts_once():
    fleet = Fleet(["a", "b"], retries=1, retry_wait_s=5, max_failures=0)
    fleet.says("a", Status.FAILED, Phase.FAILED, seq=9, reason="no space")
    fleet.tick(5)
    fleet.succeeds("a")
    fleet.succeeds("b")
    assert fleet.rollout.state is RolloutState.COMPLETED
    assert fleet.rollout.reason == "2 devices updated"


def test_aws_a_continuous_job_never_ends_and_ours_does_though_devices_join():
    fleet = Fleet(["a"])
    document = {**fleet.rollout.to_json(), "dynamic": True}
    document["waves"][0]["is_rest"] = True
    fleet.rollout = changes.join(Rollout.from_json(document), ["a", "new"])
    fleet.succeeds("a")
    assert fleet.issued() == ["a", "new"]
    fleet.succeeds("new")
    assert fleet.rollout.state is RolloutState.COMPLETED
    assert changes.join(fleet.rollout, ["late"]) == fleet.rollout


def test_azure_a_device_that_is_away_does_not_hold_the_rollout_for_ever():
    fleet = Fleet(["a", "away"], ["b"], offline=Offline("excuse"), timeout_s=60, grace_s=0)
    fleet.succeeds("a")
    fleet.tick(60)
    assert fleet.rollout.waves[0].state is WaveState.PASSED
    assert fleet.status("away") is Status.CANCELED


def test_a_cancel_that_a_device_never_confirms_is_forced_and_its_late_word_changes_nothing():
    fleet = Fleet(["a"], cancel_s=10)
    fleet.says("a", Status.IN_PROGRESS, Phase.DOWNLOADING)
    fleet.rollout = changes.cancel(fleet.rollout, "cancelled by eve", fleet.now)
    fleet.tick()
    fleet.tick(10)
    assert fleet.rollout.state is RolloutState.ABORTED
    fleet.running["a"] = BUNDLE
    fleet.says("a", Status.SUCCEEDED, Phase.DONE, seq=9)
    assert fleet.status("a") is Status.CANCELED


def test_a_forward_jump_of_the_clock_ends_orders_once():
    fleet = Fleet(["a", "b"], offline=Offline("excuse"))
    fleet.tick(1e7)
    fleet.tick(-1e7)
    fleet.tick(1e7)
    assert {fleet.status(d) for d in ("a", "b")} == {Status.CANCELED}
    assert len(fleet.closed()) == len([a for a in fleet.actions if isinstance(a, CloseOrder)]) == 2
