# SPDX-License-Identifier: Apache-2.0
"""Power is lost before every single durable step; exactly one slot is bootable, and the order comes to its end."""

from collections.abc import Callable

import pytest

from edge_agent.core.execution import LOOP_GUARD
from edge_contract.jobs import Probation
from edge_contract.states import TERMINAL_STATUS, Phase
from tests.support.device_sim import NEW, OLD, Behaviour, Device, job


def _story(behaviour: Behaviour, installed: str) -> Device:
    device = Device(installed=installed, new=behaviour)
    device.run(3)
    device.order(job())
    return device


def _check_end(device: Device) -> None:
    """The invariant of every story: one active model or the old emptiness, and a result that fits it."""
    finished = device.state.first.update.finished
    assert device.state.first.update.execution is None
    assert finished is not None
    assert finished.report.status in TERMINAL_STATUS
    assert device.active in ("", *device.disk.complete)
    assert device.status() == finished.report.status.value
    assert device.state.first.runner.active == device.active
    if device.status() == "SUCCEEDED":
        assert device.active == NEW


STORIES: dict[str, tuple[Behaviour, str]] = {
    "a good update": (Behaviour("2.0.0"), OLD),
    "a bad update": (Behaviour("2.0.0", agreement=0.2), OLD),
    "a first install": (Behaviour("2.0.0"), ""),
    "a bad first install": (Behaviour("2.0.0", error_rate=0.5), ""),
}


def _durable_steps(make: Callable[[], Device]) -> int:
    device = make()
    before = device.ops
    device.run(60)
    _check_end(device)
    return device.ops - before


@pytest.mark.parametrize("name", STORIES)
def test_power_lost_before_each_durable_step_still_reaches_the_same_end(name: str) -> None:
    behaviour, installed = STORIES[name]

    def make() -> Device:
        return _story(behaviour, installed)

    steps = _durable_steps(make)
    assert steps > 10
    for cut in range(steps):
        device = make()
        device.cut_before = device.ops + cut
        device.run(90)
        assert "power" in device.history, cut
        _check_end(device)
        expected = NEW if behaviour.agreement == 1.0 and behaviour.error_rate == 0.0 else installed
        assert device.active == expected, (cut, device.history)


def test_power_lost_twice_in_a_row_still_reaches_the_end() -> None:
    def make() -> Device:
        return _story(Behaviour("2.0.0", agreement=0.2), OLD)

    steps = _durable_steps(make)
    for first in range(0, steps, 2):
        for second in range(6):
            device = make()
            device.cut_before = device.ops + first
            device.run(30)
            device.cut_before = device.ops + second
            device.run(90)
            _check_end(device)
            assert device.active == OLD


def test_every_journal_write_comes_before_the_pointer_that_it_announces() -> None:
    device = _story(Behaviour("2.0.0", agreement=0.2), OLD)
    device.run(60)
    steps = device.history
    assert steps.index("journal:activating") < steps.index("active:b")
    assert steps.index("journal:rolling_back") < steps.index("active:a")


def test_a_device_that_loses_power_in_every_trial_blames_the_new_model() -> None:
    device = _story(Behaviour("2.0.0"), OLD)
    device.run(3)
    for _ in range(6):
        device.power_cycle()
        device.run(2)
    device.run(30)
    _check_end(device)
    assert device.active == OLD
    assert "restarted" in device.server.statuses["j1"].reason


@pytest.mark.parametrize("phase", ["downloading", "rolling_back"])
def test_a_device_that_reboots_for_ever_is_stopped_by_the_loop_guard(phase: str) -> None:
    device = _story(Behaviour("2.0.0", agreement=0.2), OLD)
    device.run_until(phase)
    writes: list[int] = []
    while device.state.first.update.execution is not None and len(writes) < 2 * LOOP_GUARD:
        writes.append(device.state.first.update.execution.writes)
        device.boot()
    assert LOOP_GUARD - 2 <= writes[-1] <= LOOP_GUARD
    assert device.state.first.update.finished is not None
    assert device.state.first.update.finished.report.phase in (Phase.FAILED, Phase.ROLLBACK_FAILED)
    device.run(5)
    assert device.active == OLD
    assert device.state.first.runner.active == OLD


def test_a_device_whose_runner_crashes_for_ever_is_stopped_by_the_loop_guard_too() -> None:
    device = Device(new=Behaviour("2.0.0", crash_after=20))
    device.run(3)
    device.order(job(probation=Probation(inferences=10_000, timeout_s=1e6, max_crashes=1000), timeout_s=1e6))
    device.run(LOOP_GUARD * 70)
    _check_end(device)
    assert "loop guard" in device.server.statuses["j1"].reason
    assert device.active == OLD


@pytest.mark.parametrize("phase", ["accepted", "downloading", "verifying"])
def test_a_cancel_is_obeyed_before_the_pointer_moves(phase: str) -> None:
    device = _story(Behaviour("2.0.0"), OLD)
    device.run_until(phase)
    _cancel(device)
    _check_end(device)
    assert device.status() == "CANCELED"
    assert device.active == OLD
    assert NEW not in device.disk.complete


@pytest.mark.parametrize("phase", ["activating", "health_check", "rolling_back"])
def test_a_cancel_is_refused_once_the_pointer_may_have_moved(phase: str) -> None:
    device = _story(Behaviour("2.0.0", agreement=0.2), OLD)
    device.flips_fail = phase == "activating"
    device.run_until(phase)
    _cancel(device)
    _check_end(device)
    assert device.status() == "FAILED"
    assert "cancel_refused" in [body["kind"] for body in device.server.bodies("event")]


def _cancel(device: Device) -> None:
    """The cancel overtakes whatever waits."""
    device.order(job("j1x", kind="cancel"))
    for _ in ("the message", "the check of its envelope"):
        device.later.rotate(1)
        device.deliver()
    device.flips_fail = False
    device.run(60)


@pytest.mark.parametrize(
    "phase", ["accepted", "downloading", "verifying", "activating", "health_check", "rolling_back"]
)
def test_a_power_cut_in_each_phase_resumes_by_the_restart_table(phase: str) -> None:
    is_bad = phase == "rolling_back"
    device = _story(Behaviour("2.0.0", agreement=0.2 if is_bad else 1.0), OLD)
    device.flips_fail = phase == "activating"
    device.run_until(phase)
    device.flips_fail = False
    device.power_cycle()
    assert device.state.first.update.phase == phase or phase == "activating"
    device.run(60)
    _check_end(device)
    assert device.active == (OLD if is_bad else NEW)


JOURNALS = {
    "put aside by the adapter": b'{"damaged":true}',
    "of another shape": b'{"update":[],"twin":{}}',
    "with an unknown phase": b'{"update":{"execution":{"job":{}},"finished":null},"twin":{"version":1,"config":{}}}',
    "with text for a number": b'{"update":{},"twin":{"version":"x","config":{}}}',
}


@pytest.mark.parametrize("name", JOURNALS)
def test_a_journal_that_cannot_be_read_costs_an_alarm_and_the_model_goes_on(name: str) -> None:
    device = Device()
    device.disk.journal = JOURNALS[name]
    device.power_cycle()
    device.run(5)
    assert device.state.first.runner.active == OLD
    assert [body["kind"] for body in device.server.bodies("alarm")] == ["journal_unreadable"]
    device.order(job())
    device.run(30)
    assert device.status() == "SUCCEEDED"
