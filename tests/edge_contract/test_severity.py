# SPDX-License-Identifier: Apache-2.0
"""Estimated accuracy on real digits under real distortions: right where it says valid, humble where it does not."""

import numpy as np
import pytest

from edge_agent.runner.observe import Observer
from edge_contract.counts import Counters
from edge_contract.severity import estimate, estimators, mix_explains
from edge_contract.statistics import Evidence
from edge_contract.verdict import DriftState, judge
from tests.support.digits import digits, other_digits, profile, summary_of, window

DISTORTIONS = {
    "none": lambda x, random: x,
    "faint noise": lambda x, random: x + random.normal(0, 8, x.shape),
    "noise": lambda x, random: x + random.normal(0, 76, x.shape),
    "dim": lambda x, random: x * 0.6,
    "flat": lambda x, random: (x - 128) * 0.7 + 128,
    "down and right": lambda x, random: np.roll(x, (2, 2), (1, 2)),
    "dead rows": lambda x, random: np.where(np.arange(28)[None, :, None] // 4 == 3, 0, x),
    "inverted": lambda x, random: 255 - x,
}


def distorted(seed, name):
    """Return (verdict on 200 distorted test digits, their true accuracy)."""
    own, reference, random = digits(seed), profile(seed), np.random.default_rng(seed)
    rows = random.permutation(1000)[:200]
    raw = np.clip(DISTORTIONS[name](own.test[rows].astype(float), random), 0, 255).astype(np.uint8)
    observer, right = Observer(reference), 0
    for image, label in zip(raw, own.test_labels[rows], strict=True):
        answer = own.net.infer(image)
        right += int(answer.logits.argmax()) == label
        observer.observe(answer.logits, answer.embedding, image, 500.0)
    verdict, _ = judge(reference, summary_of(reference, observer.counters()), DriftState())
    return verdict, right / len(rows)


def test_estimates_that_claim_to_be_valid_are_right_and_the_others_beat_no_change():
    valid, invalid, unchanged = [], [], []
    for seed in (0, 1):
        for name in DISTORTIONS:
            verdict, true = distorted(seed, name)
            error = abs(verdict.estimated_accuracy - true)
            if verdict.valid:
                valid.append(error)
                assert verdict.low <= true <= verdict.high
            else:
                invalid.append(error)
                unchanged.append(abs(verdict.reference_accuracy - true))
    assert len(valid) >= 2
    assert len(invalid) >= 8
    assert np.mean(valid) < 0.04  # the target is 8 points
    assert np.mean(invalid) < 0.8 * np.mean(unchanged)


@pytest.mark.parametrize("label", range(10))
def test_another_mix_of_classes_is_told_from_other_images(label):
    rows = np.flatnonzero(digits(0).test_labels == label)
    assert mix_explains(profile(), window(0, "test", rows).counters)
    rows = np.flatnonzero(other_digits()[1] == label)
    assert not mix_explains(profile(), window(0, "other", rows).counters)


def test_an_estimate_is_never_better_than_the_reference_under_a_strong_shift():
    verdict, true = distorted(0, "inverted")
    assert not verdict.valid
    assert verdict.estimated_accuracy < verdict.reference_accuracy
    assert true < 0.3
    assert (verdict.low, verdict.high > 0.8) == (0.1, True)


def test_the_three_estimators_agree_where_nothing_moved():
    found = estimators(profile(), window(0, "test", range(1000)).counters)
    assert max(found.values()) - min(found.values()) < 0.03


def test_nothing_seen_is_nothing_estimated():
    assert estimate(profile(), Counters.zero(10), 0.0, {}) is None


def test_a_window_that_moved_is_given_twice_the_interval():
    counters = window(0, "test", range(300)).counters
    calm, moved = (
        estimate(profile(), counters, 300.0, {"class": Evidence(p, 1.0, 0.0), "energy": None}) for p in (0.5, 1e-5)
    )
    assert moved.accuracy == calm.accuracy
    assert moved.accuracy - moved.low == pytest.approx(2 * (calm.accuracy - calm.low))
    assert moved.is_valid
    assert calm.is_valid
