# SPDX-License-Identifier: Apache-2.0
"""Counters add exactly, in any order, and cannot be subtracted across runs."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract.counts import LATENCY_BUCKETS, MAX_SLOTS, Counters, latency_bucket, latency_quantile_us
from edge_contract.errors import SummaryError
from tests.support.windows import build, counters


@given(counters(10), counters(10), counters(10))
def test_merging_is_associative_and_commutative(a, b, c):
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))


@given(counters(7), counters(7))
def test_what_was_merged_can_be_taken_away(a, b):
    assert a.merge(b).minus(b) == a
    assert a.merge(Counters.zero(7)) == a


@given(counters())
def test_the_flat_form_says_everything(a):
    assert Counters.from_vector(a.slots, a.to_vector()) == a
    assert len(a.to_vector()) == Counters.length(a.slots)


@given(counters(5))
def test_class_and_level_counts_are_sums_of_the_cells(a):
    assert sum(a.classes) == sum(a.levels) == a.n_sampled
    assert len(a.classes) == 5


def test_counters_of_another_run_are_refused():
    late, early = build(3, 50, random.Random(1).randrange), build(3, 60, random.Random(2).randrange)
    with pytest.raises(SummaryError, match="went back; compare readings of one epoch only"):
        late.minus(early)


def test_counters_of_models_with_other_classes_are_refused():
    with pytest.raises(SummaryError, match="10 class slots against 3"):
        Counters.zero(10).merge(Counters.zero(3))


def test_a_thousand_classes_share_sixty_four_slots():
    assert Counters.zero(1000).slots == MAX_SLOTS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_sampled": 51}, "sampled"),
        ({"confidence": (49,) + (0,) * 15}, "'confidence' counts 49 of 50"),
        ({"brightness": (51,) + (0,) * 15}, "'brightness' counts more than 50"),
        ({"contrast": (0,) * 16}, "count different images"),
        ({"embedding_squares": (0,) * 8}, "embedding sums without squares"),
        ({"repeats": 50}, "more pairs or blocks"),
        ({"blocks": 5}, "more pairs or blocks"),
    ],
)
def test_counters_that_contradict_themselves_are_refused(change, message):
    good = build(3, 50, random.Random(1).randrange)
    good.check()
    with pytest.raises(SummaryError, match=message):
        type(good)(**{**vars(good), **change}).check()


@given(st.floats(0, 1e12), st.floats(0, 1e12))
def test_a_longer_time_never_falls_into_a_lower_bucket(a, b):
    low, high = sorted((a, b))
    assert 0 <= latency_bucket(low) <= latency_bucket(high) < LATENCY_BUCKETS


@pytest.mark.parametrize("latency_us", [50, 300, 1000, 12_345, 400_000])
def test_a_quantile_is_within_a_quarter_of_the_time(latency_us):
    histogram = [0] * LATENCY_BUCKETS
    histogram[latency_bucket(latency_us)] = 100
    found = latency_quantile_us(histogram, 0.5)
    assert 0.75 < found / latency_us < 1.25  # a bucket is at most a factor 1.5 wide


def test_no_inference_has_no_quantile():
    assert latency_quantile_us([0] * LATENCY_BUCKETS, 0.5) is None
