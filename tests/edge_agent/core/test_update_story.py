# SPDX-License-Identifier: Apache-2.0
"""Stories of one device: installs, trials, roll backs, orders that come twice, late, old or not for us."""

import pytest

from edge_agent.core.effects import Forget
from edge_contract import canonical
from edge_contract.jobs import Probation, Signed
from edge_contract.states import Phase, Status
from tests.support.device_sim import NEW, NEWER, OLD, Behaviour, Device, job


def test_a_good_bundle_proves_itself_and_becomes_the_active_model() -> None:
    device = Device()
    device.run(3)
    device.order(job())
    device.run(20)
    assert device.status() == "SUCCEEDED"
    assert (device.active, device.disk.pointers["standby"], device.disk.pointers["factory"]) == (NEW, OLD, OLD)
    reported = device.server.reported
    assert reported is not None
    assert reported.models["digits"].running == NEW
    figures = device.server.statuses["j1"].details
    assert figures["inferences"] >= 100
    assert figures["compared"] >= 100


def test_the_first_model_of_an_empty_device_needs_no_agreement_and_is_pinned_as_factory_model() -> None:
    device = Device(installed="")
    device.order(job())
    device.run(20)
    assert device.status() == "SUCCEEDED"
    assert device.disk.pointers == {"active": NEW, "standby": "", "factory": NEW}


def test_the_candidate_runs_its_golden_test_as_a_shadow_before_the_pointer_moves() -> None:
    device = Device(new=Behaviour(loads=False))
    device.run(2)
    device.order(job())
    device.run(20)
    assert device.status() == "FAILED"
    assert "golden" in device.server.statuses["j1"].reason
    assert not [step for step in device.history if step.startswith("active:")]


BAD = {
    "disagreement": (Behaviour(agreement=0.5), "agrees with the previous model on 50.0%"),
    "errors": (Behaviour(error_rate=0.2), "inferences failed"),
    "latency": (Behaviour(latency_us=1000.0), "times the previous median latency"),
    "crashes": (Behaviour(crash_after=40), "the runner crashed 2 times"),
}


@pytest.mark.parametrize("name", BAD)
def test_each_rule_of_the_probation_rolls_a_bad_bundle_back(name: str) -> None:
    behaviour, reason = BAD[name]
    device = Device(new=behaviour)
    device.run(10)
    device.order(job())
    device.run(90)
    assert device.status() == "FAILED"
    status = device.server.statuses["j1"]
    assert status.phase is Phase.ROLLED_BACK
    assert reason in status.reason
    assert device.active == OLD
    assert device.server.reported is not None
    assert device.server.reported.models["digits"].running == OLD
    assert NEW not in device.disk.complete
    assert [body["kind"] for body in device.server.bodies("alarm")] == ["rolled_back"]


def test_a_trial_without_enough_inferences_ends_by_its_timeout() -> None:
    device = Device()
    device.has_source = False
    device.power_cycle()
    device.order(job())
    device.run(100)
    assert device.server.statuses["j1"].reason.startswith("only 0 of 100 inferences")
    assert device.active == OLD


def test_one_crash_is_forgiven_when_the_order_says_so() -> None:
    device = Device()
    device.run(3)
    device.order(job(probation=Probation(inferences=100, timeout_s=60, max_crashes=1)))
    device.run(4)
    assert device.state.first.update.phase == "health_check"
    device.end_runner()
    device.run(30)
    assert device.status() == "SUCCEEDED"
    assert device.server.statuses["j1"].details["crashes"] == 1


def test_a_failed_first_install_leaves_an_empty_device_empty() -> None:
    device = Device(installed="", new=Behaviour(error_rate=0.5))
    device.order(job())
    device.run(30)
    assert device.status() == "FAILED"
    assert device.active == ""
    assert device.state.first.runner.active == ""


def test_if_the_previous_model_does_not_load_either_the_factory_model_runs() -> None:
    device = Device(new=Behaviour(agreement=0.1), newer=Behaviour(version="factory"))
    device.disk.complete.add(NEWER)
    device.disk.pointers["factory"] = NEWER
    device.power_cycle()
    device.run(3)
    device.order(job())
    device.run_until("health_check")
    device.bundles[OLD] = Behaviour(loads=False)
    device.run(30)
    status = device.server.statuses["j1"]
    assert (status.status, status.phase) == (Status.FAILED, Phase.ROLLBACK_FAILED)
    assert device.active == NEWER
    assert device.state.first.runner.active == NEWER
    assert "rollback_failed" in [body["kind"] for body in device.server.bodies("alarm")]


def test_a_model_that_no_longer_loads_gives_way_to_the_standby_without_any_order() -> None:
    device = Device()
    device.disk.complete.add(NEW)
    device.disk.pointers.update(active=NEW, standby=OLD)
    device.bundles[NEW] = Behaviour(loads=False)
    device.power_cycle()
    device.run(5)
    assert device.state.first.runner.active == OLD
    assert [body["kind"] for body in device.server.bodies("alarm")] == ["fell_back"]


def test_the_same_order_again_repeats_the_stored_result_and_costs_no_check() -> None:
    device = Device()
    device.run(2)
    device.order(job())
    device.run(20)
    checks, count = device.checks, len(device.history)
    device.server.statuses.clear()
    device.order(job())
    device.run(3)
    assert device.status() == "SUCCEEDED"
    assert device.checks == checks
    assert not [step for step in device.history[count:] if step.startswith(("active", "journal:acc"))]


