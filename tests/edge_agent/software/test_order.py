# SPDX-License-Identifier: Apache-2.0
"""Orders for the agent's own software in memory: good and bad releases, every power cut, and models beside them."""

import os

import pytest

from edge_agent.core.software import HOLD_S
from edge_contract import canonical
from edge_contract.jobs import Probation, Signed
from edge_contract.messages import SELF_UPDATE, SOFTWARE, ReportedState
from tests.edge_agent.software.sim import FIRST, SECOND, Release, SelfUpdating
from tests.support.device_sim import NEW, OLD, Behaviour, Device, job

STRIDE = int(os.environ.get("STROP_SOFTWARE_STRIDE", "17"))
"""Of the durable steps one in so many is cut; ``make crash-long`` sets 1."""

BAD = {
    "dies at import": (Release(dies_at=0), "3 starts without a sign of health"),
    "dies after a while": (Release(dies_at=2), "3 starts without a sign of health"),
    "cannot connect": (Release(connects=False), "no connection to the broker within 40 s"),
    "loads no model": (
        Release(loads_models=False),
        "model 'digits' does not load with the new release: no such runtime",
    ),
}
"""Release → a piece of the reason that must be told."""


def told(device: SelfUpdating, release: str = "") -> ReportedState:
    assert device.server.reported is not None
    assert device.server.reported.models[SOFTWARE].running == release
    return device.server.reported


def reason(device: SelfUpdating, number: int = 1) -> str:
    return device.server.statuses[f"s{number}"].reason


@pytest.mark.parametrize("current", ["", FIRST])
def test_a_good_release_is_started_proves_itself_and_stays(current: str) -> None:
    device = SelfUpdating(current=current)
    device.run(3)
    assert SELF_UPDATE in told(device, current).features
    device.order_software(SECOND)
    device.run(40)
    assert device.heard == ["s1 SUCCEEDED done"]
    told(device, SECOND)
    assert device.starts == 2
    assert (device.running, device.pointers_of_software["standby"]) == (SECOND, current)
    assert SECOND in device.records.launch.proven
    assert device.active == OLD  # no model moved
    device.power_cycle()
    device.run(3)
    told(device, SECOND)


@pytest.mark.parametrize(("what", "current"), list(zip(BAD, ("", FIRST, "", FIRST), strict=True)))
def test_a_bad_release_is_rolled_back_with_its_reason(what: str, current: str) -> None:
    how, piece = BAD[what]
    device = SelfUpdating(current=current, releases={SECOND: how})
    device.run(3)
    device.order_software(SECOND)
    device.run(120)
    assert device.heard == ["s1 FAILED rolled_back"]
    assert piece in reason(device)
    told(device, current)
    assert device.pointers_of_software["active"] == current
    assert SECOND not in device.whole
    assert device.active == OLD
    assert any(row["kind"] == "rolled_back" and row["model"] == SOFTWARE for row in device.server.bodies("alarm"))


def test_what_cannot_examine_this_device_never_gets_the_pointer() -> None:
    device = SelfUpdating(releases={SECOND: Release(fails_check=True)})
    device.order_software(SECOND)
    device.run(20)
    assert device.heard == ["s1 FAILED failed"]
    assert device.starts == 1
    assert reason(device) == "self-test of the new release: no"


def test_the_reason_is_on_the_disk_before_the_pointer_goes_back() -> None:
    device = SelfUpdating(releases={SECOND: Release(connects=False)})
    device.order_software(SECOND)
    device.run(120)
    history = device.history
    at = history.index("software active:")
    assert "journal:-" in history[at - 3 : at]  # the first model has no order; the journal is one file
    assert history.index("software active:2") < at


def _story(how: Release) -> SelfUpdating:
    device = SelfUpdating(current=FIRST, releases={SECOND: how})
    device.run(3)
    device.order_software(SECOND, probation=Probation(inferences=1, timeout_s=12.0))
    return device


@pytest.mark.parametrize("what", ["", *BAD])
def test_power_lost_before_any_durable_step_reaches_the_same_end(what: str) -> None:
    how = BAD[what][0] if what else Release()
    device = _story(how)
    before = device.ops
    device.run(60)
    steps = device.ops - before
    assert steps > 15
    for cut in range(0, steps, STRIDE):
        device = _story(how)
        device.cut_before = device.ops + cut
        device.run(70)
        assert "power" in device.history, cut
        ends = {"s1 FAILED rolled_back"} if what else {"s1 SUCCEEDED done"}
        assert set(device.heard) == ends, (cut, device.heard)
        told(device, FIRST if what else SECOND)


