# SPDX-License-Identifier: Apache-2.0
"""The reset ladder in a device: each hang climbs one rung, none is held against a model, the CPU answers at last.

Pain 17: a stick that hangs is a fault of the device (google-coral/edgetpu 766, Frigate 9663).
"""

from dataclasses import replace

import pytest

from edge_agent.core import effects as ef
from edge_agent.core import events as ev
from edge_agent.core import reset
from edge_agent.core.ladder import Rungs
from edge_agent.core.state import journal
from edge_agent.runner.watchdog import EXIT_HUNG
from edge_contract.jobs import Probation
from tests.support.device_sim import NEW, OLD, Behaviour, Device, job

PATIENT = Probation(inferences=400, timeout_s=60.0)


def accelerated(rungs=Rungs(restarts=1, re_enumerations=1), **how) -> Device:
    """A device whose model runs on an accelerator."""
    device = Device(**how)
    lane = device.state.first
    device.state = device.state.with_lane(replace(lane, plan=replace(lane.plan, runtime="edgetpu", rungs=rungs)))
    device.run(3)
    return device


def hang(device: Device, seconds: int = 3) -> None:
    device.end_runner(EXIT_HUNG)
    device.run(seconds)


def done(device: Device) -> list[str]:
    return [body["action"] for body in device.server.bodies("event") if body["kind"] == "accelerator"]


def starts(device: Device) -> list[bool]:
    return [effect.is_on_cpu for effect in device.trace if isinstance(effect, ef.StartRunner)]


def accelerator(device: Device) -> str:
    device.run(1)
    assert device.server.reported is not None
    return str(device.server.reported.models["digits"].unrecognized.get("accelerator", ""))


def test_each_hang_climbs_one_rung_and_at_last_the_cpu_answers_with_one_alarm() -> None:
    device = accelerated()
    for _ in range(3):
        hang(device)
    assert done(device) == ["restart", "re_enumerate", "use_cpu"]
    assert starts(device) == [False, False, False, True]
    cpu = next(effect for effect in device.trace if isinstance(effect, ef.StartRunner) and effect.is_on_cpu)
    assert (cpu.model, cpu.bundle) == ("digits", OLD)
    (alarm,) = device.server.bodies("alarm")
    assert (alarm["kind"], alarm["failures"], alarm["code"]) == ("accelerator", 3, EXIT_HUNG)
    assert accelerator(device) == "failed"
    assert device.state.first.runner.active == OLD


def test_a_hang_is_not_held_against_a_model_on_trial() -> None:
    """Three hangs in the probation of a good model: it waits for its evidence, and passes."""
    device = accelerated()
    device.order(job(probation=PATIENT))
    device.run_until("health_check")
    for _ in range(3):
        hang(device)
        assert device.state.first.update.phase == "health_check"
    device.run(40)
    assert (device.status(), device.active) == ("SUCCEEDED", NEW)
    assert device.server.statuses["j1"].details["crashes"] == 0


def test_nor_is_one_where_the_bundle_has_nothing_for_the_cpu() -> None:
    """The rim then starts the accelerator's runner again; it goes on to hang, ever more seldom."""
    device = accelerated(Rungs(restarts=0, re_enumerations=0))
    device.order(job(probation=PATIENT))
    device.run_until("health_check")
    for _ in range(4):
        hang(device, seconds=10)
    device.run(40)
    assert (device.status(), device.active) == ("SUCCEEDED", NEW)
    assert len(starts(device)) == 5


def test_a_crash_of_another_kind_still_is() -> None:
    device = accelerated(new=Behaviour("2.0.0", crash_after=40))
    device.order(job(probation=PATIENT))
    device.run(60)
    assert (device.status(), device.active) == ("FAILED", OLD)
    assert "the runner crashed" in device.server.statuses["j1"].reason


def test_without_a_ladder_a_hang_is_a_crash_like_any_other() -> None:
    device = Device()
    device.run(3)
    hang(device)
    assert done(device) == []
    assert device.state.first.runner.crashes == 1


def test_the_runner_waits_for_the_re_enumeration_but_not_for_ever() -> None:
    device = accelerated(Rungs(restarts=0, re_enumerations=1))
    device.hanging.add("re_enumerate")
    hang(device, seconds=30)
    assert len(starts(device)) == 1
    device.run(int(reset.RESET_S))
    assert starts(device) == [False, False]


def test_the_accelerator_is_tried_again_and_a_quiet_time_forgives() -> None:
    rungs = Rungs(restarts=0, re_enumerations=0, stable_s=60.0, retry_s=100.0)
    device = accelerated(rungs)
    hang(device)
    assert starts(device)[-1] is True
    device.run(110)
    assert starts(device)[-1] is False
    assert done(device) == ["use_cpu", "use_accelerator"]
    assert accelerator(device) == ""
    device.run(70)
    assert device.state.first.ladder.failures == 0


def test_no_try_disturbs_an_order_under_way() -> None:
    device = accelerated(Rungs(restarts=0, re_enumerations=1, retry_s=20.0))
    hang(device)
    device.end_runner(EXIT_HUNG)
    device.run(2)
    device.order(job(probation=replace(PATIENT, inferences=1000)))
    device.run_until("health_check")
    device.run(40)
    assert starts(device)[-1] is True, "its trial is on the CPU"
    device.run(40)
    assert (device.status(), starts(device)[-1]) == ("SUCCEEDED", False)


def test_a_refusal_by_a_gone_device_does_not_outlive_the_move() -> None:
    device = accelerated(Rungs(restarts=0, re_enumerations=0))
    lane = device.state.first
    refused = replace(lane.runner, failed={("active", OLD): "golden self-test failed"})
    lane, _ = reset.failed(
        replace(lane, runner=refused, baseline=(OLD, 80.0)), ev.RunnerExited(device.now(), EXIT_HUNG)
    )
    assert (lane.runner.failed, lane.baseline) == ({}, ("", 0.0))


def test_the_journal_does_not_know_the_ladder() -> None:
    """A start of the agent begins with the accelerator: a power cycle is what heals most sticks."""
    device = accelerated()
    before = journal(device.state).keys()
    for _ in range(3):
        hang(device)
    assert journal(device.state).keys() == before
    device.power_cycle()
    device.run(3)
    assert starts(device)[-1] is False


def test_core_and_runner_mean_the_same_exit_code() -> None:
    assert reset.HUNG == EXIT_HUNG


@pytest.mark.parametrize("phase", ["verifying", "activating"])
def test_a_hang_while_the_candidate_loads_is_not_its_crash(phase: str) -> None:
    device = accelerated()
    device.order(job())
    device.run_until(phase)
    hang(device)
    device.run(40)
    assert device.status() == "SUCCEEDED"
    assert device.server.statuses["j1"].details["crashes"] == 0
