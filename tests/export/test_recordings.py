# SPDX-License-Identifier: Apache-2.0
"""A reference of series is worth as many samples as its means say; a shuffled or sorted one is worth all of them."""

import numpy as np
import pytest

from export.bundle.recordings import design_of
from export.bundle.reference import build_profile
from tests.export.test_reference import Told, random_logits


def by_writer(random, writers, each, share, components=8):
    """Return features [writers × each, components] of which this share of the variance is the writer's."""
    style = np.repeat(random.normal(size=(writers, components)), each, axis=0)
    return style * np.sqrt(share) + random.normal(size=style.shape) * np.sqrt(1 - share)


def test_a_shuffled_reference_is_worth_all_of_its_samples():
    random = np.random.default_rng(1)
    found = [design_of(random.normal(size=(900, 8)), random.integers(0, 10, 900)) for _ in range(200)]
    assert np.mean(np.array(found) == 1.0) > 0.96  # four or five lengths, one in a thousand each


@pytest.mark.parametrize(("each", "share"), [(100, 0.05), (138, 0.1), (60, 0.3)])
def test_writers_one_after_the_other_cost_what_a_cluster_sample_costs(each, share):
    """Kish (1965): the design effect of clusters of n with intra-class correlation ρ is 1 + (n - 1) ρ."""
    random = np.random.default_rng(2)
    kish = 1 + (each - 1) * share
    found = [design_of(by_writer(random, 40, each, share), random.integers(0, 10, 40 * each)) / kish for _ in range(20)]
    assert 0.8 < np.median(found) < 1.7


def test_the_variance_of_the_mean_is_what_the_design_says():
    """Many references of ten writers: their mean varies by design / m, as nearly as ten writers can tell."""
    random = np.random.default_rng(3)
    made = [by_writer(random, 10, 96, 0.1) for _ in range(150)]
    true = 960 * np.mean([z.mean(axis=0) ** 2 for z in made])
    told = np.median([design_of(z, np.zeros(960, dtype=int)) for z in made])
    assert 0.6 < told / true < 1.6


def test_the_order_of_the_classes_is_somebodys_choice():
    truth = np.repeat(np.arange(10), 100)
    z = np.random.default_rng(4).normal(size=(1000, 8)) + np.arange(10)[truth][:, None]
    assert design_of(z, truth) == 1.0
    assert design_of(z, np.zeros(1000, dtype=int)) > 50  # nobody told of classes


def test_constant_features_and_short_references_claim_nothing():
    short = np.repeat(np.random.default_rng(5).normal(size=(3, 8)), 20, axis=0)
    assert design_of(np.ones((500, 8)), np.zeros(500, dtype=int)) == 1.0
    assert design_of(short, np.zeros(60, dtype=int)) == 1.0
    assert design_of(np.zeros((500, 0)), np.zeros(500, dtype=int)) == 1.0


def test_a_profile_says_what_its_recordings_are_worth():
    logits, truth = random_logits(m=1200)
    random = np.random.default_rng(6)
    tied, free = by_writer(random, 12, 100, 0.2, 16), random.normal(size=(1200, 16))
    found, shuffled = (build_profile(Told(logits, e), np.arange(1200), truth) for e in (tied, free))
    assert shuffled.design == 1.0
    assert 15 < found.design < 80  # Kish: 21; the principal components show more of the writers than all 16 do
