# SPDX-License-Identifier: Apache-2.0
"""Every gate opens for a quiet measurement, and says what, how much and what to do when it closes."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.gates import Finding, check
from benchmarks.stats.trend import trend
from edge_contract.errors import MeasurementError
from tests.benchmarks.stats.made import PI5, STEP_NS, drawn, launch, measurement, readings, start_of


def quiet(**words):
    """Ten launches, with words for each."""
    return [launch(i, one, **words) for i, one in enumerate(drawn(np.random.default_rng(5)))]


def changed(**reading):
    """Ten launches, and in the readings of the fifth one something else."""
    found = quiet()
    found[4] = replace(found[4], readings=readings(4, 100, **reading))
    return found


def kinds(found):
    return [(one.kind, one.status) for one in check(found)]


def test_a_quiet_measurement_passes():
    assert check(measurement()) == ()


@pytest.mark.parametrize(
    ("launches", "words", "expected", "said"),
    [
        (changed(throttled=0x1), {}, ("throttled", "invalid"), "under-voltage in 4 of 40 readings"),
        (changed(throttled=0x4), {}, ("throttled", "invalid"), "throttling in 4 of 40 readings"),
        (changed(throttled=0x80000), {}, ("throttled", "invalid"), "soft temperature limit occurred between"),
        (changed(khz=1_500_000), {}, ("clock", "invalid"), "between 1500 and 2400 MHz (60 %)"),
        (changed(temp_c=81.0), {}, ("temperature", "uncontrolled"), "81.0 °C; this board slows down from 80 °C on"),
        (changed(temp_c=78.0), {}, ("temperature", "flag"), "78.0 °C"),
        (quiet(faults={"major": 1, "swap_kb": 0}), {}, ("memory", "invalid"), "10 major page faults"),
        (quiet(faults={"major": 0, "swap_kb": 512}), {}, ("memory", "invalid"), "512 kB of the process lay in swap"),
        (quiet(golden="differs"), {}, ("golden", "invalid"), "in 10 of 10 launches"),
        (quiet(steady=False), {}, ("warm-up", "flag"), "10 of 10 launches never became steady"),
        (quiet()[:5], {}, ("few", "flag"), "5 launches"),
        (quiet()[:2], {}, ("few", "invalid"), "2 launches"),
        (quiet(), {"board": replace(PI5, governor="ondemand")}, ("governor", "uncontrolled"), "'ondemand'"),
        (quiet(), {"board": replace(PI5, governor="")}, ("governor", "uncontrolled"), "no governor can be read"),
        (quiet(), {"board": replace(PI5, busy=(("x", 0.3), ("y", 0.9)))}, ("company", "uncontrolled"), "y 90 %, x 3"),
        (quiet(), {"board": replace(PI5, throttled=0x50000)}, ("throttled-before", "flag"), "since boot"),
        (quiet(), {"failed": 2}, ("failed", "flag"), "2 of 12 launches failed"),
        ([], {}, ("launches", "invalid"), "no launch came to its end"),
    ],
)  # fmt: skip
def test_each_gate_names_what_how_much_and_what_to_do(launches, words, expected, said):
    (found,) = [one for one in check(measurement(launches, **words)) if (one.kind, one.status) == expected]
    assert said in found.words
    assert len(found.words.replace(";", ",").split(",")) > 1 or not launches


def test_too_few_runs_are_no_measurement_but_five_windows_are():
    short = [launch(i, [1e6] * 5) for i in range(5)]
    assert ("few", "invalid") in kinds(measurement(short))
    assert kinds(measurement(short, profile="mlperf-tiny-like")) == []


def test_a_soft_limit_of_a_pi_3_b_plus_is_sixty_degrees():
    board = replace(PI5, board="Raspberry Pi 3 Model B Plus Rev 1.3")
    assert ("temperature", "uncontrolled") in kinds(measurement(changed(temp_c=61.0), board=board))
    assert kinds(measurement(changed(temp_c=61.0))) == []


def test_bits_that_were_set_before_are_not_held_against_the_measurement():
    found = [replace(one, readings=readings(one.number, 100, throttled=0x50000)) for one in quiet()]
    board = replace(PI5, throttled=0x50000)
    assert kinds(measurement(found, board=board)) == [("throttled-before", "flag")]


def test_a_clock_that_nobody_measures_is_uncontrolled_only():
    found = [replace(one, readings=readings(one.number, 100, throttled=None)) for one in quiet()]
    found[3] = replace(found[3], readings=readings(3, 100, throttled=None, khz=800_000))
    assert kinds(measurement(found)) == [("clock", "uncontrolled")]


def test_a_clock_that_was_low_before_the_first_run_does_not_count():
    found = quiet()
    early = replace(found[0].readings[0], at_ns=start_of(0) - 10**9, clock_khz=(600_000,))
    found[0] = replace(found[0], readings=(early, *found[0].readings))
    assert check(measurement(found)) == ()


def test_heat_is_the_question_of_a_sustained_run_and_no_fault_of_it():
    slower = [launch(0, np.linspace(1e6, 1.5e6, 4000), readings=readings(0, 4000, throttled=0x4))]
    assert {status for _, status in kinds(measurement(slower, scenario="sustained"))} == {"flag"}
    assert ("throttled", "flag") in kinds(measurement(slower, scenario="sustained"))


@pytest.mark.parametrize(
    ("power", "said"),
    [
        ([5000.0, 5100.0, None, None], "it vanished: the last 2 of 40 readings"),
        ([5000.0, -3.0, 5100.0, 5000.0], "1 of 4 readings say that no power was drawn"),
        ([5000.0] * 24, "all 24 readings are 5000 mW: it is stuck"),
    ],
)
def test_a_power_sensor_that_lies_or_vanishes(power, said):
    seen = [replace(readings(9, 100)[0], power_mw=one) for one in power]
    found = quiet()
    found[-1] = replace(found[-1], readings=tuple(seen))
    (one,) = check(measurement(found))
    assert (one.kind, one.status) == ("power-sensor", "flag")
    assert said in one.words


def test_a_trend_within_launches_is_found_and_said():
    grown = [launch(i, one * np.linspace(1, 1.06, 100)) for i, one in enumerate(drawn(np.random.default_rng(6)))]
    (found,) = [one for one in check(measurement(grown)) if one.kind == "trend"]
    assert found.status == "invalid"
    assert "within launches it became slower by 6." in found.words or "slower by 5." in found.words
    assert "over 1.98 s" in found.words


def test_a_trend_from_launch_to_launch_is_found():
    warm = [launch(i, one * (1 + 0.03 * i)) for i, one in enumerate(drawn(np.random.default_rng(7)))]
    (found,) = [one for one in check(measurement(warm)) if one.kind == "trend"]
    assert "between launches it became slower by 24" in found.words


def test_a_trend_that_nobody_would_see_is_none():
    small = [
        launch(i, one * np.linspace(1, 1.008, 100))
        for i, one in enumerate(drawn(np.random.default_rng(8), within=0.001))
    ]
    assert check(measurement(small)) == ()


def test_a_launch_of_milliseconds_has_no_trend_by_the_minute():
    starts = tuple(start_of(0) + 10**6 * i for i in range(100))
    times = drawn(np.random.default_rng(9))
    found = [replace(launch(i, one * np.linspace(1, 1.2, 100)), starts_ns=starts) for i, one in enumerate(times)]
    assert {one.status for one in check(measurement(found)) if one.kind == "trend"} == {"flag"}


def test_the_share_of_false_trends_is_below_its_level():
    random, starts = np.random.default_rng(10), [[STEP_NS * i for i in range(100)]] * 5
    p = [trend(list(drawn(random, 5)), starts)[0].p for _ in range(40)]
    assert sum(one < 0.05 for one in p) <= 40 * 0.05 + 3 * (40 * 0.0475) ** 0.5


def test_two_speeds_within_launches_and_launches_of_two_kinds():
    random = np.random.default_rng(11)
    mixed = [launch(i, one * np.where(random.random(100) < 0.4, 1.3, 1.0)) for i, one in enumerate(drawn(random))]
    (found,) = check(measurement(mixed))
    assert (found.kind, found.status) == ("bimodal", "flag")
    assert "two speeds within a launch: 0.989 ms and 1.29 ms (30 % apart, 46 % of them slow" in found.words
    kinds_of = [launch(i, one * (1.4 if i % 2 else 1.0)) for i, one in enumerate(drawn(random, 20))]
    assert "launches of two kinds" in " ".join(one.words for one in check(measurement(kinds_of)))


def test_the_worst_comes_first():
    found = check(measurement(changed(throttled=0x4, temp_c=78.0), board=replace(PI5, governor="ondemand")))
    assert [one.status for one in found] == ["invalid", "uncontrolled", "flag"]


def test_a_status_that_nobody_knows_is_refused():
    with pytest.raises(MeasurementError):
        Finding("x", "bad", "words")
