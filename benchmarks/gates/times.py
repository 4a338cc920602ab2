# SPDX-License-Identifier: Apache-2.0
"""Gates of the times themselves: a trend, and two speeds. Needs numpy."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from benchmarks.gates.finding import Finding
from benchmarks.record import Measurement
from benchmarks.stats.modes import Modes, combined_p, find_modes
from benchmarks.stats.trend import trend

__all__ = ["modes", "trends"]

SIGNIFICANT: Final = 0.01
MOST_SLOPE: Final = 0.02
"""Of the median, per minute."""
LEAST_MOVE: Final = 0.01
"""A slope of a short measurement that moves its times by less than this is nothing that anybody would see."""
LEAST_MINUTES: Final = 1 / 60
"""A launch that is measured for less than a second has no minute to speak of: its trend is a flag."""
LEAST_GAP: Final = 0.15
LEAST_SHARE: Final = 0.05
_FEWEST_RUNS: Final = 20


def trends(measurement: Measurement) -> Iterator[Finding]:
    """Times that grow or fall while they are measured, within launches or from launch to launch."""
    launches = [one for one in measurement.launches if one.runs > 2]
    if not launches:
        return
    spans = [(one.starts_ns[-1] - one.starts_ns[0]) / 60e9 for one in launches]
    whole = (launches[-1].starts_ns[-1] - launches[0].starts_ns[0]) / 60e9
    found = trend([one.stages_ns["total"] for one in launches], [one.starts_ns for one in launches])
    for one, minutes in zip(found, (sorted(spans)[len(spans) // 2], whole), strict=True):
        moved = abs(one.slope) * minutes
        if one.p < SIGNIFICANT / 2 and abs(one.slope) > MOST_SLOPE and moved > LEAST_MOVE:
            way = "slower" if one.slope > 0 else "faster"
            words = (
                f"{one.where} it became {way} by {100 * moved:.1f} % over {_span(minutes)} (p = {one.p:.1g}); "
                "warm up longer, cool the board, and stop what else runs"
            )
            yield Finding("trend", "invalid" if minutes >= LEAST_MINUTES else "flag", words)


def _span(minutes: float) -> str:
    return f"{minutes:.1f} min" if minutes >= 1 else f"{60 * minutes:.3g} s"


def modes(measurement: Measurement) -> Iterator[Finding]:
    """Two speeds within the launches, or launches of two kinds."""
    series = [np.array(one.stages_ns["total"]) for one in measurement.launches if one.runs >= _FEWEST_RUNS]
    inside = [find_modes(one) for one in series]
    advice = "quote both and not one median; look at the run sequence"
    if inside and combined_p([one.p for one in inside]) < SIGNIFICANT:
        clearest = min(inside, key=lambda one: one.p)
        if _is_wide(clearest):
            yield Finding("bimodal", "flag", f"two speeds within a launch: {_speeds(clearest)}; {advice}")
    if len(series) >= 2 * 4:
        between = find_modes(np.array([float(np.median(one)) for one in series]))
        if between.p < SIGNIFICANT and _is_wide(between):
            words = f"launches of two kinds: {_speeds(between)}; {advice}, and make more launches"
            yield Finding("bimodal", "flag", words)


def _is_wide(found: Modes) -> bool:
    return found.gap > LEAST_GAP and LEAST_SHARE <= found.share <= 1 - LEAST_SHARE


def _speeds(found: Modes) -> str:
    return (
        f"{found.low / 1e6:.3g} ms and {found.high / 1e6:.3g} ms ({100 * found.gap:.0f} % apart, "
        f"{100 * found.share:.0f} % of them slow, p = {found.p:.1g})"
    )
