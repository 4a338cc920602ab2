# SPDX-License-Identifier: Apache-2.0
"""Intervals of launches: they hold the truth where the plain ones do not, and say when nothing can be said."""

import numpy as np
import pytest

from benchmarks.coverage.intervals import cover
from benchmarks.coverage.worlds import WORLDS, alike, truth_of
from benchmarks.quantiles import quantile_interval
from benchmarks.stats import (
    effective_runs,
    launch_medians,
    median_of_launches,
    quantile_of_launches,
    ratio_of_launches,
    summarise,
    upper_bound_of_launches,
    variance_split,
)
from benchmarks.stats.resampling import expanded_tail, resampled
from edge_contract.errors import UsageError
from edge_contract.tails import student_quantile
from tests.benchmarks.stats.made import drawn

WORLD = {world.name: world for world in WORLDS}


def test_students_quantiles_are_scipys():
    from scipy.stats import t

    for tail in (0.25, 0.025, 0.005):
        for df in (1, 2, 9, 9.5, 1000):
            assert student_quantile(tail, df) == pytest.approx(float(t.isf(tail, df)), rel=1e-9)


def test_independent_runs_are_worth_what_they_are_and_copies_are_not():
    random = np.random.default_rng(1)
    runs = random.random((40, 100))
    worth = effective_runs(list(runs), 0.5)
    assert 4000 * 0.5 < worth <= 4000
    copied = np.repeat(runs[:, :5], 20, axis=1)  # each value stands twenty times in a row
    assert effective_runs(list(copied), 0.5) == pytest.approx(200, rel=0.5)
    same = np.repeat(random.random((40, 1)), 100, axis=1)  # a launch says one thing only
    assert effective_runs(list(same), float(np.median(same))) == pytest.approx(40, rel=0.1)


def test_one_launch_speaks_for_itself_by_its_autocorrelation():
    series = alike(np.random.default_rng(2), 1, 4000, 0.9)[0]
    assert effective_runs([series], 0.0) == pytest.approx(4000 * (1 - 0.8) / (1 + 0.8), rel=0.6)
    found = quantile_of_launches([series.tolist()], 0.5)
    plain = quantile_interval(series.tolist(), 0.5)
    assert found.high - found.low > 1.5 * (plain.high - plain.low)


def test_with_launches_that_are_alike_the_interval_is_nearly_that_of_order_statistics():
    random = np.random.default_rng(3)
    times = drawn(random, 30, 200, between=0.0)
    found, plain = quantile_of_launches(list(times), 0.5), quantile_interval(times.ravel().tolist(), 0.5)
    assert found.point == pytest.approx(plain.point)
    assert found.low <= plain.low * 1.001
    assert found.high - found.low < 2.5 * (plain.high - plain.low)


def test_the_bound_is_none_where_the_runs_do_not_support_it():
    random = np.random.default_rng(4)
    assert upper_bound_of_launches(list(drawn(random, 10, 100, between=0.0)), 0.9) is not None
    assert upper_bound_of_launches(list(drawn(random, 3, 50)), 0.99) is None
    apart = drawn(random, 10, 100, between=0.3, within=0.01)  # ten launches are ten values
    assert upper_bound_of_launches(list(apart), 0.9) is None


def test_a_summary_holds_everything_in_order():
    found = summarise(list(drawn(np.random.default_rng(5), 10, 400, between=0.0)))
    bounds = (found.p90_bound, found.p99_bound)
    assert None not in bounds
    assert found.minimum < found.p50.low < found.p50.point < found.p50.high < found.p90 < bounds[0]
    assert found.p99 <= bounds[1] <= found.maximum
    assert (found.n, found.launches) == (4000, 10)


def test_three_launches_have_an_interval_that_pays_for_being_three():
    found = summarise(list(drawn(np.random.default_rng(6), 3, 50))).p50
    medians = launch_medians(list(drawn(np.random.default_rng(6), 3, 50)))
    assert found.coverage == 0.95
    assert found.high - found.low > max(medians) - min(medians)


