# SPDX-License-Identifier: Apache-2.0
"""A reference of recordings is worth less than its samples; a shuffled or sorted one is not."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import lfilter

from edge_contract.autocorrelation import reference_design
from edge_contract.channels import evidence
from edge_contract.counts import BLOCK, ENERGY_UNIT, Counters
from edge_contract.effective import effective_reference
from tests.support.digits import profile, window


def counted(energy, classes):
    """Return counters of energies [n] and classes [n] in this order."""
    e = np.rint(np.clip(energy, -8, 8) * ENERGY_UNIT).astype(int)
    full = len(e) // BLOCK
    sums = e[: full * BLOCK].reshape(full, BLOCK).sum(axis=1)
    cells = np.zeros(40, int)
    np.add.at(cells, 4 * classes, 1)
    return replace(
        Counters.zero(10), n_infer=len(e), n_sampled=len(e), cells=tuple(cells.tolist()), energy_sum=int(e.sum()),
        energy_squares=int(e @ e), blocks=full, block_sum=int(sums.sum()), block_squares=int(sums @ sums),
        pairs=len(e) - 1, lag=int(e[1:] @ e[:-1]), repeats=int((classes[1:] == classes[:-1]).sum()),
    )  # fmt: skip


def test_a_shuffled_reference_loses_nothing():
    random = np.random.default_rng(1)
    found = [reference_design(counted(random.normal(size=750), random.integers(0, 10, 750))) for _ in range(200)]
    assert np.mean(np.array(found) == 1.0) > 0.95  # 3 standard errors of two estimates, and 99 % of a third


def test_series_one_after_the_other_are_worth_about_as_many_samples_as_there_are_series():
    random, classes = np.random.default_rng(2), np.repeat(np.random.default_rng(3).integers(0, 10, 40), 25)
    energy = np.repeat(random.normal(size=40), 25) * 0.9 + random.normal(size=1000) * 0.4
    assert 40 / 3 < 1000 / reference_design(counted(energy, classes)) < 40 * 2


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_a_correlated_recording_is_seen_by_its_energy(rho):
    random = np.random.default_rng(4)
    energy = lfilter([1.0], [1.0, -rho], random.normal(size=4500) * np.sqrt(1 - rho * rho))[500:]
    found = reference_design(counted(energy, random.integers(0, 10, 4000)))
    assert found == pytest.approx((1 + rho) / (1 - rho), rel=0.3)


def test_a_reference_sorted_by_class_keeps_its_size():
    classes = np.repeat(np.arange(10), 100)
    energy = np.random.default_rng(5).normal(size=1000) + classes * 0.3
    assert reference_design(counted(energy, classes)) == 1.0
    assert reference_design(counted(np.zeros(500), np.zeros(500, int))) == 1.0


def test_what_the_workstation_saw_over_long_series_counts_when_it_is_more():
    alone, short = profile(), replace(profile(), design=1.0)
    assert effective_reference(replace(alone, design=7.5)).size == pytest.approx(750 / 7.5)
    assert effective_reference(short).size == effective_reference(replace(alone, design=1.0001)).size * 1.0001
    tied = replace(_tied(alone), design=1.5)
    assert effective_reference(tied).size == effective_reference(_tied(alone)).size  # the counters say more


def _tied(reference):
    """Return the profile as if each of its samples had been seen five times in a row."""
    many = {name: 5 * getattr(reference.counters, name) for name in ("energy_sum", "energy_squares", "n_sampled")}
    rows = {
        name: tuple(5 * value for value in getattr(reference.counters, name))
        for name in ("cells", "confidence", "energy", "embedding_sum", "embedding_squares", "brightness", "contrast")
    }
    sharpness = tuple(5 * value for value in reference.counters.sharpness)
    pairs, squares = 5 * reference.size - 1, 5 * reference.counters.energy_squares
    told = {"pairs": pairs, "lag": round(0.8 * squares), "repeats": round(0.82 * pairs), "blocks": 0}
    return replace(reference, counters=replace(reference.counters, **many, **rows, sharpness=sharpness, **told))


def test_repeating_the_reference_makes_no_p_value_smaller():
    counters = window(0, "test", np.random.default_rng(6).permutation(1000)[:300]).counters
    tied = _tied(profile())
    effective = effective_reference(tied)
    assert effective.size < profile().size
    assert effective is effective_reference(tied)
    plain, once, kept = (evidence(one, counters, 1.0) for one in (tied, profile(), effective))
    for name, found in kept.items():
        if found is not None:
            assert found.p >= once[name].p * 0.9
            assert found.p_beyond >= plain[name].p_beyond