def test_a_good_release_survives_power_cuts_that_use_up_its_starts() -> None:
    """The last start that is allowed is the one in which it passes; the power fails before that is written down."""
    for cuts in range(1, 4):
        device = _story(Release())
        for _ in range(cuts):
            while device.order_state != "health_check":
                device.run(1)
            device.run(1)
            device.power_cycle()
        device.run(80)
        running = SECOND if cuts < 3 else FIRST  # the pointer's first start and two more
        assert device.running == running, (cuts, device.history)
        assert device.heard[0].startswith("s1 SUCCEEDED" if cuts < 3 else "s1 FAILED")


def test_a_release_marked_as_good_is_started_again_before_its_order_succeeds() -> None:
    device = _story(Release())
    while "launch:proven" not in device.history:
        if device.order_state == "health_check":
            device.records.launch = device.records.launch.counted(SECOND).counted(SECOND)  # all starts are used up
        device.run(1)
    device.run(20)
    assert device.heard[-1] == "s1 SUCCEEDED done"
    told(device, SECOND)


def test_a_trial_takes_a_quiet_minute_or_a_quarter_of_its_time() -> None:
    device = SelfUpdating()
    device.run(2)
    device.order_software(SECOND, probation=Probation(inferences=1, timeout_s=3600.0), timeout_s=7200.0)
    device.run(int(HOLD_S))
    assert device.order_state == "health_check"
    device.run(25)
    assert device.heard == ["s1 SUCCEEDED done"]


def test_a_break_of_the_link_begins_the_quiet_time_anew() -> None:
    device = SelfUpdating()
    device.run(2)
    device.order_software(SECOND, probation=Probation(inferences=1, timeout_s=80.0))
    while device.order_state != "health_check":
        device.run(1)
    device.run(15)
    device.online = False
    device.run(3)
    device.online = True
    device.run(10)
    assert device.heard == []
    device.run(30)
    assert device.heard == ["s1 SUCCEEDED done"]


def test_models_wait_for_the_trial_and_the_trial_for_models() -> None:
    device = SelfUpdating(new=Behaviour("2.0.0"))
    device.run(3)
    device.order(job(probation=Probation(inferences=300, timeout_s=60.0)))
    while device.state.first.update.phase != "health_check":
        device.run(1)
    device.order_software(SECOND)
    device.run(4)
    assert device.order_state in ("staged", "waiting_window")
    assert "model 'digits' is being updated" in reason(device)
    device.run(60)
    assert device.status() == "SUCCEEDED"
    assert device.heard[-1] == "s1 SUCCEEDED done"

    device = SelfUpdating(new=Behaviour("2.0.0"))
    device.run(3)
    device.order_software(SECOND)
    while device.order_state != "health_check":
        device.run(1)
    device.order(job())
    device.run(4)
    assert device.state.first.update.phase == "waiting_window"
    device.run(120)
    assert device.status() == "SUCCEEDED"
    assert device.active == NEW


def test_a_model_that_only_the_new_release_cannot_load_keeps_its_pointers() -> None:
    device = SelfUpdating(installed=OLD, releases={SECOND: Release(loads_models=False)})
    device.disk.complete.add(NEW)
    device.disk.pointers["standby"] = NEW
    device.run(3)
    device.order_software(SECOND)
    device.run(60)
    assert device.active == OLD
    assert not any(row["kind"] == "fell_back" for row in device.server.bodies("alarm"))


def test_without_a_launcher_it_says_nothing_of_itself_and_refuses() -> None:
    device = Device()
    device.run(3)
    assert device.server.reported is not None
    assert SELF_UPDATE not in device.server.reported.features
    assert SOFTWARE not in device.server.reported.models
    device.say("job/next", Signed(job("j9", SECOND, model=SOFTWARE).to_bytes(), "key", "00").to_bytes())
    device.run(10)
    alarms = [row for row in device.server.bodies("alarm") if row["kind"] == "order_refused"]
    assert "not started by its launcher" in alarms[0]["reason"]
    assert device.state.first.model == "digits"


def test_the_journal_keeps_the_order_while_nobody_launches_the_agent() -> None:
    device = SelfUpdating(releases={SECOND: Release(connects=False)})
    device.run(2)
    device.order_software(SECOND)
    device.run(6)
    assert device.order_state == "health_check"
    remembered = device.journal["software"]
    plain = Device()
    plain.disk.journal = device.disk.journal
    plain.boot()
    plain.run(30)
    assert canonical.loads(plain.disk.journal)["software"] == remembered


def test_cancel_and_newer_orders_are_those_of_a_model() -> None:
    device = SelfUpdating()
    device.run(2)
    device.online = False
    device.order_software(FIRST, 1)
    device.online = True
    device.run(1)
    device.order_software(SECOND, 2)
    device.run(60)
    assert device.heard[-1] == "s2 SUCCEEDED done"
    assert device.running == SECOND
    device.order_software(FIRST, 1)
    device.run(5)
    assert device.running == SECOND
