# SPDX-License-Identifier: Apache-2.0
"""The interval of the median: known ranks, and it covers as often as it says."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.quantiles import median, median_interval
from edge_contract.errors import UsageError

values = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("n", "low", "high", "coverage"),
    # Ranks and coverages of the exact binomial table, e.g. Conover, Practical Nonparametric Statistics, table A3
    [(6, 1, 6, 0.96875), (10, 2, 9, 0.97852), (20, 6, 15, 0.95861), (30, 10, 21, 0.95723), (5, 1, 5, 0.9375)],
)
def test_ranks_of_the_95_percent_interval(n, low, high, coverage):
    found = median_interval([float(i) for i in range(1, n + 1)])
    assert (found.low, found.high) == (low, high)
    assert found.coverage == pytest.approx(coverage, abs=1e-5)


@given(values)
def test_the_interval_holds_the_median_and_are_two_of_the_values(sample):
    found = median_interval(sample)
    assert found.low <= found.point <= found.high
    assert {found.low, found.high} <= set(sample)
    assert found.n == len(sample)


@given(values, st.floats(0.5, 0.999))
def test_more_coverage_is_never_narrower(sample, coverage):
    wide, narrow = median_interval(sample, 0.999), median_interval(sample, coverage)
    assert wide.low <= narrow.low
    assert narrow.high <= wide.high
    assert narrow.coverage >= coverage or narrow.low == min(sample)


@given(values, st.randoms())
def test_order_does_not_matter(sample, rng):
    again = list(sample)
    rng.shuffle(again)
    assert median_interval(again) == median_interval(sample)
    assert median(again) == median(sample)


def test_it_covers_the_true_median_of_a_skewed_distribution_as_often_as_it_says():
    rng = random.Random(20)
    hits = 0
    for _ in range(2000):
        found = median_interval([rng.lognormvariate(0.0, 1.0) for _ in range(15)])
        hits += found.low <= 1.0 <= found.high
    # nominal 0.9648 for n = 15; 2000 draws have a standard error of 0.41 points, so 4 of them are allowed
    assert abs(hits / 2000 - 0.9648) < 0.0165


def test_large_samples_do_not_overflow():
    found = median_interval([float(i) for i in range(5000)])
    assert 0.95 <= found.coverage < 0.96


def test_of_nothing_there_is_no_median():
    with pytest.raises(UsageError):
        median([])
