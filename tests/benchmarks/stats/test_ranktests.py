# SPDX-License-Identifier: Apache-2.0
"""Rank tests against SciPy; the correction of a trend test against simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from benchmarks.coverage.worlds import alike
from benchmarks.stats.effective import acf1, autocorrelations, design_effect
from benchmarks.stats.ranktests import kendall, mann_whitney, sen_slope
from edge_contract.errors import UsageError

sides = st.lists(st.integers(0, 10**9), min_size=1, max_size=14, unique=True)


@given(sides, sides)
@settings(max_examples=60)
def test_without_ties_the_p_value_is_counted(a, b):
    b = [one + 0.5 for one in b]
    expected = scipy_stats.mannwhitneyu(a, b, method="exact").pvalue
    assert mann_whitney(a, b) == pytest.approx(expected, rel=1e-9)


@given(st.lists(st.integers(0, 4), min_size=3, max_size=20), st.lists(st.integers(0, 5), min_size=3, max_size=20))
@settings(max_examples=60)
def test_with_ties_it_is_the_normal_one(a, b):
    if len({*a, *b}) == 1 or len({*a, *b}) == len(a) + len(b):
        return
    expected = scipy_stats.mannwhitneyu(a, b, method="asymptotic").pvalue
    assert mann_whitney(a, b) == pytest.approx(expected, rel=1e-9)


def test_a_side_of_nothing_is_refused_and_equal_sides_are_equal():
    with pytest.raises(UsageError):
        mann_whitney([], [1.0])
    assert mann_whitney([1.0] * 5, [1.0] * 5) == 1.0


@given(st.lists(st.integers(0, 20), min_size=5, max_size=30))
@settings(max_examples=40)
def test_kendalls_s_is_scipys(series):
    found = kendall([float(one) for one in series])
    naive = sum(np.sign(y - x) for i, x in enumerate(series) for y in series[i + 1 :])
    assert found.s == naive
    assert found.inflation >= 1.0


def test_the_variance_without_ties_and_correlation_is_the_closed_form():
    found = kendall(np.random.default_rng(3).permutation(50).astype(float))
    assert found.variance / found.inflation == pytest.approx(50 * 49 * 105 / 18)
    tau = scipy_stats.kendalltau(range(4), [1.0, 2.0, 3.0, 4.0]).statistic
    assert kendall([1.0, 2.0, 3.0, 4.0]).s == tau * 6


def test_the_slope_is_scipys():
    random = np.random.default_rng(4)
    times, values = np.sort(random.random(40)), random.random(40)
    assert sen_slope(times, values) == pytest.approx(scipy_stats.theilslopes(values, times)[0])
    assert sen_slope(np.zeros(3), np.arange(3.0)) == 0.0


def test_the_autocorrelations_are_the_sums_of_the_textbook():
    series = np.random.default_rng(5).standard_normal(37)
    centred = series - series.mean()
    expected = [float(centred[: 37 - k] @ centred[k:] / (centred @ centred)) for k in range(37)]
    assert autocorrelations(series) == pytest.approx(expected, abs=1e-12)
    assert acf1(series) == pytest.approx(expected[1])
    assert acf1(np.array([1.0, 2.0])) == 0.0
    assert autocorrelations(np.full(5, 3.0)).tolist() == [1, 0, 0, 0, 0]


@pytest.mark.parametrize(("rho", "expected"), [(0.0, 1.0), (0.5, 3.0), (0.9, 19.0)])
def test_the_design_effect_of_an_autoregressive_series_is_known(rho, expected):
    found = [design_effect(one) for one in alike(np.random.default_rng(6), 40, 3000, rho)]
    assert np.mean(found) == pytest.approx(expected, rel=0.12)
