# SPDX-License-Identifier: Apache-2.0
"""Observers against numpy's own percentiles, over any order and size of batches."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.quantize.observers import (
    OBSERVERS,
    EntropyObserver,
    MinMaxObserver,
    MovingAverageObserver,
    PercentileObserver,
    RoundingErrorObserver,
    SquaredErrorObserver,
    make_observer,
)
from compress.quantize.semantics import dequantize, quantize, scale_and_zero_point
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
    with pytest.raises(UsageError, match=r"unknown observer 'mse'; use one of rounding-error, squared"):
        make_observer("mse")


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


# --- moving average ---


def test_moving_average_is_the_recursion_over_samples_whatever_the_batches():
    values = torch.randn(40, 3, 5, 5, generator=torch.Generator().manual_seed(2))
    low, high = (float(values[0].min()), float(values[0].max()))
    for sample in values[1:]:
        low, high = 0.95 * low + 0.05 * float(sample.min()), 0.95 * high + 0.05 * float(sample.max())
    for size in (1, 7, 40):
        observer = MovingAverageObserver()
        for batch in values.split(size):
            observer.observe(batch)
        assert observer.range() == pytest.approx((low, high), rel=1e-6)


def test_moving_average_forgets_one_odd_sample():
    values = torch.rand(100, 8)
    values[10, 0] = 1000.0
    average, largest = MovingAverageObserver(), MinMaxObserver()
    average.observe(values)
    largest.observe(values)
    assert largest.range()[1] == 1000.0
    assert average.range()[1] < 2.0


# --- entropy ---


def naive_divergence(counts, low_bin, high_bin):
    """KL of the clipped histogram from its 256 levels, bin by bin; counts start at value 0, bins are 1 wide."""
    step = (high_bin - low_bin) / 255
    groups = {}
    for i in range(low_bin, high_bin):
        if counts[i]:
            groups.setdefault(round((i + 0.5) / step), []).append(i)
    p = {i: counts[i] for members in groups.values() for i in members}
    inside = sum(p.values())
    q = {i: sum(counts[j] for j in members) / len(members) / inside for members in groups.values() for i in members}
    p[max(p)] += sum(counts[high_bin:])
    total = sum(p.values())
    return sum(n / total * np.log(n / total / q[i]) for i, n in p.items())


def test_entropy_finds_the_smallest_divergence_among_its_candidates():
    generator = np.random.default_rng(0)
    values = np.minimum(generator.exponential(60, 50_000), 1500).astype(np.float32)
    values[0] = 1600.5  # bins become 1 wide: 1 601 of them are used
    observer = EntropyObserver()
    observer.observe(torch.from_numpy(values))
    low, high = observer.range()
    counts = np.bincount(values.astype(int), minlength=2048).tolist()
    assert low >= 0.0
    found = naive_divergence(counts, 0, round(high))
    tried = [naive_divergence(counts, 0, int(1600 * 2 ** (-i / 4))) for i in range(14)]
    assert found <= min(tried) * 1.05
    assert found < tried[0]


def test_entropy_clips_both_ends_of_a_signed_tensor():
    generator = torch.Generator().manual_seed(0)
    values = torch.cat([torch.randn(200_000, generator=generator), torch.tensor([30.0, -40.0])])
    observer = EntropyObserver()
    observer.observe(values)
    low, high = observer.range()
    assert -12 < low < -3
    assert 3 < high < 12


def test_entropy_keeps_a_flat_distribution_whole():
    observer = EntropyObserver()
    observer.observe(torch.linspace(-1, 1, 100_001))
    low, high = observer.range()
    assert low == pytest.approx(-1, abs=0.1)
    assert high == pytest.approx(1, abs=0.1)


# --- rounding error ---


def mean_error(values, low, high):
    """Mean of what rounding to 256 codes adds, and its mean square."""
    scale, zero = scale_and_zero_point(low, high)
    error = dequantize(quantize(values, scale, zero), scale, zero) - values
    return abs(float(error.mean())), float(error.square().mean())


def test_rounding_error_puts_a_frequent_value_on_a_code():
    torch.manual_seed(0)
    # As behind a convolution of pictures with a black background: its bias, and everything else.
    values = torch.cat([torch.full((30_000,), 0.7316), 2 * torch.rand(10_000), -torch.rand(2_000)])
    plain, exact = SquaredErrorObserver(), RoundingErrorObserver()
    for part in values[torch.randperm(len(values))].split(5000):
        plain.observe(part)
        exact.observe(part)
    before, after = mean_error(values, *plain.range()), mean_error(values, *exact.range())
    assert after[1] < before[1] / 1.5
    assert after[0] < before[0] / 2
    assert exact.range()[1] == pytest.approx(plain.range()[1], rel=0.061)


def test_rounding_error_of_one_value_is_that_value():
    observer = RoundingErrorObserver()
    observer.observe(torch.full((10,), 2.5))
    low, high = observer.range()
    assert low == 0.0
    assert high == pytest.approx(2.5, rel=0.061)
    assert mean_error(torch.full((1,), 2.5), low, high)[0] < 1e-6


# --- all of them ---


@pytest.mark.parametrize("name", OBSERVERS)
def test_every_observer_stays_within_reach_and_its_memory_does_not_grow(name):
    generator = torch.Generator().manual_seed(3)
    observer = make_observer(name)
    sizes = []
    for _ in range(6):
        observer.observe(torch.randn(4, 100, generator=generator))
        sizes.append(len(pickle.dumps(observer)))
    low, high = observer.range()
    assert -4.2 < low < -1
    assert 1 < high < 4.2
    assert max(sizes) - sizes[1] < 100


@pytest.mark.parametrize("name", OBSERVERS)
def test_every_observer_survives_a_dead_tensor(name):
    observer = make_observer(name)
    observer.observe(torch.zeros(2, 5))
    assert observer.range() == (0.0, 0.0)