def test_a_result_that_the_server_missed_is_repeated_after_a_restart() -> None:
    device = Device()
    device.run(2)
    device.order(job())
    device.run(4)
    device.online = False
    device.run(20)
    assert device.status() == "IN_PROGRESS"
    device.power_cycle()
    device.run(3)
    device.online = True
    device.run(3)
    assert device.status() == "SUCCEEDED"


def test_an_older_order_is_ignored() -> None:
    device = Device()
    device.run(2)
    device.order(job("j5"))
    device.run(20)
    device.order(job("j4", NEWER))
    device.run(20)
    assert device.active == NEW
    assert device.status("j4") == ""
    assert {"kind": "old_order", "job_id": "j4", "newest": "j5"} in device.server.bodies("event")


def test_a_newer_order_supersedes_one_that_has_not_moved_the_pointer() -> None:
    device = Device()
    device.run(2)
    device.hanging.add("download")
    device.order(job("j1", NEW))
    device.run(5)
    assert device.state.first.update.phase == "downloading"
    device.hanging.clear()
    device.order(job("j2", NEWER))
    device.run(30)
    assert device.status("j1") == "SUPERSEDED"
    assert device.status("j2") == "SUCCEEDED"
    assert device.active == NEWER
    assert NEW not in device.disk.complete


def test_a_newer_order_waits_for_the_end_of_a_trial() -> None:
    device = Device()
    device.run(2)
    device.order(job("j1", NEW, probation=Probation(inferences=400, timeout_s=60.0)))
    device.run_until("health_check")
    device.order(job("j2", NEWER))
    device.run(2)
    assert device.state.first.update.execution is not None
    assert device.state.first.update.execution.job.job_id == "j1"
    device.run(40)
    assert (device.status("j1"), device.status("j2")) == ("SUCCEEDED", "SUCCEEDED")
    assert (device.active, device.disk.pointers["standby"]) == (NEWER, NEW)


REFUSED = {
    "another device": ({"device": "pi-2"}, "for device 'pi-2'"),
    "another model": ({"model": "faces"}, "runs model 'digits', not 'faces'"),
    "expired": ({"expires_at": 5.0}, "expired"),
    "no bundle id": ({"bundle": "../../etc"}, "is not a bundle id"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_order_that_does_not_fit_is_rejected_with_its_reason(name: str) -> None:
    changes, reason = REFUSED[name]
    device = Device()
    device.run(2)
    device.order(job(**changes))
    device.run(5)
    assert device.status() == "REJECTED"
    assert reason in device.server.statuses["j1"].reason
    assert device.active == OLD


def test_a_forged_order_changes_nothing_and_is_checked_only_once() -> None:
    device = Device()
    device.run(2)
    payload = Signed(job().to_bytes(), "key", "00").to_bytes()
    device.forged.add(canonical.digest(payload))
    for _ in range(3):
        device.say("job/next", payload)
        device.run(2)
    assert device.checks == 1
    assert device.status() == ""
    assert [body["kind"] for body in device.server.bodies("alarm")] == ["order_refused"]


def test_an_order_whose_id_is_no_topic_name_is_refused() -> None:
    device = Device()
    device.run(2)
    device.order(job("../j1"))
    device.run(3)
    assert device.state.first.update.execution is None
    assert [body["kind"] for body in device.server.bodies("alarm")] == ["order_refused"]


def test_offline_downloads_wait_and_go_on_when_the_network_is_back() -> None:
    device = Device()
    device.run(2)
    device.order(job())
    device.deliver()
    device.online = False
    device.run(50)
    assert device.state.first.update.phase in ("accepted", "downloading")
    device.online = True
    device.run(30)
    assert device.status() == "SUCCEEDED"


def test_a_deadline_before_activation_ends_the_order_and_keeps_the_download() -> None:
    device = Device()
    device.run(2)
    device.hanging.add("download")
    device.order(job(timeout_s=30.0))
    device.run(60)
    assert device.status() == "TIMED_OUT"
    assert device.active == OLD
    forgotten = [effect for effect in device.trace if isinstance(effect, Forget)]
    assert forgotten[-1].keep == (NEW,)


def test_a_deadline_during_the_trial_rolls_back_and_says_timed_out() -> None:
    device = Device()
    device.run(2)
    device.order(job(timeout_s=20.0, probation=Probation(inferences=100_000, timeout_s=600.0)))
    device.run(60)
    status = device.server.statuses["j1"]
    assert (status.status, status.phase) == (Status.TIMED_OUT, Phase.ROLLED_BACK)
    assert device.active == OLD


def test_the_deadline_counts_the_time_before_a_restart() -> None:
    device = Device()
    device.run(2)
    device.order(job(timeout_s=40.0, probation=Probation(inferences=100_000, timeout_s=600.0)))
    device.run(6)
    device.end_runner()  # a crash is written down, and with it the time so far
    device.run(20)
    device.end_runner()
    device.run(2)
    spent = device.state.first.update.execution.spent_s if device.state.first.update.execution else 99.0
    assert spent >= 20.0


def test_a_disk_that_refuses_the_pointer_is_tried_again() -> None:
    device = Device()
    device.run(2)
    device.flips_fail = True
    device.order(job())
    device.run(10)
    assert device.state.first.update.phase == "activating"
    assert "slots" in [body["kind"] for body in device.server.bodies("alarm")]
    device.flips_fail = False
    device.run(40)
    assert device.status() == "SUCCEEDED"


def test_installing_the_active_bundle_again_is_proved_and_changes_nothing() -> None:
    device = Device()
    device.run(2)
    device.order(job(bundle=OLD))
    device.run(20)
    assert device.status() == "SUCCEEDED"
    assert device.active == OLD
