# SPDX-License-Identifier: Apache-2.0
"""An order to try a model beside the active one: the candidate answers along, and the device never switches."""

import pytest

from edge_agent.core.probation import Evidence
from edge_agent.core.shadowing import figures, judge
from edge_contract.canonical import as_float
from edge_contract.jobs import JobDocument, Probation
from edge_contract.messages import SHADOW_TRIAL
from edge_contract.states import Phase, Status
from tests.support.device_sim import NEW, OLD, Behaviour, Device, job

RULES = Probation(inferences=50, timeout_s=60.0)


def trial(job_id="j1", bundle=NEW, **changes):
    return job(job_id, bundle, kind="shadow", **{"probation": RULES, **changes})


def last(device, job_id="j1"):
    return device.server.statuses[job_id]


def test_a_candidate_that_agrees_is_tried_and_the_device_runs_what_it_ran():
    device = Device()
    device.run(5)
    device.order(trial())
    device.run(60)
    said = last(device)
    assert (said.status, said.phase) == (Status.SUCCEEDED, Phase.DONE)
    assert said.details["compared"] >= 50
    assert as_float(said.details["agreement"]) == 1.0
    assert device.disk.pointers["active"] == OLD
    assert device.server.reported.models["digits"].running == OLD
    assert SHADOW_TRIAL in device.server.reported.features


def test_what_was_tried_is_installed_without_another_download():
    device = Device()
    device.run(5)
    device.order(trial())
    device.run(60)
    assert NEW in device.disk.complete
    device.order(job("j2", NEW, probation=RULES))
    device.run(120)
    assert last(device, "j2").status is Status.SUCCEEDED
    assert device.disk.pointers["active"] == NEW


def test_a_candidate_that_disagrees_fails_and_nothing_was_switched():
    device = Device(new=Behaviour("2.0.0", agreement=0.0))
    device.run(5)
    device.order(trial())
    device.run(60)
    said = last(device)
    assert (said.status, said.phase) == (Status.FAILED, Phase.FAILED)
    assert "agrees with the active model on 0.0%" in said.reason
    assert device.disk.pointers["active"] == OLD


def test_a_trial_can_be_cancelled_and_superseded():
    device = Device()
    device.run(5)
    slow = Probation(inferences=10_000_000, timeout_s=500.0)
    device.order(trial(probation=slow))
    device.run(30)
    assert last(device).phase is Phase.SHADOWING
    device.order(job("j2", NEW, probation=RULES))
    device.run(120)
    assert last(device).status is Status.SUPERSEDED
    assert last(device, "j2").status is Status.SUCCEEDED


def test_a_trial_lasts_as_long_as_it_is_asked_to():
    device = Device()
    device.run(5)
    device.order(trial(probation=Probation(inferences=1, min_s=90.0, timeout_s=200.0)))
    device.run(60)
    assert last(device).phase is Phase.SHADOWING
    device.run(60)
    assert last(device).status is Status.SUCCEEDED
    assert as_float(last(device).details["shadow_s"]) >= 90.0


def test_a_restart_of_the_agent_goes_on_with_the_trial():
    device = Device()
    device.run(5)
    device.order(trial(probation=Probation(inferences=1, min_s=50.0, timeout_s=200.0)))
    device.run(30)
    device.boot()
    device.run(90)
    assert last(device).status is Status.SUCCEEDED
    assert device.disk.pointers["active"] == OLD


def test_a_device_without_an_active_model_says_that_there_is_nothing_to_compare_with():
    device = Device(installed="")
    device.run(5)
    device.order(trial())
    device.run(60)
    assert last(device).status is Status.FAILED
    assert last(device).reason == "there is no active model to compare with"


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (Evidence(compared=50, agreed=50, active_us=100.0, shadow_us=900.0), "9.00 times the active model's latency"),
        (Evidence(compared=10, agreed=10, unanswered=2), "failed on 2 of 12 inputs"),
        (Evidence(crashes=2), "crashed 2 times beside it"),
        (Evidence(compared=3, agreed=3, waited_s=60.0), "only 3 of 50 inputs compared in 60 s"),
    ],
)
def test_a_trial_fails_for_a_reason_in_words(seen, words):
    healthy, reason = judge(RULES, seen)
    assert healthy is False
    assert words in reason


def test_figures_are_those_that_the_server_judges():
    seen = Evidence(compared=40, agreed=30, active_us=4000.0, shadow_us=8000.0, waited_s=5.0)
    found = figures(seen)
    assert (found["agreement"], found["latency_ratio"], found["shadow_mean_us"]) == (0.75, 2.0, 200.0)


def test_an_order_of_the_version_before_says_nothing_of_a_shortest_time():
    assert "min_s" not in Probation().to_json()
    assert Probation.from_json(Probation(min_s=5.0).to_json()).min_s == 5.0
    assert JobDocument.from_bytes(trial().to_bytes()).kind == "shadow"
