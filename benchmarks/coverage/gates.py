# SPDX-License-Identifier: Apache-2.0
"""How often do the gates of the times see a trend, or two speeds, where there are none, and where there are?"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from benchmarks.coverage.worlds import WORLDS, Array
from benchmarks.gates.times import LEAST_GAP, SIGNIFICANT
from benchmarks.stats.modes import combined_p, find_modes
from benchmarks.stats.trend import trend

__all__ = ["Seen", "seen"]

_LAUNCHES: Final = 10
_RUNS: Final = 200
_STEP_NS: Final = 50_000_000


@dataclass(frozen=True)
class Seen:
    """What two gates say of ten launches of 200 runs.

    Attributes:
        world: Name.
        trend: Share of the measurements with a significant trend within launches, whatever its size.
        drift: The same where each launch becomes slower by 10 %, evenly.
        modes: Share with two speeds at least 15 % apart.
        simulations: How many.
    """

    world: str
    trend: float
    drift: float
    modes: float
    simulations: int

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        return asdict(self)


def _has_trend(times: Array) -> bool:
    starts = [[_STEP_NS * i for i in range(_RUNS)]] * _LAUNCHES
    return trend(list(times), starts)[0].p < SIGNIFICANT / 2


def _has_modes(times: Array) -> bool:
    found = [find_modes(one) for one in times]
    clearest = min(found, key=lambda one: one.p)
    return combined_p([one.p for one in found]) < SIGNIFICANT and clearest.gap > LEAST_GAP


def seen(simulations: int) -> list[Seen]:
    """Return what the gates say of each world."""
    slower = np.linspace(1.0, 1.1, _RUNS)
    found = []
    for world in WORLDS:
        random = np.random.default_rng(17)
        every = world.draw(random, simulations * _LAUNCHES, _RUNS).reshape(simulations, _LAUNCHES, _RUNS)
        share: Callable[[list[bool]], float] = lambda held: sum(held) / len(held)  # noqa: E731
        found.append(
            Seen(
                world.name,
                share([_has_trend(one) for one in every]),
                share([_has_trend(one * slower) for one in every]),
                share([_has_modes(one) for one in every]),
                simulations,
            )
        )
    return found
