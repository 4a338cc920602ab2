# SPDX-License-Identifier: Apache-2.0
"""Both models at once where there is memory, else one at a time; the old one comes back if the new one fails."""

import pytest

from edge_agent.core.events import Conditions, Slots
from edge_agent.core.swap import KEPT_KB, choose
from tests.support.device_sim import NEW, OLD, Behaviour, Device, job

SHORT = Conditions(memory_kb=60_000)
AMPLE = Conditions(memory_kb=900_000)

CHOICES = {
    "both fit": (("auto", 20_000, 20_000 + KEPT_KB, OLD), "hot"),
    "one kilobyte is missing": (("auto", 20_000, 19_999 + KEPT_KB, OLD), "stop"),
    "the memory is unknown": (("auto", 20_000, 0, OLD), "hot"),
    "the need is unknown": (("auto", 0, 10, OLD), "hot"),
    "nothing has to make room": (("stop", 20_000, 10, ""), "hot"),
    "it runs already": (("auto", 20_000, 10, NEW), "hot"),
    "somebody says stop": (("stop", 1, 10**6, OLD), "stop"),
    "somebody says hot": (("hot", 10**6, 1, OLD), "hot"),
}


@pytest.mark.parametrize("name", CHOICES)
def test_the_choice_follows_the_memory(name: str) -> None:
    (rule, need, memory, active), expected = CHOICES[name]
    found = choose(rule, need_kb=need, memory_kb=memory, slots=Slots(active), bundle=NEW)
    assert found == expected


def update(new: Behaviour, conditions: Conditions, **config) -> Device:
    device = Device(new=new)
    device.conditions, device.need_kb = conditions, 50_000
    device.run(10)
    if config:
        device.want(1, **config)
    device.order(job())
    device.run(120)
    return device


def loads(device: Device) -> list[str]:
    return [step for step in device.history if step.startswith("load")]


def test_with_ample_memory_the_new_model_is_tried_beside_the_old_one() -> None:
    device = update(Behaviour("2.0.0"), AMPLE)
    assert device.server.statuses["j1"].details["swap"] == "hot"
    assert "load shadow:b beside 1" in loads(device)
    assert device.server.statuses["j1"].details["compared"] >= 100


def test_with_short_memory_one_model_at_a_time_is_loaded() -> None:
    device = update(Behaviour("2.0.0"), SHORT)
    assert (device.status(), device.active) == ("SUCCEEDED", NEW)
    assert loads(device) == ["load active:a beside 0", "load active:b beside 0"]
    details = device.server.statuses["j1"].details
    assert details["swap"] == "stop"
    assert "compared" not in details
    assert "runner_exit" not in [body["kind"] for body in device.server.bodies("event")], "a wanted end is no crash"


BAD = {
    "it does not load": (Behaviour("2.0.0", loads=False), "golden self-test failed"),
    "it errs": (Behaviour("2.0.0", error_rate=0.3), "inferences failed"),
    "it crashes": (Behaviour("2.0.0", crash_after=40), "crashed"),
}


@pytest.mark.parametrize("name", BAD)
def test_with_short_memory_a_bad_model_gives_way_to_the_old_one(name: str) -> None:
    how, reason = BAD[name]
    device = update(how, SHORT)
    assert device.status() == "FAILED"
    assert reason in device.server.statuses["j1"].reason
    assert (device.active, device.state.first.runner.active) == (OLD, OLD)
    assert all(step.endswith("beside 0") for step in loads(device)), "never two at once"


def test_a_kernel_that_ends_the_runner_for_memory_makes_it_one_at_a_time() -> None:
    """The estimate was wrong: the shadow did not fit. The order goes on without it."""
    device = Device(new=Behaviour("2.0.0"))
    device.fits = 1
    device.run(3)
    device.order(job())
    device.run(120)
    assert device.status() == "SUCCEEDED"
    assert device.server.statuses["j1"].details["swap"] == "stop"
    assert loads(device)[-1] == "load active:b beside 0"


def test_the_operator_can_ask_for_one_at_a_time() -> None:
    device = update(Behaviour("2.0.0"), AMPLE, swap="stop")
    assert device.server.statuses["j1"].details["swap"] == "stop"
    assert device.status() == "SUCCEEDED"


@pytest.mark.parametrize("bad", [False, True])
def test_power_lost_before_each_durable_step_of_a_stop_then_swap(bad: bool) -> None:
    def make() -> Device:
        device = Device(new=Behaviour("2.0.0", error_rate=0.3 if bad else 0.0))
        device.conditions, device.need_kb = SHORT, 50_000
        device.run(3)
        device.order(job())
        return device

    probe = make()
    before = probe.ops
    probe.run(60)
    for cut in range(probe.ops - before):
        device = make()
        device.cut_before = device.ops + cut
        device.run(50)
        assert device.status() == ("FAILED" if bad else "SUCCEEDED"), cut
        assert device.state.first.runner.active == device.active == (OLD if bad else NEW)
        assert not [step for step in loads(device) if step.endswith("beside 1")]
