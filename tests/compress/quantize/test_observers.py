# SPDX-License-Identifier: Apache-2.0
"""Observers against numpy's own percentiles, over any order and size of batches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.quantize.observers import MinMaxObserver, PercentileObserver, SquaredErrorObserver, make_observer
from edge_contract.errors import UsageError

FINITE = st.floats(-1e6, 1e6, width=32)


@given(st.lists(st.lists(FINITE, min_size=1, max_size=20), min_size=1, max_size=6))
def test_min_max_is_that_of_all_values_together(batches):
    observer = MinMaxObserver()
    for batch in batches:
        observer.observe(torch.tensor(batch))
    values = np.concatenate([np.array(batch, np.float32) for batch in batches])
    assert observer.range() == (values.min(), values.max())


@pytest.mark.parametrize("percentile", [99.99, 99.0, 90.0])
@pytest.mark.parametrize("kind", ["normal", "uniform", "relu", "outlier"])
def test_percentile_is_numpys_within_a_bin(percentile, kind):
    generator = np.random.default_rng(4)
    values = {
        "normal": generator.normal(3, 2, 60_000),
        "uniform": generator.uniform(-7, 5, 60_000),
        "relu": np.maximum(generator.normal(0, 1, 60_000), 0),
        "outlier": np.append(generator.normal(0, 1, 60_000), 40.0),
    }[kind].astype(np.float32)
    observer = PercentileObserver(percentile)
    for batch in np.array_split(values, 7):
        observer.observe(torch.from_numpy(batch))
    found = observer.range()
    # A bin is at most peak / 1024 wide, and the answer is a bin's edge.
    width = float(np.abs(values).max()) / 1024
    wanted = np.percentile(values, [100 - percentile, percentile], method="inverted_cdf").tolist()
    assert found == pytest.approx(wanted, abs=1.01 * width)
    assert values.min() <= found[0] <= found[1] <= values.max()


@settings(max_examples=40)
@given(st.lists(FINITE, min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_percentile_does_not_depend_on_the_order(values, random):
    shuffled = list(values)
    random.shuffle(shuffled)
    ranges = []
    for order in (values, shuffled):
        observer = PercentileObserver(95.0)
        for value in order:
            observer.observe(torch.tensor([value]))
        ranges.append(observer.range())
    assert ranges[0] == ranges[1]


def test_hundredth_percentile_is_min_max():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    observer = PercentileObserver(100.0)
    observer.observe(values)
    assert observer.range() == (values.min(), values.max())


def test_zeros_first_do_not_spoil_what_follows():
    observer = PercentileObserver(99.0)
    observer.observe(torch.zeros(10))
    observer.observe(torch.linspace(0, 8, 1000))
    low, high = observer.range()
    assert low == 0.0
    assert high == pytest.approx(7.92, abs=0.02)


@pytest.mark.parametrize("percentile", [50.0, 100.1, -1.0])
def test_senseless_percentile_is_refused(percentile):
    with pytest.raises(UsageError, match=r"is not above 50 and at most 100; use 99.99"):
        PercentileObserver(percentile)


def test_unknown_observer_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"unknown observer 'entropy'; use one of min-max, percentile"):
        make_observer("entropy")


def test_squared_error_is_smaller_than_that_of_any_other_tried_range():
    torch.manual_seed(0)
    values = torch.cat([torch.randn(40_000), 9 * torch.randn(40)])
    observer = SquaredErrorObserver()
    for part in values.split(5000):
        observer.observe(part)
    low, high = observer.range()

    def error(low, high):
        step = (high - low) / 255
        rounded = torch.round(values.clamp(low, high) / step) * step
        return float(((rounded - values) ** 2).sum())

    best = error(low, high)
    assert float(values.min()) < low < -2
    assert best < 0.95 * error(float(values.min()), float(values.max()))
    for factor in (0.8, 0.9, 1.15, 1.3):
        assert best < error(low * factor, high * factor) * 1.01


def test_squared_error_keeps_a_range_without_outliers_and_zero_at_its_end():
    observer = SquaredErrorObserver()
    observer.observe(torch.linspace(0.0, 6.0, 10_001))
    low, high = observer.range()
    assert low == 0.0
    assert 5.8 < high <= 6.0


def test_squared_error_of_one_value_is_that_value():
    observer = SquaredErrorObserver()
    observer.observe(torch.full((10,), -2.5))
    assert observer.range() == pytest.approx((-2.5, -2.5), abs=0.2)
