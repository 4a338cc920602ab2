# SPDX-License-Identifier: Apache-2.0
"""Windows and what our code says of them: family p-values, thresholds, shares with their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift.coded import Coded, Seen, count
from edge_contract.autocorrelation import design_effect
from edge_contract.channels import evidence
from edge_contract.counts import Counters
from edge_contract.effective import effective_reference
from edge_contract.profile import ReferenceProfile
from edge_contract.statistics import Evidence, holm
from edge_contract.summary import DriftSummary, short_hash

__all__ = ["Share", "channel_p", "channels_of", "family_p", "knocked_out", "mixture", "share", "summary_of", "window_p"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Share:
    """How often something happened, with Wilson's 95 % interval."""

    share: float
    low: float
    high: float
    n: int

    def text(self) -> str:
        """Return ``share [low, high]`` in per cent."""
        return f"{100 * self.share:.2f} % [{100 * self.low:.2f}, {100 * self.high:.2f}]"


def share(happened: Sequence[bool] | Array) -> Share:
    """Return the share of what happened.

    Example:
        >>> share([True, False, False, False]).text()
        '25.00 % [4.56, 69.94]'

    Reference:
        Wilson, E. B. (1927). Probable inference, the law of succession, and statistical inference. J. Am. Stat. Assoc.
    """
    n, hits, z = len(happened), int(np.sum(happened)), 1.96
    p = hits / n
    middle, half = (p + z * z / (2 * n)), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Share(p, max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n)), n)


def channel_p(profile: ReferenceProfile, counters: Counters) -> dict[str, float]:
    """Return the p-value of each channel of a window, as ``judge`` computes it."""
    found = evidence(effective_reference(profile), counters, design_effect(counters))
    return {name: one.p for name, one in found.items() if one is not None}


def channels_of(found: Mapping[str, Evidence | None]) -> list[str]:
    """Return the channels that are judged."""
    return [name for name in found if name != "latency"]


def family_p(profile: ReferenceProfile, counters: Counters) -> float:
    """Return the family p-value of a window, as ``judge`` computes it, also where ``judge`` would wait for more."""
    return min(holm(channel_p(profile, counters)).values(), default=1.0)


def window_p(profile: ReferenceProfile, coded: Coded, windows: Sequence[Array]) -> Array:
    """Return the family p-values of windows given as rows of a pool."""
    return np.array([family_p(profile, count(coded, rows)) for rows in windows])


def mixture(random: np.random.Generator, null: int, shifted: int, n: int, fraction: float) -> Array:
    """Return the rows of a window of n samples: this share of them of the ``shifted`` rows after the ``null`` rows.

    No row is taken twice as long as the pools allow it; the order is random.
    """
    many = round(n * fraction)
    rows = np.concatenate([_rows(random, null, n - many), null + _rows(random, shifted, many)])
    random.shuffle(rows)
    return rows


def _rows(random: np.random.Generator, size: int, n: int) -> Array:
    return random.choice(size, n, replace=n > size)


def knocked_out(random: np.random.Generator, seen: Seen, n: int, fraction: float, *, label: int = 0) -> Array:
    """Return the rows of a window from which this share of one class is missing."""
    keep = (seen.truth != label) | (random.random(len(seen)) >= fraction)
    rows: Array = random.choice(np.flatnonzero(keep), n, replace=n > int(keep.sum()))
    return rows


def summary_of(profile: ReferenceProfile, counters: Counters, number: int, window_s: int = 3600) -> DriftSummary:
    """Return counters as the window of a device that has one an hour."""
    return DriftSummary(
        device=short_hash("bench", 8),
        bundle="ab" * 16,
        profile_crc=profile.crc,
        boot=short_hash("boot", 4),
        window=number,
        start_ms=1_700_000_000_000 + 1000 * window_s * number,
        duration_ms=1000 * window_s,
        counters=counters,
    )
