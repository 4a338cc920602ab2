# SPDX-License-Identifier: Apache-2.0
"""Intervals by families: how often they hold in a simulation where families err as a whole, and where they must end."""

import math

import numpy as np
import pytest

from benchmarks.predict.conformal import families_needed, interval
from edge_contract.errors import UsageError


def held(families, members, *, family_sd, sd, known, trials=400):
    """Return how often the interval holds a new model's time; every fit says 1 ms, and errors are log-normal."""
    draw = np.random.default_rng(1)
    hits = 0
    for _ in range(trials):
        shifts = draw.normal(0, family_sd, families)
        errors = np.abs(shifts[:, None] + draw.normal(0, sd, (families, members)))
        names = [f"f{i}" for i in range(families) for _ in range(members)]
        shift = shifts[0] if known else draw.normal(0, family_sd)
        time = math.exp(shift + draw.normal(0, sd))
        words = {"coverage": 0.9, "is_known": known}
        low, high = interval([1.0] * len(names), errors.reshape(-1).tolist(), names, **words)
        hits += low <= time <= high
    return hits / trials


@pytest.mark.parametrize(("families", "members"), [(9, 6), (13, 12), (30, 2)])
def test_interval_of_an_unknown_family_holds_as_often_as_it_says(families, members):
    assert held(families, members, family_sd=0.2, sd=0.05, known=False) >= 0.9 - 0.03  # two standard errors


def test_counting_every_model_as_a_witness_would_not_hold():
    """Why families weigh alike: with one large family and many small ones the pooled quantile is the large one's."""
    draw = np.random.default_rng(2)
    hits = {True: 0, False: 0}
    for _ in range(300):
        shifts = draw.normal(0, 0.3, 13)
        sizes = [1] * 12 + [120]
        names = [f"f{i}" for i, size in enumerate(sizes) for _ in range(size)]
        errors = [abs(shifts[i]) for i, size in enumerate(sizes) for _ in range(size)]
        time = math.exp(draw.normal(0, 0.3))
        for known in hits:
            low, high = interval([1.0] * len(names), errors, names, coverage=0.9, is_known=known)
            hits[known] += low <= time <= high
    assert hits[False] / 300 >= 0.87 > 0.7 > hits[True] / 300


def test_interval_of_a_known_family_holds():
    assert held(4, 15, family_sd=0.1, sd=0.1, known=True) >= 0.9 - 0.03


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_fewer_families_than_needed_have_no_upper_end(coverage):
    needed = families_needed(coverage)
    assert needed / (needed + 1) >= coverage > (needed - 1) / needed
    for count, is_finite in ((needed, True), (needed - 1, False)):
        names = [f"f{i}" for i in range(count)]
        low, high = interval([1.0] * count, [0.1] * count, names, coverage=coverage, is_known=False)
        assert math.isfinite(high) == is_finite and (low > 0) == is_finite


def test_ends_are_those_of_the_ordered_errors():
    """Of 9 single models of known families, 90 % of 10 is the 9th: the largest error."""
    errors = [0.01 * i for i in range(1, 10)]
    low, high = interval([2.0] * 9, errors, ["a"] * 9, coverage=0.9, is_known=True)
    assert (low, high) == pytest.approx((2 * math.exp(-0.09), 2 * math.exp(0.09)))


def test_fits_that_disagree_widen_the_interval():
    names = ["a", "b"] * 10
    low, high = interval([1.0, 4.0] * 10, [0.0] * 20, names, coverage=0.9, is_known=True)
    assert low == pytest.approx(1.0) and high == pytest.approx(4.0)


def test_nothing_and_lists_of_different_lengths_are_refused():
    for predicted, errors, names in (([], [], []), ([1.0], [0.1, 0.2], ["a"])):
        with pytest.raises(UsageError, match="predictions"):
            interval(predicted, errors, names, coverage=0.9, is_known=True)
