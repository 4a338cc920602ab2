# SPDX-License-Identifier: Apache-2.0
"""When a benchmark may begin and must end, and what waits for it: the rules of updates, both ways. Values only."""

from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.bench.files import _numbers
from edge_agent.bench.gate import has_lock, why_stop, why_wait
from edge_agent.bench_config import BenchRules, read
from edge_agent.core import policy
from edge_agent.core.events import Conditions, Instant, Sample
from edge_agent.core.execution import Execution, Update
from edge_agent.core.lane import Identity, Lane, Plan
from edge_agent.core.settings import Settings
from edge_agent.core.state import State, initial
from edge_contract.errors import UsageError
from edge_contract.jobs import JobDocument, Probation
from edge_contract.messages import SOFTWARE
from edge_contract.states import Phase

NOW = Instant(1_800_000_000.0, 100.0)
JOB = JobDocument("j1", "pi", "r1", "install", "m", "1", "ab" * 32, 0.0, 2e9, 60.0, Probation())


def state(phase=None, *, lane="a", conditions=None, health=None, sampled=True, **settings) -> State:
    """A device with two models and its own software; an order of a lane stands in a phase."""
    plans = [Plan("a", "a", "litert", Settings(**settings)), Plan("b", "b", "litert", Settings(**settings))]
    found = initial(Identity("pi", "boot", "litert", "1"), plans=plans)
    found = replace(found, software=Lane.planned(found.me, Plan(SOFTWARE, SOFTWARE, "")))
    sample = Sample(health=health or {}, conditions=conditions or Conditions())
    for key in found.lanes:
        found = found.with_lane(replace(found.lanes[key], sample=sample, is_sampled=sampled))
    if phase is None:
        return found
    own = found.lane(lane)
    return found.with_lane(replace(own, update=Update(execution=replace(_order(), phase=phase))))


def _order() -> Execution:
    return Execution(JOB, "digest", Phase.ACCEPTED)


def test_a_free_device_may_measure():
    assert why_wait(state(), NOW) == ""
    assert why_wait(state(sampled=False), NOW) == "the agent has just started"


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("lane", ["a", "b", SOFTWARE])
def test_no_benchmark_begins_beside_an_order_in_any_phase_of_any_lane(phase, lane):
    assert why_wait(state(phase, lane=lane), NOW) == "an update is under way"


WAITS = {
    "battery": ({"conditions": Conditions(battery_percent=10), "min_battery_percent": 20}, "battery is below 20 %"),
    "heat": ({"health": {"temperature_c": 81}, "max_temperature_c": 80.0}, "hotter than 80 °C"),
    "link": ({"conditions": Conditions(is_metered=True)}, "the link is metered"),
    "disk": ({"conditions": Conditions(storage="less than 64 MB")}, "less than 64 MB"),
    "lock": ({"conditions": Conditions(locked_by="/run/camera.lock")}, "an application holds /run/camera.lock"),
    "window": ({"update_windows": ("Sat 01:00-01:01",)}, "the maintenance window opens"),
}


@pytest.mark.parametrize("case", WAITS)
def test_what_holds_an_update_holds_a_benchmark(case):
    words, why = WAITS[case]
    assert why in why_wait(state(**words), NOW)


@pytest.mark.parametrize(("case", "stops"), [("battery", True), ("heat", True), ("disk", True), ("link", False)])
def test_what_must_end_a_measurement_under_way(case, stops):
    words, _ = WAITS[case]
    conditions = replace(words.get("conditions", Conditions()), benchmark="b1-0")
    assert bool(why_stop(state(**{**words, "conditions": conditions}), NOW)) is stops


@pytest.mark.parametrize("phase", list(Phase))
def test_while_it_measures_nothing_begins_and_what_is_on_trial_goes_on(phase):
    sample = Sample(conditions=Conditions(benchmark="b1-0"))
    held = policy.gate(phase, Settings(), sample, NOW)
    begins = phase in (Phase.ACCEPTED, Phase.DOWNLOADING, Phase.STAGED, Phase.WAITING_WINDOW)
    assert (held is not None) is begins
    if held is not None:
        assert (held.kind, held.text) == ("lock", "benchmark b1-0 measures, and nothing may disturb it")


def test_the_lock_is_in_force_when_the_core_has_seen_it_and_no_order_was_faster():
    seen = Conditions(benchmark="b1-0")
    assert has_lock(state(), "b1-0") is None
    assert has_lock(state(conditions=Conditions(benchmark="other")), "b1-0") is None
    assert has_lock(state(conditions=seen), "b1-0") is True
    assert has_lock(state(Phase.ACCEPTED, conditions=seen), "b1-0") is True
    assert has_lock(state(Phase.VERIFYING, conditions=seen), "b1-0") is False


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"allow": 1}, "allow = 1 is not true or false"),
        ({"unregistered": "yes"}, "unregistered = 'yes'"),
        ({"alow": True}, "unknown key 'alow'"),
        ({"max_mb": 0}, "max_mb = 0 is not a whole number from 1"),
    ],
)
def test_a_slip_in_the_table_of_a_device_is_told(table, words):
    with pytest.raises(UsageError, match=words):
        read(table, Path("agent.toml"))


def test_nothing_is_allowed_unless_a_person_says_so():
    assert read({}, Path("agent.toml")) == BenchRules(allow=False, unregistered=False)


def test_a_plan_that_travelled_decides_nothing_that_is_the_device_s():
    order = {"runs": 5, "seconds": (2.5).hex(), "data": "/etc/shadow", "runtime": "x", "energy": "y", "label": "0xdeer"}
    assert _numbers(order) == {"runs": 5, "seconds": 2.5, "label": "0xdeer"}
