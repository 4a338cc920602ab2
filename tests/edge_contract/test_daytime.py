# SPDX-License-Identifier: Apache-2.0
"""Sunsets do not alarm and a dirty lens does: seven days of a real observer's windows, hour by hour."""

from dataclasses import replace

import pytest

from edge_contract.daytime import FIRST_DAYS, Daytime, Hour, place_of, scale_of
from edge_contract.errors import SummaryError
from edge_contract.findings import DriftState, Level
from edge_contract.verdict import judge
from tests.support.day_night import look, scene


def week(smeared_from=99, days=7, *, with_hours=True, shade_from=99):
    """Judge every second hour of some days; return [(day, hour, verdict, who decided)]."""
    profile, _, _ = scene()
    state, hours, told = DriftState(), {}, []
    for day in range(days):
        for hour in range(0, 24, 2):
            shade = 0.05 if day >= shade_from else 1.0
            summary = look(day, hour, smeared=day >= smeared_from, shade=shade)
            daytime = Daytime(hours, *place_of(summary.start_ms, summary.duration_ms)) if with_hours else None
            verdict, state = judge(profile, summary, state, daytime=daytime)
            if daytime and (learned := daytime.learned(summary.counters, is_alarmed=state.is_alarmed)):
                hours[learned.hour] = learned
            told.append((day, hour, verdict, daytime.used if daytime else ""))
    return told


@pytest.fixture(scope="module")
def healthy():
    return week()


def test_without_the_hours_the_first_evening_alarms():
    assert any(verdict.level is Level.ALARM for _, _, verdict, _ in week(days=1, with_hours=False))


def test_seven_days_and_nights_never_alarm_and_from_the_third_on_do_not_even_warn(healthy):
    assert [told for told in healthy if told[2].level is Level.ALARM] == []
    assert {used for day, _, _, used in healthy if day < 2} == {"learning"}
    later = [verdict.level for day, _, verdict, _ in healthy if day >= 2]
    assert later.count(Level.OK) >= 0.95 * len(later)
    assert "hours" in {used for day, _, _, used in healthy if day >= 2}


def test_while_the_hours_are_learned_inputs_only_warn(healthy):
    night = [verdict for day, hour, verdict, _ in healthy if day == 0 and hour in (0, 2, 22)]
    assert {verdict.level for verdict in night} == {Level.WARN}
    assert all(any("darker" in text for text in verdict.moved) for verdict in night)


def test_a_dirty_lens_from_day_five_alarms_within_the_day():
    told = week(smeared_from=5, days=6)
    alarms = [(day, hour) for day, hour, verdict, _ in told if verdict.level is Level.ALARM]
    assert alarms
    assert min(alarms) <= (5, 22)
    assert all(day == 5 for day, _ in alarms)


def test_night_at_noon_is_left_to_the_reference():
    told = [one for one in week(shade_from=5, days=6) if one[0] == 5]
    assert {used for _, hour, _, used in told if 8 <= hour <= 16} == {"reference"}
    assert any(verdict.level is Level.ALARM for _, _, verdict, _ in told)


def test_an_hour_keeps_its_days_bounded_and_comes_back_whole():
    profile, _, _ = scene()
    counters, hour = look(0, 12).counters, Hour(12)
    for day in range(100, 200):
        hour = hour.plus(counters, day, 0.01 * (day - 99))
    assert hour.days == 99
    assert hour.samples <= 6000
    assert hour.effect == pytest.approx(0.01 * FIRST_DAYS)  # of the first days
    same = Hour(12, hour.began, hour.day, hour.days, effect=hour.effect, sway=hour.sway).with_counts(hour.pack())
    assert same == hour
    assert hour.plus(counters, 150, 0.0) == hour  # late: its day was closed
    assert scale_of(profile) == scale_of(replace(profile, artefact="ab" * 32))
    for data in (hour.pack()[:-1], hour.pack() + b"\0", b""):
        with pytest.raises(SummaryError):
            hour.with_counts(data)


def test_windows_without_input_statistics_have_no_hour():
    profile, _, _ = scene()
    blind = look(0, 12)
    none = (0,) * 16
    counters = replace(blind.counters, brightness=none, contrast=none, sharpness=none, dark=0, bright=0)
    daytime = Daytime({}, 0, 12)
    verdict, state = judge(profile, replace(blind, counters=counters), DriftState(), daytime=daytime)
    assert verdict.level is Level.OK
    assert daytime.found is None
    assert daytime.learned(counters, is_alarmed=state.is_alarmed) is None
