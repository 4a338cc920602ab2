# SPDX-License-Identifier: Apache-2.0
"""The fine histogram: buckets as numpy counts them, quantiles within a bucket's width, and 10 % seen on one device."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.runner.batch import _fine_buckets
from edge_contract.latency import BUCKETS, FIRST_US, PER_OCTAVE, bucket_of, quantile_us


@given(st.floats(0, 1e8))
def test_both_ways_of_finding_a_bucket_agree(us):
    assert _fine_buckets(np.array([us])).tolist() == [bucket_of(us)]


def histogram(values):
    return np.bincount(_fine_buckets(values), minlength=BUCKETS).tolist()


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95, 0.99])
def test_quantiles_are_within_a_buckets_width_of_the_sorted_ones(share):
    values = np.random.default_rng(1).lognormal(7.0, 0.4, 4000)
    found = quantile_us(histogram(values), share)
    assert found == pytest.approx(np.quantile(values, share), rel=2 ** (1 / PER_OCTAVE) - 1)


def test_ten_percent_is_seen_though_all_times_are_alike():
    rng = np.random.default_rng(2)
    for level in (500.0, 1000.0, 1017.0, 1040.0, 40_000.0):
        before, after = (level * by * np.exp(0.01 * rng.standard_normal(500)) for by in (1.0, 1.1))
        ratio = quantile_us(histogram(after), 0.95) / quantile_us(histogram(before), 0.95)
        assert ratio == pytest.approx(1.1, abs=0.045)


def test_the_ends_are_open_and_nothing_has_no_quantile():
    assert quantile_us([0] * BUCKETS, 0.5) is None
    assert (bucket_of(0.0), bucket_of(1e12)) == (0, BUCKETS - 1)
    assert bucket_of(FIRST_US * 2) == PER_OCTAVE
