# SPDX-License-Identifier: Apache-2.0
"""Frames that resemble each other count less, so that a video does not alarm."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import lfilter

from edge_contract.autocorrelation import design_effect
from edge_contract.counts import BLOCK, ENERGY_UNIT, Counters
from edge_contract.statistics import compare_counts


def stream(energy, classes):
    """Return the counters that matter here, of energies [n] and classes [n]."""
    e = np.rint(np.clip(energy, -8, 8) * ENERGY_UNIT).astype(int)
    full = len(e) // BLOCK
    sums = e[: full * BLOCK].reshape(full, BLOCK).sum(axis=1)
    cells = [0] * 40
    for label in classes:
        cells[4 * label] += 1
    return replace(
        Counters.zero(10),
        n_infer=len(e),
        n_sampled=len(e),
        cells=tuple(cells),
        energy_sum=int(e.sum()),
        energy_squares=int(e @ e),
        blocks=full,
        block_sum=int(sums.sum()),
        block_squares=int(sums @ sums),
        pairs=len(e) - 1,
        lag=int(e[1:] @ e[:-1]),
        repeats=int(np.count_nonzero(classes[1:] == classes[:-1])),
    )


def autoregressive(random, n, rho):
    noise = random.normal(size=n + 500) * np.sqrt(1 - rho * rho)
    return lfilter([1.0], [1.0, -rho], noise)[500:]


@pytest.mark.parametrize(("rho", "expected"), [(0.0, 1.0), (0.5, 3.0), (0.9, 19.0)])
def test_the_design_effect_of_an_autoregressive_stream(rho, expected):
    random = np.random.default_rng(1)
    found = [design_effect(stream(autoregressive(random, 2000, rho), random.integers(0, 10, 2000))) for _ in range(40)]
    # 2000 samples know rho = 0.9 to ±0.01, which is ±10 % in the effect; the largest of three is a little high.
    assert np.median(found) == pytest.approx(expected, rel=0.2)


def test_classes_that_stay_count_less_even_when_the_energy_does_not_show_it():
    random = np.random.default_rng(2)
    classes = np.repeat(random.integers(0, 10, 100), 10)
    assert design_effect(stream(random.normal(size=1000), classes)) > 10


def test_a_slow_swing_under_noise_is_seen_by_the_blocks():
    random = np.random.default_rng(3)
    slow = np.repeat(random.normal(size=20), 100) * 0.6
    found = design_effect(stream(slow + random.normal(size=2000), random.integers(0, 10, 2000)))
    short = (1 + 0.26) / (1 - 0.26)
    assert found > 2 * short


def shown_again(random, n, rho, noise):
    """Return what is shown, the same again with probability ρ, and its energy under the noise of each picture [n]."""
    shown = np.cumsum(np.append(True, random.random(n - 1) >= rho)) - 1
    energy = random.normal(size=n)[shown] * np.sqrt(1 - noise) + random.normal(size=n) * np.sqrt(noise)
    return shown, energy


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_same_thing_in_noisy_pictures_is_remembered_by_the_blocks(noise):
    """The truth is 1 + 2 (1 - noise) ρ/(1 - ρ); the lag alone says (1 + r)/(1 - r) with r = (1 - noise) ρ."""
    random, found = np.random.default_rng(6), []
    for _ in range(60):
        _, energy = shown_again(random, 2000, 0.9, noise)
        found.append(design_effect(stream(energy, random.integers(0, 10, 2000))))
    lag = 0.9 * (1 - noise)
    alone, true = (1 + lag) / (1 - lag), 1 + 18 * (1 - noise)
    assert alone * (1.15 if noise else 0.85) < np.median(found) < true * 1.2  # half of the way, by its logarithm


def test_independent_samples_lose_nothing_to_the_memory_of_blocks():
    random = np.random.default_rng(7)
    found = [design_effect(stream(random.normal(size=200), random.integers(0, 10, 200))) for _ in range(300)]
    assert np.median(found) < 1.12
    assert np.mean(found) < 1.2


def test_a_frozen_stream_is_worth_one_sample():
    assert 500 / design_effect(stream(np.full(500, 0.7), np.zeros(500, dtype=int))) < 2


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_false_alarms_on_an_autocorrelated_stream_stay_at_one_percent(rho):
    random = np.random.default_rng(4)
    edges = np.quantile(random.normal(size=50_000), np.arange(1, 16) / 16)
    corrected, plain = [], []
    for _ in range(400):
        energy = autoregressive(random, 4000, rho)
        reference = np.bincount(edges.searchsorted(random.normal(size=20_000)), minlength=16).tolist()
        observed = np.bincount(edges.searchsorted(energy), minlength=16).tolist()
        design = design_effect(stream(energy, random.integers(0, 10, len(energy))))
        corrected.append(compare_counts(observed, reference, design).p)
        plain.append(compare_counts(observed, reference).p)
    assert np.mean(np.array(plain) < 0.01) > 0.02
    assert np.mean(np.array(corrected) < 0.01) <= 0.02
