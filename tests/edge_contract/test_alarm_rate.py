# SPDX-License-Identifier: Apache-2.0
"""False alarms in plain words: the table is the Markov chain's, and the limits keep what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.drift.run_length import chain, long_run, steps
from edge_contract.alarm_rate import CUSUM_RUN_LENGTH, DEFAULT, JUDGED, YEAR_S, AlarmLimits, limits_for, run_length
from edge_contract.errors import UsageError
from edge_contract.statistics import cusum_step
from edge_contract.summary import CHANNELS


@pytest.mark.parametrize(("limit", "windows"), [row for row in CUSUM_RUN_LENGTH if row[0] <= 12])
def test_the_table_is_the_markov_chains(limit, windows):
    assert chain(limit, 300) == pytest.approx(windows, rel=2e-3)


def test_between_the_rows_the_logarithm_is_interpolated():
    assert run_length(7.5) == pytest.approx(chain(7.5, 300), rel=0.01)
    assert run_length(9.2) == pytest.approx(chain(9.2, 300), rel=0.01)


@given(st.floats(2, 20))
def test_a_higher_limit_never_alarms_sooner(limit):
    assert run_length(limit + 0.1) > run_length(limit) > 0


def test_every_judged_channel_is_counted():
    assert len([name for name in CHANNELS if name != "latency"]) == JUDGED


@pytest.mark.parametrize("window_s", [60, 600, 3600, 86_400])
@pytest.mark.parametrize("per_device_year", [0.1, 1, 12])
def test_the_limits_keep_the_promise_and_are_not_much_stricter(per_device_year, window_s):
    limits = limits_for(per_device_year, window_s)
    assert limits.per_device_year(window_s) <= per_device_year
    if limits.cusum > 4:  # one step lower would break it
        looser = AlarmLimits(limits.warn_p, limits.alarm_p, limits.cusum - 0.1, limits.calm)
        assert looser.per_device_year(window_s) > 0.89 * per_device_year
    assert 0 < limits.alarm_p <= limits.warn_p <= DEFAULT.warn_p
    assert 0 < limits.calm < limits.cusum < limits.cap


def test_more_windows_a_year_and_fewer_alarms_ask_for_more_evidence():
    limits = [limits_for(1, s).cusum for s in (86_400, 3600, 600, 60)]
    assert limits == sorted(limits)
    strictness = [limits_for(rate, 3600).cusum for rate in (52, 1, 0.01)]
    assert strictness == sorted(strictness)


def test_the_default_is_good_for_hourly_windows():
    assert DEFAULT.per_device_year(3600) <= 1
    assert run_length(DEFAULT.cusum) / JUDGED >= 8760  # the family's run length, in hourly windows


@pytest.mark.parametrize(("rate", "window_s"), [(0, 60), (-1, 60), (1, 0), (float("nan"), 60), (1, float("inf"))])
def test_words_without_meaning_are_refused(rate, window_s):
    with pytest.raises(UsageError, match="give a number above 0"):
        limits_for(rate, window_s)


def test_what_cannot_be_promised_is_refused():
    with pytest.raises(UsageError, match="allow more of them, or longer windows"):
        limits_for(1e-6, 1)


@given(st.lists(st.floats(1e-9, 1), min_size=1, max_size=20), st.floats(5, 20))
def test_many_cusums_at_once_are_the_cusum(p_values, cap):
    one, many = 0.0, np.zeros(3)
    for p in p_values:
        one, many = cusum_step(one, p, cap), steps(many, np.full(3, p), cap)
    assert many == pytest.approx([one] * 3, abs=1e-9)


def test_dependent_channels_alarm_no_sooner_than_the_bound():
    """Six channels that say the same alarm as rarely as one; six independent ones about six times as often."""
    random = np.random.default_rng(3)
    p = random.random((4000, 1))
    alike, seen = long_run(np.repeat(p, 6, axis=1), 4.0, runs=300, length=600, random=random)
    apart, lived = long_run(random.random((4000, 6)), 4.0, runs=300, length=600, random=random)
    assert seen / alike > 0.75 * run_length(4.0)
    assert lived / apart > 0.75 * run_length(4.0) / 6
    assert seen / alike > 3 * lived / apart


def test_years_have_leap_days():
    assert YEAR_S == 31_557_600
