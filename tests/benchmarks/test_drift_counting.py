# SPDX-License-Identifier: Apache-2.0
"""The fast counting of the benchmarks is the device's, to the last integer; its windows hold what they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.drift.coded import Seen, code, count, joined
from benchmarks.drift.judged import family_p, knocked_out, mixture, share, summary_of
from benchmarks.drift.material import ask
from benchmarks.drift.shifts import DIGITS, FAILING_LOUDLY, fresh
from benchmarks.drift.streams import autoregressive, held
from edge_agent.runner.observe import Observer
from edge_contract.findings import DriftState
from edge_contract.verdict import judge
from tests.support.digits import digits, other_digits, profile

IMAGES = np.random.default_rng(1).integers(0, 256, (40, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def seen():
    own = digits(0)
    return ask(own.net, own.test[:300], own.test_labels[:300])


@pytest.fixture(scope="module")
def coded(seen):
    return code(profile(), seen)


def observed(rows):
    """Count rows of the test digits as a device does."""
    own, observer = digits(0), Observer(profile())
    for row in rows:
        answer = own.net.infer(own.test[row])
        observer.observe(answer.logits, answer.embedding, own.test[row], 0.0)
    return observer.counters()


@pytest.mark.parametrize("n", [1, 2, 15, 64, 200])
def test_a_window_is_what_the_observer_counts(coded, n):
    rows = np.random.default_rng(n).choice(300, n)
    found, expected = count(coded, rows), observed(rows)
    latency = {"latency": expected.latency, "latency_sum_us": expected.latency_sum_us}
    assert vars(found) | latency == vars(expected)
    found.check()


def test_two_pools_are_counted_as_one(coded, seen):
    others = ask(digits(0).net, other_digits()[0][:80], other_digits()[1][:80])
    both = joined(coded, code(profile(), others))
    assert len(both) == 380
    mixed, own, other = (
        count(both, np.array([5, 301, 7, 379])),
        count(coded, np.array([5, 7])),
        count(code(profile(), others), np.array([1, 79])),
    )
    for name in ("cells", "confidence", "energy", "brightness", "embedding_squares"):
        assert getattr(mixed, name) == getattr(own.merge(other), name)


def test_the_p_value_of_the_grid_is_the_verdicts(coded):
    for seed in range(4):
        counters = count(coded, np.random.default_rng(seed).choice(300, 150, replace=False))
        verdict, _ = judge(profile(), summary_of(profile(), counters, 1), DriftState())
        assert family_p(profile(), counters) == verdict.p_family


def test_answers_without_images_or_embedding_are_counted_without(seen):
    bare = Seen(seen.logits, seen.embedding, seen.truth, np.zeros((3, 0)), np.zeros((2, 0)), seen.group)
    counters = count(code(profile(), bare), np.arange(100))
    assert sum(counters.brightness) == counters.dark == counters.bright == 0
    counters.check()


@given(st.integers(0, 200), st.floats(0, 1), st.integers(1, 50), st.integers(1, 50))
@settings(max_examples=40, deadline=None)
def test_a_mixture_has_its_share(n, fraction, null, shifted):
    rows = mixture(np.random.default_rng(0), null, shifted, n, fraction)
    assert len(rows) == n
    assert (rows >= null).sum() == round(n * fraction)
    if n <= min(null, shifted):
        assert len(set(rows.tolist())) == n


def test_a_knock_out_takes_one_class_away(seen):
    random = np.random.default_rng(0)
    rows = knocked_out(random, seen, 200, 1.0)
    assert not (seen.truth[rows] == 0).any()
    half = np.concatenate([knocked_out(random, seen, 200, 0.5) for _ in range(20)])
    assert 0.3 < (seen.truth[half] == 0).mean() / (seen.truth == 0).mean() < 0.75


@pytest.mark.parametrize("shift", [*DIGITS.items(), *FAILING_LOUDLY.items()], ids=lambda item: item[0])
def test_every_shift_changes_images_and_keeps_their_form(shift):
    moved = shift[1](IMAGES, np.random.default_rng(0))
    assert (moved.shape, moved.dtype) == (IMAGES.shape, np.uint8)
    assert (moved != IMAGES).any()
    assert (moved == shift[1](IMAGES, np.random.default_rng(0))).all()


def test_fresh_draws_stay_close_to_their_images():
    smooth = np.full((3, 8, 8), 100, np.uint8)
    drawn = fresh(smooth, np.zeros(500, int), np.random.default_rng(0))
    assert abs(float(drawn.mean()) - 100) < 2
    assert 3 < float(drawn.std()) < 20


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_streams_are_correlated_as_asked_and_keep_the_pool(coded, rho):
    random = np.random.default_rng(2)
    rows = autoregressive(random, coded, 20_000, rho)
    energy = coded.energy[rows].astype(float)
    ranks = energy.argsort().argsort()
    assert np.corrcoef(ranks[1:], ranks[:-1])[0, 1] == pytest.approx(rho, abs=0.06)
    assert abs(energy.mean() - coded.energy.mean()) < 0.12 * coded.energy.std() * np.sqrt((1 + rho) / (1 - rho))
    group = np.repeat(np.arange(30), 10)
    again = group[held(random, group, 20_000, rho)]
    assert (again[1:] == again[:-1]).mean() == pytest.approx(rho + (1 - rho) / 30, abs=0.02)
    assert np.bincount(again).min() > 200


def test_wilsons_interval():
    found = share([False] * 100)
    assert (found.share, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(0.037, abs=0.001)
