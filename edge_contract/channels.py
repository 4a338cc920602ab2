# SPDX-License-Identifier: Apache-2.0
"""The evidence of each channel of a window: which test is made on which counters."""

import math

from edge_contract.counts import COMPONENTS, EMBEDDING_UNIT, ENERGY_UNIT, Counters
from edge_contract.histograms import by_level, inputs
from edge_contract.profile import ReferenceProfile
from edge_contract.statistics import Evidence, combine, compare_counts, compare_moments
from edge_contract.tasks import CLASSIFY, channels_of

__all__ = ["channels_of", "energy_shift", "evidence", "moment_shift"]


def evidence(profile: ReferenceProfile, counters: Counters, design: float) -> dict[str, Evidence | None]:
    """Return the evidence per channel of the task; None where the window or the profile has no such counters.

    Latency is shown but not judged: the workstation's profile says nothing about a board's speed.

    Args:
        profile: The reference.
        counters: The window.
        design: n / n_eff of the window.
    """
    if counters.noise != (0, 0):
        from edge_contract.noise import noised_evidence  # only where somebody asked for noise

        return noised_evidence(profile, counters, design)
    found = _classified(profile, counters, design) if profile.task == CLASSIFY else _of_task(profile, counters, design)
    found["embedding" if profile.task != "segment" else "area"] = _embedding(profile, counters, design)
    found["input"] = combine(inputs(profile, counters, design))
    return {name: found.get(name) for name in channels_of(profile.task)}


def _classified(profile: ReferenceProfile, counters: Counters, design: float) -> dict[str, Evidence | None]:
    reference = profile.counters
    return {
        "class": compare_counts(counters.classes, reference.classes, design),
        "class×confidence": compare_counts(by_level(counters.cells), by_level(reference.cells), design),
        "max-prob": compare_counts(counters.confidence, reference.confidence, design),
        "energy": _energy(profile, counters, design),
    }


def _of_task(profile: ReferenceProfile, counters: Counters, design: float) -> dict[str, Evidence | None]:
    """Return the evidence of the tables, and of the signal in the first channel."""
    from edge_contract.task_channels import tables  # a control process that serves classifiers needs none of it

    parts, signal = tables(profile, counters, design), _energy(profile, counters, design)
    first = channels_of(profile.task)[0]
    if signal is not None:
        parts[first] = [signal, *parts.get(first, [])]
    return {name: combine(found) for name, found in parts.items()}


def energy_shift(profile: ReferenceProfile, counters: Counters) -> float:
    """Return how far the mean energy moved, in deviations of the reference."""
    mean, variance = _energy_moments(profile.counters)
    here, _ = _energy_moments(counters)
    return (here - mean) / math.sqrt(variance) if variance > 0 else 0.0


def _energy_moments(c: Counters) -> tuple[float, float]:
    n = max(c.n_sampled, 1)
    mean = c.energy_sum / n / ENERGY_UNIT
    return mean, max(0.0, c.energy_squares / n / ENERGY_UNIT**2 - mean * mean)


def _energy(profile: ReferenceProfile, counters: Counters, design: float) -> Evidence | None:
    bins = compare_counts(counters.energy, profile.counters.energy, design)
    shift = energy_shift(profile, counters)
    mean = compare_moments(shift * shift, 1, counters.n_sampled / design, profile.size)
    return combine([found for found in (bins, mean) if found is not None])


def moment_shift(profile: ReferenceProfile, counters: Counters) -> list[float]:
    """Return the shift of the means of (z, z²) against the reference [2k]."""
    k, n, m = profile.projection.components, max(counters.n_sampled, 1), max(profile.size, 1)
    shifts = []
    for name in ("embedding_sum", "embedding_squares"):
        here, there = getattr(counters, name), getattr(profile.counters, name)
        shifts += [(here[i] / n - there[i] / m) / EMBEDDING_UNIT for i in range(min(k, COMPONENTS))]
    return shifts


def _embedding(profile: ReferenceProfile, counters: Counters, design: float) -> Evidence | None:
    k = profile.projection.components
    if not k or not any(counters.embedding_squares):
        return None
    shift, row, distance = moment_shift(profile, counters), 0, 0.0
    for i in range(2 * k):  # w = L⁻¹ d; the distance is |w|²
        part = profile.projection.whitener[row : row + i + 1]
        distance += sum(a * b for a, b in zip(part, shift, strict=False)) ** 2
        row += i + 1
    return compare_moments(distance, 2 * k, counters.n_sampled / design, profile.size)
