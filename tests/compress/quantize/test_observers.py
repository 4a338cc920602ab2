# SPDX-License-Identifier: Apache-2.0
"""Observers against numpy's own percentiles, over any order and size of batches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.quantize.observers import MinMaxObserver, PercentileObserver, make_observer
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
