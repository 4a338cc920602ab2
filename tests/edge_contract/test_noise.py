# SPDX-License-Identifier: Apache-2.0
"""Noise: its law, what it is put on, that it adds up, and that tests which know of it cry wolf no more often."""

import math
import random
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_contract.autocorrelation import design_effect
from edge_contract.counts import NOISE_UNIT, Counters
from edge_contract.errors import SummaryError
from edge_contract.findings import DriftState
from edge_contract.noise import compare_noised, histograms, noised, noised_evidence, variance_of
from edge_contract.profile import ReferenceProfile
from edge_contract.statistics import compare_counts, holm
from edge_contract.summary import MAX_SUMMARY_BYTES, DriftSummary, decode
from edge_contract.tasks import Form
from edge_contract.verdict import judge
from tests.support.windows import build, counters

CLASSES, EVEN = 10, np.ones(16) / 16
CELLS = np.random.default_rng(4).dirichlet(np.ones(4 * CLASSES) * 1.5)


def window(random_, n, shares=EVEN):
    """A window of n independent inferences of a ten-class model."""
    drawn = {name: tuple(random_.multinomial(n, EVEN).tolist()) for name in ("energy", "contrast", "sharpness")}
    cells = random_.multinomial(n, CELLS)
    same = float(((cells.reshape(CLASSES, 4).sum(axis=1) / n) ** 2).sum())
    return replace(
        Counters.zero(CLASSES),
        n_infer=n,
        n_sampled=n,
        cells=tuple(cells.tolist()),
        confidence=(n,) + (0,) * 15,
        brightness=tuple(random_.multinomial(n, shares).tolist()),
        pairs=n - 1,
        repeats=int(random_.binomial(n - 1, same)),
        **drawn,
    )


def known(random_, m=3000):
    counted = window(random_, m)
    labels = tuple("abcdefghij")
    return replace(ReferenceProfile.blank(labels), counters=counted, confusion=(m,) + (0,) * (CLASSES**2 - 1))


def noise_of(seed):
    drawn = random.Random(seed)
    return lambda: 1 - drawn.random()


def family(profile, seen):
    found = noised_evidence(profile, seen, design_effect(seen))
    return min(holm({name: e.p for name, e in found.items() if e is not None}).values())


def test_the_noise_has_the_variance_of_its_law_and_no_mean():
    """The difference of two geometric variables, summed by its definition: p(k) = (1 - a)/(1 + a) × a^|k|."""
    for epsilon, shared in ((2.0, 6), (1.0, 3), (8.0, 2)):
        a = math.exp(-epsilon / (2 * shared))
        law = {k: (1 - a) / (1 + a) * a ** abs(k) for k in range(-4000, 4001)}
        assert sum(law.values()) == pytest.approx(1.0)
        assert sum(p * k * k for k, p in law.items()) == pytest.approx(variance_of(epsilon, shared))
    seen = noised(replace(Counters.zero(64), n_infer=1, energy=(0,) * 16), 2.0, noise_of(1))
    cells = np.array([noised(Counters.zero(64), 2.0, noise_of(i)).cells for i in range(40)]).reshape(-1)
    expected, size = variance_of(2.0, histograms(seen)), len(cells)
    assert cells.mean() == pytest.approx(0.0, abs=4 * math.sqrt(expected / size))
    assert cells.var() == pytest.approx(expected, rel=4 * math.sqrt(5 / size))  # the kurtosis is 6


def test_one_inference_changes_what_is_seen_by_no_more_than_its_epsilon():
    """Exact: over all outputs of one histogram of two bins, the ratio of both laws is at most e^(ε / histograms)."""
    epsilon, shared = Fraction(2), 3
    a = math.exp(-float(epsilon) / (2 * shared))
    law = lambda k: (1 - a) / (1 + a) * a ** abs(k)  # noqa: E731
    one, other = (5, 7), (6, 6)  # one inference replaced
    ratios = [
        math.log(law(x - one[0]) * law(y - one[1]) / (law(x - other[0]) * law(y - other[1])))
        for x in range(-40, 60)
        for y in range(-40, 60)
    ]
    assert max(map(abs, ratios)) == pytest.approx(float(epsilon) / shared)


@settings(max_examples=30)
@given(counters(), st.floats(0.1, 20.0), st.integers(0, 2**32))
def test_nothing_is_left_that_got_no_noise(seen, epsilon, seed):
    found = noised(seen, epsilon, noise_of(seed))
    found.check()
    for name in ("confidence", "embedding_sum", "embedding_squares", "sensors"):
        assert not any(getattr(found, name))
    for name in (
        "confidence_sum",
        "energy_sum",
        "energy_squares",
        "block_sum",
        "block_squares",
        "lag",
        "dark",
        "bright",
    ):
        assert getattr(found, name) == 0
    assert (found.n_infer, found.n_sampled, found.n_err) == (seen.n_infer, seen.n_sampled, seen.n_err)


