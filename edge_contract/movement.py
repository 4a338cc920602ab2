# SPDX-License-Identifier: Apache-2.0
"""What moved, in plain words: the sentence behind a channel's p-value, with sizes that a person can judge."""

import math
from collections.abc import Sequence
from typing import Final

from edge_contract.channels import energy_shift, moment_shift
from edge_contract.counts import EMBEDDING_UNIT, Counters
from edge_contract.profile import ATC_LEVEL, INPUTS, ReferenceProfile
from edge_contract.severity import mix_explains

__all__ = ["describe"]

_WORDS: Final = {
    "brightness": ("darker", "brighter"),
    "contrast": ("flatter", "of stronger contrast"),
    "sharpness": ("blurrier", "sharper or noisier"),
}

_WIDER: Final = 1.5
_STILL: Final = 0.05
_NEAR: Final = 0.2
"""Deviations; below it a mean has not moved to speak of."""


def describe(channel: str, profile: ReferenceProfile, counters: Counters) -> str:
    """Return one sentence about how a channel of a window differs from the reference.

    Example:
        >>> profile = ReferenceProfile.blank(("cat", "dog"))
        >>> describe("energy", profile, profile.counters)
        'energy moved'
    """
    if not counters.n_sampled or not profile.size:
        return f"{channel} moved"
    if profile.task != "classify" or profile.scores != "logits" or profile.look.kind != "images":
        from edge_contract.task_words import words  # none of it where images are classified

        if text := words(channel, profile, counters):
            return text
    if channel == "class":
        return _classes(profile, counters)
    if channel in ("class×confidence", "max-prob"):
        return f"unsure answers {_unsure(profile.counters):.0%} → {_unsure(counters):.0%}"
    if channel == "energy":
        shift = energy_shift(profile, counters)
        if abs(shift) < _STILL:
            return "energy of the answers distributed otherwise around the same mean"
        return f"energy of the answers {abs(shift):.1f} deviations {'lower' if shift < 0 else 'higher'}"
    if channel == "embedding":
        return _features(profile, counters)
    if channel == "input":
        return "; ".join(_inputs(profile, counters)) or "inputs look different"
    return f"{channel} moved"


def _features(profile: ReferenceProfile, counters: Counters) -> str:
    """Say how far the mean features moved, and how much wider they lie: the test asks for both."""
    shifts, wide = moment_shift(profile, counters), _width(profile, counters)
    distance = math.sqrt(sum(value * value for value in shifts[: len(shifts) // 2]))
    told = f"features moved by {distance:.1f} deviations"
    if wide < _WIDER:
        return told
    spread = f"spread up to {wide:.1f} times as wide"
    return f"{told} and {spread}" if distance >= _NEAR else f"features {spread}"


def _width(profile: ReferenceProfile, counters: Counters) -> float:
    """Return the largest ratio of a component's deviation to that on the reference."""
    ratios = [0.0]
    for i in range(profile.projection.components):
        here, there = (_variance(c, i) for c in (counters, profile.counters))
        ratios.append(math.sqrt(here / there) if there > 0 else 0.0)
    return max(ratios)


def _variance(counters: Counters, i: int) -> float:
    n = counters.n_sampled
    mean = counters.embedding_sum[i] / n / EMBEDDING_UNIT
    return max(0.0, counters.embedding_squares[i] / n / EMBEDDING_UNIT - mean * mean)


def _classes(profile: ReferenceProfile, counters: Counters) -> str:
    here = [count / counters.n_sampled for count in counters.classes]
    there = [count / profile.size for count in profile.counters.classes]
    slot = max(range(len(here)), key=lambda i: abs(here[i] - there[i]))
    is_mix = profile.projection.components and mix_explains(profile, counters)
    alike = ", each class looking as ever" if is_mix else ""
    return f"class '{profile.slot_name(slot)}' {there[slot]:.0%} → {here[slot]:.0%}{alike}"


def _unsure(counters: Counters) -> float:
    return sum(counters.levels[:ATC_LEVEL]) / counters.n_sampled


def _inputs(profile: ReferenceProfile, counters: Counters) -> list[str]:
    """Say for each input statistic that moved in how many pairs the window's image lies beyond the reference's."""
    sentences = []
    for name in INPUTS:
        here, there = getattr(counters, name), getattr(profile.counters, name)
        if not sum(here) or not sum(there):
            continue
        higher = _superiority(here, there)
        if abs(higher - 0.5) > 0.1:
            word = _WORDS[name][higher > 0.5]
            sentences.append(f"images {word} than the reference's ({max(higher, 1 - higher):.0%} of pairs)")
        elif _outside(here, there) > 0.1:
            sentences.append(f"{name} spread out: {_outside(here, there):.0%} more images at the extremes")
    return sentences


def _superiority(here: Sequence[int], there: Sequence[int]) -> float:
    """Return P(window > reference) + P(equal)/2, from bins (Mann-Whitney)."""
    below, wins = 0, 0.0
    for a, b in zip(here, there, strict=True):
        wins += a * (below + b / 2)
        below += b
    return wins / (sum(here) * sum(there))


def _outside(here: Sequence[int], there: Sequence[int]) -> float:
    outer = (0, 1, len(here) - 2, len(here) - 1)
    return sum(here[i] for i in outer) / sum(here) - sum(there[i] for i in outer) / sum(there)
