# SPDX-License-Identifier: Apache-2.0
"""Which histograms of a window are compared with which of the reference: what plain and noised windows have alike."""

from collections.abc import Callable

from edge_contract.counts import LEVELS, Counters
from edge_contract.profile import INPUTS, ReferenceProfile
from edge_contract.statistics import Evidence, compare_counts

__all__ = ["Compare", "by_level", "inputs"]

Compare = Callable[[tuple[int, ...], tuple[int, ...], float], Evidence | None]
"""Compares two histograms at a design effect."""


def inputs(
    profile: ReferenceProfile, counters: Counters, design: float, compare: Compare = compare_counts
) -> list[Evidence]:
    """Return the evidence of each input statistic, and of the sensors together."""
    pairs = ((getattr(counters, name), getattr(profile.counters, name)) for name in INPUTS)
    found = [told for here, there in pairs if (told := compare(here, there, design)) is not None]
    if any(counters.sensors):
        from edge_contract.sensors import sensors

        found += [told for told in (sensors(profile, counters, design),) if told is not None]
    return found


def by_level(cells: tuple[int, ...]) -> list[int]:
    """Order cells by level, then class, so that pooling joins neighbours in confidence."""
    return [count for level in range(LEVELS) for count in cells[level::LEVELS]]