@settings(max_examples=25)
@given(counters(slots=5), counters(slots=5), counters(slots=5), st.integers(0, 99))
def test_noised_windows_add_up_exactly_in_any_order(one, two, three, seed):
    a, b = noised(one, 2.0, noise_of(seed)), noised(two, 1.0, noise_of(seed + 1))
    assert a.merge(b).merge(three) == three.merge(b.merge(a))
    assert a.merge(b).minus(b) == a
    assert a.merge(b).noise == (2, a.noise[1] + b.noise[1])
    assert Counters.from_list(a.merge(b).to_list()) == a.merge(b)


@settings(max_examples=30)
@given(counters(), st.integers(0, 2**32))
def test_a_noised_window_travels_and_an_older_reader_sees_how_much_was_inferred(seen, seed):
    found = noised(seen, 2.0, noise_of(seed))
    sent = DriftSummary("11" * 8, "22" * 16, 7, "33" * 4, 3, 1_700_000_000_000, 60_000, found)
    assert len(sent.encode()) <= MAX_SUMMARY_BYTES
    assert decode(sent.encode()) == sent


def test_a_window_of_every_task_gets_noise_on_what_counts_inferences_once():
    for form, whole in (
        (Form("detect", (16, 16, 16, 2)), (True, False, False, False)),
        (Form("regress", (16, 16)), (True, True)),
        (Form("anomaly", (8,)), (True,)),
        (Form("segment", (3,)), (False,)),
    ):
        seen = noised(Counters.zero(1, form), 0.1, noise_of(3))
        assert tuple(any(table) for table in seen.tables) == whole


def test_false_alarms_stay_below_two_percent_at_nominal_one():
    """n = 500, ε = 2 shared by six histograms: a count has as much noise as chance. Over 4500 windows it was 1.1 %."""
    random_ = np.random.default_rng(3)
    profile = known(random_)
    p = np.array([family(profile, noised(window(random_, 500), 2.0, noise_of(i))) for i in range(500)])
    assert (p < 0.01).mean() <= 0.02
    assert (p < 0.001).mean() <= 0.006


def test_a_test_that_forgets_the_noise_cries_wolf():
    random_ = np.random.default_rng(3)
    profile = known(random_)
    seen = [noised(window(random_, 500), 2.0, noise_of(i)) for i in range(60)]
    naive = [compare_counts([max(c, 0) for c in one.energy], profile.counters.energy).p < 0.01 for one in seen]
    assert np.mean(naive) > 0.5


def test_a_shift_is_seen_through_the_noise_and_better_in_many_windows_together():
    random_ = np.random.default_rng(5)
    profile, tilt = known(random_), np.linspace(1.9, 0.1, 16) / 16
    p = [family(profile, noised(window(random_, 500, tilt), 2.0, noise_of(i))) for i in range(10)]
    assert np.median(p) < 1e-3
    slight = np.linspace(1.5, 0.5, 16) / 16
    alone = [noised(window(random_, 500, slight), 2.0, noise_of(i)) for i in range(10)]
    together = alone[0]
    for one in alone[1:]:
        together = together.merge(one)
    assert family(profile, together) < 1e-4 < np.median([family(profile, one) for one in alone])


def test_little_noise_gives_the_p_value_of_none():
    random_ = np.random.default_rng(6)
    profile, seen = known(random_), window(random_, 800, np.linspace(1.3, 0.7, 16) / 16)
    with_noise = compare_noised(seen.brightness, profile.counters.brightness, 1.0, n=800, noise=(1, 1))
    plain = compare_counts(seen.brightness, profile.counters.brightness)
    assert math.log(with_noise.p) == pytest.approx(math.log(plain.p), rel=0.1)
    assert with_noise.effect == pytest.approx(plain.effect, rel=0.1)


def test_a_noised_window_is_judged_by_the_channels_that_are_left_without_an_estimate():
    random_ = np.random.default_rng(7)
    profile = known(random_)
    tilt = np.linspace(1.9, 0.1, 16) / 16
    seen, state = noised(window(random_, 800, tilt), 2.0, noise_of(1)), DriftState()
    sent = DriftSummary("11" * 8, "22" * 16, profile.crc, "33" * 4, 3, 1, 60_000, seen)
    for _ in range(2):
        found, state = judge(profile, sent, state)
    told = {c.name: c.p for c in found.channels}
    assert told["max-prob"] is None and told["embedding"] is None
    assert told["input"] < 1e-6
    assert found.estimated_accuracy is None
    assert "no estimate of the accuracy for noised windows" in found.reason
    again = DriftState.from_json(state.to_json())
    assert again == state


def test_noise_that_cannot_be_is_refused():
    seen = noised(build(3, 100, random.Random(1).randrange), 2.0, noise_of(1))
    assert seen.noise[1] == round(NOISE_UNIT * variance_of(2.0, 6))
    body = DriftSummary("11" * 8, "22" * 16, 7, "33" * 4, 3, 1, 1, replace(seen, noise=(1, 0))).encode()
    with pytest.raises(SummaryError, match="noise without noised windows"):
        decode(body)
