# SPDX-License-Identifier: Apache-2.0
"""Does a captured set look like the drift that asked for it? Counters of both, compared without any reference.

The captured inputs are answered by the model that is shipped and counted by the device's own code, so both sides have
the same histograms. A channel speaks against the set if the two-sample test tells both apart *and* the difference is
large: a capture is taken hours after the windows, and its mix of classes may be another one. Poisoned sets, such as
noise, one class alone, or inputs that never drifted, differ by far more.
"""

from collections.abc import Mapping
from typing import Final

from edge_contract.autocorrelation import design_effect
from edge_contract.counts import COMPONENTS, EMBEDDING_UNIT, LEVELS, Counters
from edge_contract.profile import INPUTS
from edge_contract.statistics import Evidence, combine, compare_counts, holm
from edge_contract.tails import chi2_sf

__all__ = ["UNLIKE_EFFECT", "UNLIKE_P", "strangers", "two_sample"]

UNLIKE_EFFECT: Final = 0.5
"""Squared standardised distance from which on two sets are unlike: one class of ten three times as frequent."""
UNLIKE_P: Final = 1e-6


def two_sample(captured: Counters, drifted: Counters, *, inputs_only: bool = False) -> dict[str, Evidence]:
    """Return the evidence of each channel that captured inputs and drifted windows are of two kinds.

    Histograms are compared both ways, for bins are joined by what the second one expects, and the larger effect counts:
    a histogram that lies in one bin would hide everything.

    Args:
        captured: Counters of the captured set, counted with the profile of the windows.
        drifted: Of the windows that alarmed, added up.
        inputs_only: Leave out what the model answers, where the capture chose inputs by the answer.
    """
    design = max(_design(captured), _design(drifted))
    looks = [_both_ways(getattr(captured, name), getattr(drifted, name), design) for name in INPUTS]
    found = {"input": combine([one for one in looks if one is not None])}
    if not inputs_only:
        found |= {
            "class": _both_ways(captured.classes, drifted.classes, design),
            "class×confidence": _both_ways(_by_level(captured), _by_level(drifted), design),
            "max-prob": _both_ways(captured.confidence, drifted.confidence, design),
            "energy": _both_ways(captured.energy, drifted.energy, design),
            "embedding": _embedding(captured, drifted, design),
        }
    return {name: one for name, one in found.items() if one is not None}


def strangers(evidence: Mapping[str, Evidence]) -> dict[str, Evidence]:
    """Return the channels in which both sets are unlike, the largest effect first.

    Example:
        >>> strangers({"class": Evidence(1e-9, 1.0, 0.1), "input": Evidence(1e-9, 1.0, 2.0)})
        {'input': Evidence(p=1e-09, p_beyond=1.0, effect=2.0)}
    """
    adjusted = holm({name: one.p for name, one in evidence.items()})
    unlike = [(n, e) for n, e in evidence.items() if adjusted[n] < UNLIKE_P and e.effect >= UNLIKE_EFFECT]
    return dict(sorted(unlike, key=lambda item: -item[1].effect))


def _design(counters: Counters) -> float:
    """Return the design effect; strong drift clips every energy to one value, which says nothing about order."""
    is_clipped = counters.energy_squares * counters.n_sampled == counters.energy_sum**2
    return 1.0 if is_clipped else design_effect(counters)


def _by_level(counters: Counters) -> tuple[int, ...]:
    """Order cells by level, then class, as ``edge_contract.channels`` does."""
    return tuple(count for level in range(LEVELS) for count in counters.cells[level::LEVELS])


def _both_ways(a: tuple[int, ...], b: tuple[int, ...], design: float) -> Evidence | None:
    if len(a) != len(b) or not sum(a) or not sum(b):
        return None
    ways = [one for one in (compare_counts(a, b, design), compare_counts(b, a, design)) if one is not None]
    return max(ways, key=lambda one: one.effect, default=None)


def _embedding(captured: Counters, drifted: Counters, design: float) -> Evidence | None:
    """Welch's test of each component's mean; the spread is that of drifted inputs, for which no whitener was made."""
    n, m = captured.n_sampled / design, drifted.n_sampled / design
    parts = []
    for i in range(COMPONENTS):
        (mean, spread), (other, its) = (_moments(one, i) for one in (captured, drifted))
        if spread <= 0 or its <= 0:
            continue
        shift = (mean - other) ** 2
        p = chi2_sf(shift / (spread / n + its / m), 1)
        parts.append(Evidence(p, p, max(0.0, shift / ((spread + its) / 2) - (1 / n + 1 / m))))
    return combine(parts)


def _moments(counters: Counters, component: int) -> tuple[float, float]:
    n = max(counters.n_sampled, 1) * EMBEDDING_UNIT
    mean = counters.embedding_sum[component] / n
    return mean, counters.embedding_squares[component] / n - mean * mean
