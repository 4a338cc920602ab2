# SPDX-License-Identifier: Apache-2.0
"""Order statistics of any quantile: against SciPy's binomial law, NumPy's quantiles and MLPerf's table."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from benchmarks.quantiles import below, min_runs, quantile, quantile_interval, ranks, upper_bound, upper_rank
from edge_contract.errors import UsageError

quantiles = st.sampled_from([0.05, 0.25, 0.5, 0.9, 0.95, 0.99])


@pytest.mark.parametrize(
    ("q", "confidence", "runs"),
    # MLPerf Inference, early stopping with d = 0: runs for 0, 1 and 2 allowed above
    [
        (0.90, 0.95, (29, 46, 61)),
        (0.95, 0.95, (59, 93, 124)),
        (0.99, 0.95, (299, 473, 628)),
        (0.90, 0.99, (44, 64, 81)),
        (0.95, 0.99, (90, 130, 165)),
        (0.99, 0.99, (459, 662, 838)),
    ],
)
def test_the_fewest_runs_are_those_of_the_table(q, confidence, runs):
    assert tuple(min_runs(q, confidence, above) for above in (0, 1, 2)) == runs
    for above, n in enumerate(runs):
        assert upper_rank(n, q, confidence) == n - above
        assert (upper_rank(n - 1, q, confidence) or n + 1) > n - 1 - above


def test_runs_for_the_999th_thousandth():
    assert (min_runs(0.999, 0.95), min_runs(0.999, 0.95, 1)) == (2995, 4742)


@given(st.integers(1, 3000), quantiles, st.floats(0.0, 1.0))
@settings(max_examples=60)
def test_the_law_behind_is_the_binomial_one(n, q, where):
    k = round(where * n)
    assert below(k, n, q) == pytest.approx(float(binom.cdf(k - 1, n, q)), rel=1e-7, abs=1e-12)


@given(st.integers(6, 1500), quantiles)
@settings(max_examples=60)
def test_an_interval_holds_what_it_says_and_no_smaller_one_would(n, q):
    low, high, kept = ranks(n, q, 0.95)
    assert kept == pytest.approx(float(binom.cdf(high - 1, n, q) - binom.cdf(low - 1, n, q)), abs=1e-9)
    if kept >= 0.95 and low > 1 and high < n:
        assert binom.cdf(low, n, q) > 0.025
        assert 1 - binom.cdf(high - 2, n, q) > 0.025
    elif kept < 0.95:
        assert (low, high) == (1, n)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), quantiles)
def test_a_quantile_is_numpys(values, q):
    assert quantile(values, q) == pytest.approx(float(np.quantile(values, q)), rel=1e-9, abs=1e-9)


def test_a_bound_is_one_of_the_values_or_none():
    values = [float(i) for i in range(1, 65)]
    assert upper_bound(values, 0.9) == 63.0
    assert upper_bound(values[:43], 0.9) is None
    assert upper_bound(values, 0.99) is None


def test_the_bound_of_independent_values_holds():
    random = np.random.default_rng(1)
    truth = float(np.exp(1.2815515594457))
    drawn = np.exp(random.standard_normal((600, 100)))
    held = sum(upper_bound(one.tolist(), 0.9) >= truth for one in drawn)
    assert held >= 600 * 0.99 - 3 * (600 * 0.01) ** 0.5


def test_the_form_for_documents_names_the_estimate():
    assert quantile_interval([1.0] * 10, 0.5).to_json("median")["median"] == 1.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: quantile_interval([], 0.9),
        lambda: quantile_interval([1.0], 1.0),
        lambda: quantile([1.0], 1.5),
        lambda: upper_bound([1.0], 0.0),
        lambda: min_runs(1.0),
        lambda: min_runs(0.9, 0.99, -1),
    ],
)
def test_what_has_no_answer_is_refused(call):
    with pytest.raises(UsageError):
        call()
