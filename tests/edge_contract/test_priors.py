# SPDX-License-Identifier: Apache-2.0
"""The mix of classes without labels: right where only the mix changed, silent where the images did."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract.counts import Counters
from edge_contract.errors import MessageError
from edge_contract.priors import MixChange, PriorShift, _columns, _inverse, _on_simplex, prior_shift
from edge_contract.profile import ReferenceProfile
from edge_contract.verdict import DriftState, Level, Verdict, judge
from tests.support.digits import digits, other_digits, profile, window


def mixed(shares, n, seed):
    """Return a window of test digits with these shares of the classes."""
    random, labels = np.random.default_rng(seed), digits(0).test_labels
    counts = random.multinomial(n, shares)
    rows = np.concatenate([random.permutation(np.flatnonzero(labels == k))[:c] for k, c in enumerate(counts)])
    return window(0, "test", random.permutation(rows))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_another_mix_is_estimated_and_called_by_its_name(seed):
    shares = np.array([0.28, 0.02, 0.2, 0.02, 0.1, 0.1, 0.04, 0.1, 0.04, 0.1])
    found = prior_shift(profile(), mixed(shares, 300, seed).counters)
    assert found.kind is MixChange.LABEL
    assert np.abs(np.array(found.shares) - shares).max() < 0.09
    assert np.mean(np.abs(np.array(found.shares) - shares) <= np.array(found.errors) + 0.01) >= 0.8
    assert sum(found.shares) == pytest.approx(1, abs=1e-3)


def test_other_images_are_not_taken_for_another_mix():
    random = np.random.default_rng(4)
    for _ in range(3):
        rows = random.permutation(len(other_digits()[1]))[:400]
        assert prior_shift(profile(), window(0, "other", rows).counters).kind is MixChange.COVARIATE


def test_the_same_mix_is_none():
    found = [prior_shift(profile(), mixed(np.full(10, 0.1), 300, seed).counters) for seed in range(8)]
    assert {one.kind for one in found} == {MixChange.NONE}
    assert min(one.residual for one in found) >= 1e-3


def test_correlated_samples_claim_less():
    counters = mixed(np.full(10, 0.1), 600, 1).counters
    free, tied = prior_shift(profile(), counters), prior_shift(profile(), counters, 5.0)
    assert tied.shares == free.shares
    assert min(tied.errors) > min(free.errors)
    assert prior_shift(profile(), counters, 10.0) is None


def test_a_confusion_that_cannot_be_inverted_says_nothing():
    confusion = list(profile().confusion)
    confusion[10:20] = confusion[:10]  # a true 1 is answered like a true 0
    blurred = replace(profile(), confusion=tuple(confusion))
    found = prior_shift(blurred, mixed(np.full(10, 0.1), 200, 1).counters)
    assert found.kind is MixChange.UNKNOWN
    assert found.condition > 100
    assert PriorShift.from_json(found.to_json()) == found


def test_a_class_without_reference_is_taken_at_its_word():
    confusion = [0] * 100
    for k in range(9):
        confusion[11 * k] = 80
    found = prior_shift(replace(profile(), confusion=tuple(confusion)), mixed(np.full(10, 0.1), 200, 2).counters)
    assert found.condition == pytest.approx(1.0)
    assert found.shares[9] > 0


def test_too_little_is_nothing():
    blank = ReferenceProfile.blank(profile().labels)
    assert prior_shift(blank, mixed(np.full(10, 0.1), 200, 2).counters) is None
    assert prior_shift(profile(), Counters.zero(10)) is None
    assert prior_shift(profile(), mixed(np.full(10, 0.1), 63, 2).counters) is None


def test_the_verdict_carries_it_when_a_window_is_strange_and_survives_the_wire():
    verdict, _ = judge(profile(), mixed([0, 0, 0, 0.9, 0, 0, 0, 0.1, 0, 0], 95, 1), DriftState())
    assert verdict.level is Level.WARN
    assert verdict.prior.shares[3] > 0.8
    assert Verdict.from_json(verdict.to_json()) == verdict
    old = {key: value for key, value in verdict.to_json().items() if key != "prior"}
    assert Verdict.from_json(old) == replace(verdict, prior=None)
    quiet, _ = judge(profile(), mixed(np.full(10, 0.1), 200, 1), DriftState())
    assert quiet.prior is None


@pytest.mark.parametrize(
    "change", [{"kind": "weather"}, {"shares": [0.5]}, {"errors": "many"}, {"residual": None}, {"condition": "high"}]
)
def test_a_malformed_estimate_is_refused(change):
    document = prior_shift(profile(), mixed(np.full(10, 0.1), 200, 1).counters).to_json()
    with pytest.raises(MessageError):
        PriorShift.from_json({**document, **change})


@given(st.lists(st.floats(-2, 3), min_size=1, max_size=12))
def test_the_simplex_is_reached_and_kept(values):
    found = _on_simplex(values)
    assert min(found) >= 0
    assert sum(found) == pytest.approx(1, abs=1e-6)
    assert _on_simplex(found) == pytest.approx(found, abs=1e-6)


def test_the_inverse_is_numpys():
    matrix = _columns(profile().confusion, 10)
    assert np.array(_inverse(matrix)) == pytest.approx(np.linalg.inv(np.array(matrix)), abs=1e-9)
    assert np.array(matrix).sum(axis=0) == pytest.approx(np.ones(10))
    assert _inverse(((1.0, 1.0), (1.0, 1.0))) is None
    assert inf > 100
