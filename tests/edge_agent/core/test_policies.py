# SPDX-License-Identifier: Apache-2.0
"""Orders that wait: windows, lock, metered links, heat, battery; each wait is told; a deadline or a cancel ends it."""

import datetime as dt
import zoneinfo
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.events import Conditions, Instant, Sample
from edge_agent.core.policy import gate, pace
from edge_agent.core.settings import Settings
from edge_contract.canonical import as_float
from edge_contract.errors import ContractError
from edge_contract.maintenance import DAYS, next_open, parse_window
from edge_contract.states import Phase
from tests.support import device_sim
from tests.support.device_sim import NEW, OLD, Device

NIGHT = "22:00-05:00"
LATER = 2e9
NOON = 1_767_268_800.0  # Thursday 2026-01-01 12:00 UTC


@given(
    st.integers(0, 6), st.integers(0, 6), st.integers(0, 1439), st.integers(1, 1440), st.floats(1.6e9, 1.9e9), st.data()
)
def test_windows_agree_with_the_calendar_of_the_standard_library(first, last, opens, length, wall, data) -> None:
    """By walking the minutes of a week with datetime; offsets of whole minutes, as time zones have them."""
    offset = data.draw(st.integers(-14 * 60, 14 * 60)) * 60
    closes = (opens + length) % 1440
    text = f"{DAYS[first]}-{DAYS[last]} {opens // 60:02}:{opens % 60:02}-{closes // 60:02}:{closes % 60:02}"
    days = {(first + i) % 7 for i in range((last - first) % 7 + 1)}
    zone = dt.timezone(dt.timedelta(seconds=offset))

    def is_open(at: float) -> bool:
        then = dt.datetime.fromtimestamp(at, zone)
        minute = then.hour * 60 + then.minute
        today, yesterday = then.weekday() in days, (then.weekday() - 1) % 7 in days
        span = (closes - opens) % 1440 or 1440
        return (today and opens <= minute < opens + span) or (yesterday and minute + 1440 < opens + span)

    found = next_open([text], wall, offset)
    assert (found == 0.0) == is_open(wall)
    if found:
        assert wall < found <= wall + 7 * 86400
        assert is_open(found) and not is_open(found - 60) and not is_open((found + wall) / 2)