def test_the_split_of_the_variance_is_that_of_the_simulation():
    times = drawn(np.random.default_rng(7), 400, 100, between=0.02, within=0.05)
    split = variance_split(list(times))
    assert (split.between, split.within) == (pytest.approx(0.02, rel=0.15), pytest.approx(0.05, rel=0.05))
    assert abs(split.acf1) < 0.02
    alone = variance_split(list(drawn(np.random.default_rng(8), 200, 100, between=0.0, within=0.05)))
    assert alone.between < 0.004
    chained = np.exp(0.05 * alike(np.random.default_rng(9), 50, 400, 0.8))
    assert variance_split(list(chained)).acf1 == pytest.approx(0.8, abs=0.05)
    assert variance_split([[3.0]]).within == 0.0


def test_the_median_of_medians_is_exact_and_the_seed_decides():
    times = list(drawn(np.random.default_rng(10)))
    found = median_of_launches(times)
    assert found.point == pytest.approx(float(np.median(launch_medians(times))))
    assert found == median_of_launches(times)
    assert found.low < found.point < found.high
    assert {found.n, found.coverage} == {10, 0.95}
    wider = median_of_launches(times, 0.99)
    assert wider.low <= found.low
    assert found.high <= wider.high


def test_a_single_launch_still_has_the_interval_of_its_own_runs():
    found = median_of_launches([drawn(np.random.default_rng(11), 1, 400)[0].tolist()])
    assert 0.98 < found.low / found.point < 1 < found.high / found.point < 1.02


def test_scaling_times_scales_the_interval():
    a = list(drawn(np.random.default_rng(12)))
    b = [3 * one for one in a]
    one, other = median_of_launches(a), median_of_launches(b)
    assert (other.low, other.high) == (pytest.approx(3 * one.low), pytest.approx(3 * one.high))
    ratio = ratio_of_launches(a, b)
    assert ratio.point == pytest.approx(3.0)
    assert ratio.low < 3.0 < ratio.high


def test_levels_of_few_launches_are_farther_out():
    assert 0.025 > expanded_tail(0.025, 50) > expanded_tail(0.025, 10) > expanded_tail(0.025, 3) > 0


def test_drawing_runs_anew_adds_what_they_scatter():
    times = list(drawn(np.random.default_rng(13), 10, 50, between=0.0, within=0.1))
    random = np.random.default_rng(0)
    plain, both = (np.std(np.log(resampled(times, 2000, random, runs=runs))) for runs in (False, True))
    assert 1.2 < both / plain < 1.7


@pytest.mark.parametrize("world", ["autocorrelated", "heavy-tailed"])
def test_what_is_printed_holds_the_truth(world):
    """A small share of ``python -m benchmarks.coverage``: three standard errors below the nominal coverage."""
    found = {one.method: one for one in cover(WORLD[world], 10, 40, 60)}
    for name in ("median of launch medians", "p50 of all runs"):
        assert found[name].held >= 0.95 - 0.01 - 3 * (0.95 * 0.05 / 60) ** 0.5
        assert found[name].given == 1.0
    bound = found["p90 upper bound"]
    assert bound.given * (1 - (bound.held or 1.0)) <= 0.01 + 3 * (0.01 / 60) ** 0.5
    assert found["(p50 as if runs were independent)"].held < found["p50 of all runs"].held


def test_a_worlds_truth_is_the_closed_form_where_there_is_one():
    truth = truth_of(WORLD["independent"], 25)
    assert truth.p50 == pytest.approx(1.0, abs=0.001)
    assert truth.p90 == pytest.approx(float(np.exp(0.05 * 1.2815515)), abs=0.001)
    assert truth.p99 == pytest.approx(float(np.exp(0.05 * 2.3263479)), abs=0.002)


@pytest.mark.parametrize(
    "call",
    [
        lambda: summarise([]),
        lambda: summarise([[1.0], []]),
        lambda: quantile_of_launches([[1.0, float("nan")]], 0.5),
        lambda: quantile_of_launches([[1.0]], 0.0),
        lambda: median_of_launches([[0.0, 1.0]]),
        lambda: ratio_of_launches([[1.0]], [[-1.0]]),
        lambda: variance_split([[0.0]]),
    ],
)
def test_what_is_no_time_is_refused(call):
    with pytest.raises(UsageError):
        call()
