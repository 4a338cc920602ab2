# SPDX-License-Identifier: Apache-2.0
"""Hartigan's dip against its authors' example and published quantiles; two speeds and one."""

import numpy as np
import pytest

from benchmarks.coverage.worlds import alike
from benchmarks.stats.modes import _SQRT_N_DIP, combined_p, dip, dip_p, find_modes, two_means
from edge_contract.errors import UsageError

# Hartigan and Hartigan, 1985, section 5: quality of 63 statistics departments
FACULTIES = (
    *(30, 33, 35, 36, 37, 37, 39, 39, 39, 39, 39, 40, 40, 40, 40, 41, 42, 43, 43, 43, 44, 44, 45, 45, 46, 46, 47, 47),
    *(48, 48, 48, 49, 50, 50, 51, 52, 52, 53, 53, 53, 53, 53, 54, 54, 57, 57, 59, 60, 60, 60, 61, 61, 61, 61, 62, 62),
    *(62, 62, 63, 66, 70, 72, 72),
)
# Upper quantiles 0.5, 0.1, 0.05, 0.01, 0.001 of the dip of uniform samples, Maechler's table (1 000 001 samples each)
PUBLISHED = {
    10: (0.09778, 0.13046, 0.13961, 0.15968, 0.18061),
    20: (0.07334, 0.09723, 0.10513, 0.12062, 0.13857),
    50: (0.04885, 0.06491, 0.07027, 0.08120, 0.09409),
    100: (0.03546, 0.04715, 0.05113, 0.05902, 0.06845),
    200: (0.02558, 0.03400, 0.03684, 0.04269, 0.04972),
    500: (0.01645, 0.02188, 0.02373, 0.02745, 0.03202),
    1000: (0.01174, 0.01561, 0.01693, 0.01961, 0.02287),
    2000: (0.00836, 0.01110, 0.01204, 0.01397, 0.01627),
}


def test_the_authors_example():
    found = dip(np.array(FACULTIES, float))
    assert found == pytest.approx(0.059524, abs=1e-6)
    assert dip_p(found, len(FACULTIES)) == pytest.approx(0.0867, abs=0.01)  # interpolated in Maechler's table


@pytest.mark.parametrize("n", sorted(PUBLISHED))
def test_our_quantiles_are_the_published_ones(n):
    assert np.array(_SQRT_N_DIP[n]) / n**0.5 == pytest.approx(PUBLISHED[n], rel=0.015)


def test_the_dip_has_its_bounds_and_does_not_mind_order_or_scale():
    random = np.random.default_rng(1)
    for n in (1, 2, 3, 10, 97):
        values = random.random(n)
        assert 1 / (2 * n) - 1e-12 <= dip(values) <= max(0.25, 1 / (2 * n))
        assert dip(random.permutation(values) * 7 + 3) == pytest.approx(dip(values))
    assert dip(np.full(9, 2.0)) == 1 / 18
    with pytest.raises(UsageError):
        dip(np.array([]))


def test_one_tall_value_in_the_middle_is_one_mode():
    """Timers of low resolution give many equal values; a single mode made of them is no dip."""
    values = np.concatenate([np.linspace(-1, 0, 25, endpoint=False), np.zeros(50), np.linspace(0.04, 1, 25)])
    assert dip(values) == pytest.approx(1 / 200)


def test_uniform_samples_are_called_two_speeds_as_often_as_p_says():
    random = np.random.default_rng(2)
    found = [dip_p(dip(random.random(120)), 120) for _ in range(400)]
    assert sum(p < 0.05 for p in found) <= 400 * 0.05 + 3 * (400 * 0.0475) ** 0.5
    assert sum(p < 0.05 for p in found) >= 400 * 0.05 - 3 * (400 * 0.0475) ** 0.5


def test_two_speeds_are_found_with_their_gap():
    random = np.random.default_rng(3)
    slow = random.random(600) < 0.3
    found = find_modes(np.where(slow, 1.3, 1.0) * np.exp(0.02 * random.standard_normal(600)))
    assert found.p < 0.001
    assert (found.gap, found.share) == (pytest.approx(0.3, abs=0.02), pytest.approx(0.3, abs=0.06))


def test_a_long_tail_and_autocorrelation_are_not_two_speeds():
    random = np.random.default_rng(4)
    tails = [find_modes(one) for one in np.exp(0.3 * random.standard_normal((60, 200)))]
    assert np.mean([one.gap for one in tails]) > 0.15  # the gap of two means alone would flag them all
    assert sum(one.p < 0.01 for one in tails) <= 2
    series = [find_modes(np.exp(0.1 * one)) for one in alike(random, 60, 300, 0.95)]
    assert sum(one.p < 0.01 for one in series) <= 3


def test_two_means_is_the_best_cut_of_all():
    values = np.random.default_rng(5).random(30)
    ordered = np.sort(values)
    costs = [ordered[:i].var() * i + ordered[i:].var() * (30 - i) for i in range(1, 30)]
    assert len(two_means(values)[0]) == int(np.argmin(costs)) + 1


def test_several_p_values_become_one():
    assert combined_p([0.2]) == 0.2
    assert combined_p([0.001, 0.9, 0.9, 0.9]) == pytest.approx(0.004)
    assert combined_p([1.0, 1.0]) == 1.0