def test_windows_move_with_summer_time() -> None:
    """22:00 in Berlin is 21:00 UTC in winter and 20:00 UTC in summer."""
    for day, hour in (("2026-01-10", 21), ("2026-07-10", 20)):
        noon = dt.datetime.fromisoformat(f"{day}T12:00:00+00:00")
        offset = noon.astimezone(zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset()
        assert offset is not None
        opens = dt.datetime.fromtimestamp(next_open([NIGHT], noon.timestamp(), int(offset.total_seconds())), dt.UTC)
        assert (opens.hour, opens.minute) == (hour, 0)


WRONG = {
    "no times": ("Mon", "is not a window"),
    "one digit": ("9:00-10:00", "is not a window"),
    "no such hour": ("25:00-26:00", "names a time that no day has"),
    "no such minute": ("10:75-11:00", "names a time that no day has"),
    "no such day": ("Monday 10:00-11:00", "names a day that no week has; use Mon"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_window_that_cannot_be_is_refused(name: str) -> None:
    text, message = WRONG[name]
    with pytest.raises(ContractError, match=message):
        parse_window(text)


def test_the_slower_of_two_limits_holds_and_a_metered_link_without_a_limit_holds_downloads() -> None:
    metered = Conditions(is_metered=True)
    assert pace(Settings(), Conditions()).kbps == 0
    assert pace(Settings(bandwidth_kbps=20, metered_kbps=50), metered).kbps == 20
    assert pace(Settings(metered_kbps=50), Conditions()).kbps == 0
    assert pace(Settings(metered=True), Conditions()).held == "the link is metered"


def test_a_clock_that_was_never_set_has_no_windows_and_says_so() -> None:
    found = gate(Phase.STAGED, Settings(update_windows=(NIGHT,)), Sample(), Instant(5000.0, 5.0))
    assert found is not None
    assert found.kind == "clock"


def job(**changes):
    return device_sim.job(**{"expires_at": LATER, **changes})


def at_noon(**config) -> Device:
    device = Device()
    device.wall = NOON
    device.run(3)
    device.want(1, **config)
    device.run(1)
    return device


def waiting(device: Device) -> dict:
    status = device.server.statuses["j1"]
    told = dict(status.details.get("waiting", {}))
    if "until" in told:
        told["until"] = as_float(told["until"])
    return {**told, "reason": status.reason, "phase": status.phase.value}


def test_a_closed_window_is_waited_for_and_its_opening_told() -> None:
    device = at_noon(update_windows=[NIGHT], update_clock="utc")
    device.order(job(timeout_s=86400.0))
    device.run(20)
    told = waiting(device)
    assert (told["for"], told["until"], told["phase"]) == ("window", NOON + 10 * 3600, "waiting_window")
    assert told["reason"] == "the maintenance window opens Thu 22:00 UTC"
    assert device.server.reported is not None
    assert device.server.reported.models["digits"].phase == "waiting_window"
    assert device.server.reported.models["digits"].unrecognized["waiting"]["for"] == "window"
    assert device.active == OLD
    device.wall = NOON + 10 * 3600 - 5
    device.run(30)
    assert device.status() == "SUCCEEDED"
    assert device.active == NEW


def test_local_time_is_the_boards_and_the_server_can_take_the_window_back() -> None:
    device = at_noon(update_windows=[NIGHT])
    device.conditions = Conditions(utc_offset_s=-7 * 3600)
    device.run(1)
    device.order(job())
    device.run(15)
    assert waiting(device)["until"] == NOON + 17 * 3600
    device.want(2)
    device.run(20)
    assert device.status() == "SUCCEEDED"


def test_the_update_lock_is_waited_for_and_named() -> None:
    device = at_noon()
    device.conditions = Conditions(locked_by="/run/camera.lock")
    device.run(1)
    device.order(job())
    device.run(30)
    assert waiting(device) == {
        "for": "lock",
        "reason": "an application holds /run/camera.lock",
        "phase": "waiting_window",
    }
    device.conditions = Conditions()
    device.run(20)
    assert device.status() == "SUCCEEDED"


def test_a_metered_link_holds_the_download_and_one_that_becomes_metered_stops_it() -> None:
    device = at_noon()
    device.conditions = Conditions(is_metered=True)
    device.run(1)
    device.order(job())
    device.run(20)
    assert waiting(device) == {
        "for": "metered",
        "reason": "the link is metered, downloads wait",
        "phase": "downloading",
    }
    assert device.pace == (0, "the link is metered")
    device.power_cycle()
    device.run(5)
    assert device.state.first.update.phase == "downloading"
    device.conditions = Conditions()
    device.run(30)
    assert device.status() == "SUCCEEDED"


def test_a_metered_link_with_a_limit_is_used_at_that_pace() -> None:
    device = at_noon(metered=True, metered_kbps=30, bandwidth_kbps=500)
    device.order(job())
    device.run(30)
    assert device.pace == (30, "")
    assert device.status() == "SUCCEEDED"


def test_heat_and_an_empty_battery_hold_an_order_before_its_first_byte() -> None:
    device = at_noon(max_temperature_c=80, min_battery_percent=30)
    device.health, device.conditions = {"temperature_c": 85.0}, Conditions(battery_percent=20)
    device.run(1)
    device.order(job())
    device.run(5)
    assert waiting(device)["reason"] == "the battery is below 30 %"
    device.conditions = Conditions(battery_percent=90)
    device.run(5)
    assert waiting(device)["reason"] == "the board is hotter than 80 °C"
    device.health = {"temperature_c": 60.0}
    device.run(20)
    assert device.status() == "SUCCEEDED"


HOLDS = {
    "window": {"update_windows": [NIGHT], "update_clock": "utc"},
    "metered": {"metered": True},
    "lock": {},
}


@pytest.mark.parametrize("name", HOLDS)
def test_a_deadline_ends_every_wait_and_names_it(name: str) -> None:
    device = at_noon(**HOLDS[name])
    device.conditions = replace(device.conditions, locked_by="the lock" if name == "lock" else "")
    device.run(1)
    device.order(job(timeout_s=60.0))
    device.run(100)
    assert device.status() == "TIMED_OUT"
    reason = device.server.statuses["j1"].reason
    assert reason.startswith("not done within 60 s, in phase ")
    assert ": the " in reason or ": an application holds" in reason
    assert device.active == OLD


@pytest.mark.parametrize("name", HOLDS)
def test_a_cancel_is_obeyed_in_every_wait(name: str) -> None:
    device = at_noon(**HOLDS[name])
    device.conditions = replace(device.conditions, locked_by="the lock" if name == "lock" else "")
    device.run(1)
    device.order(job())
    device.run(15)
    device.order(job(kind="cancel"))
    device.run(10)
    assert device.status() == "CANCELED"
    assert (device.active, NEW in device.disk.complete) == (OLD, False)


def test_a_wait_survives_power_cuts_and_costs_no_loop() -> None:
    device = at_noon(update_windows=[NIGHT], update_clock="utc")
    device.order(job(timeout_s=86400.0))
    device.run(200)
    writes = device.state.first.update.execution.writes
    device.run(200)
    assert device.state.first.update.execution.writes == writes, "a wait costs no journal write"
    device.power_cycle()
    device.run(5)
    assert device.state.first.update.phase == "waiting_window"
    device.wall = NOON + 10 * 3600
    device.run(30)
    assert device.status() == "SUCCEEDED"


REFUSED = {
    "update_windows": (["never"], "is not a window"),
    "update_clock": ("swatch", "is not one of local, utc"),
    "metered": (1, "is not true or false"),
    "bandwidth_kbps": (-1, "is not a count from 0"),
    "swap": ("hop", "is not one of auto, hot, stop"),
    "max_temperature_c": (500, "is not between 0 and 200 °C"),
}


def test_rules_that_do_not_fit_are_refused_one_by_one() -> None:
    device = at_noon(**{name: value for name, (value, _) in REFUSED.items()}, heartbeat_s=5)
    device.run(3)
    assert device.server.reported is not None
    ignored = device.server.reported.config["ignored"]
    assert set(ignored) == set(REFUSED)
    assert all(why in ignored[name] for name, (_, why) in REFUSED.items())
    assert as_float(device.server.reported.config["heartbeat_s"]) == 5.0


@given(st.one_of(st.text(max_size=30), st.from_regex(r"[A-Za-z,-]{0,12} ?\d\d:\d\d-\d\d:\d\d", fullmatch=True)))
def test_any_text_is_a_window_or_refused_in_one_line(text: str) -> None:
    try:
        spans = parse_window(text)
    except ContractError as error:
        assert "\n" not in str(error)
        return
    assert all(0 <= opens < 7 * 1440 and 0 < length <= 1440 for opens, length in spans)
