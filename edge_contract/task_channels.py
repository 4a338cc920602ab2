# SPDX-License-Identifier: Apache-2.0
"""The evidence of the tables of every task but classification.

Boxes of one frame are alike, so counts of boxes are worth less than as many frames: their design effect is multiplied
by the profile's ``clusters``, which the reference measured frame by frame (Rao and Scott's first correction).

Reference:
    Rao, J. N. K., Scott, A. J. (1981). The analysis of categorical data from complex sample surveys. J. Amer. Statist.
    Assoc. 76.
"""

from typing import Final

from edge_contract.counts import Counters
from edge_contract.histograms import Compare
from edge_contract.profile import ReferenceProfile
from edge_contract.statistics import IGNORED_EFFECT, Evidence, compare_counts
from edge_contract.tails import beta_sf
from edge_contract.tasks import TABLES

__all__ = ["tables"]

_CHANNEL_OF: Final = {
    "boxes": "boxes",
    "scores": "score",
    "areas": "area",
    "kinds": "class",
    "outputs": "output",
    "tail": "error",
}
_LEAST_REFERENCE: Final = 64


def tables(
    profile: ReferenceProfile, counters: Counters, design: float, compare: Compare = compare_counts
) -> dict[str, list[Evidence]]:
    """Return channel → the evidence of the tables that tell of it; a segmentation's areas are judged by moments.

    Args:
        profile: The reference.
        counters: The window.
        design: n / n_eff of the window.
        compare: Compares two histograms at a design effect.
    """
    found: dict[str, list[Evidence]] = {}
    if profile.task == "segment":
        return found
    pairs = zip(counters.tables, profile.counters.tables, strict=True) if counters.tables else ()
    for i, (here, there) in enumerate(pairs):
        told = None if not here else compare(here, there, design * profile.parts.clusters[i])
        if told is None and here and counters.noise == (0, 0):
            told = _rare(here, there, design * profile.parts.clusters[i])
        if told is not None:
            found.setdefault(_CHANNEL_OF[TABLES[profile.task][i]], []).append(told)
    return found


def _rare(here: tuple[int, ...], there: tuple[int, ...], design: float) -> Evidence | None:
    """Return the evidence of what the reference hardly ever showed: a frame without a box where each had one.

    Such a histogram has one bin that expects five, and no chi-square. Given how often both together left the bin, the
    window's part is binomial; for adding up it is compared with the most that the reference's own error allows.
    """
    n, m = sum(here), sum(there)
    mode = max(range(len(there)), key=there.__getitem__)
    out, before = (n - here[mode]) / design, m - there[mode]
    if n <= 0 or m < _LEAST_REFERENCE or before > m / 2:
        return None
    n_eff, share = n / design, (before + 0.5) / m
    if out < 1:
        return Evidence(1.0, 1.0, 0.0)
    p = beta_sf(m / (n_eff + m), before + 1, out)
    allowed = min(0.999, (before + 7 + 3 * before**0.5) / m + IGNORED_EFFECT)
    beyond = beta_sf(1 - allowed, n_eff - out + 1, out)
    return Evidence(p, beyond, max(0.0, out / n_eff - share) ** 2 / share)
