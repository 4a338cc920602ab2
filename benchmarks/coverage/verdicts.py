# SPDX-License-Identifier: Apache-2.0
"""How often does a comparison call what is not there, find what is there, and know how many launches it needs?"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from benchmarks.coverage.worlds import WORLDS, Array, World, alike
from benchmarks.stats.verdict import USUAL, judge, noise_of

__all__ = ["Calls", "Needs", "at_floor", "calls", "calm", "false_alarms", "needs", "slow_downs", "true_floor"]


@dataclass(frozen=True)
class Calls:
    """What was said of a true ratio.

    Attributes:
        world: Name.
        ratio: True.
        launches: Of each side.
        floor: Noise floor that was handed to the verdict; None: unknown.
        shares: Verdict → share of the simulations.
        held: Share of the simulations whose interval held the true ratio.
        simulations: How many.
    """

    world: str
    ratio: float
    launches: int
    floor: float | None
    shares: dict[str, float]
    held: float
    simulations: int

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Needs:
    """What became of comparisons that asked for more launches.

    Attributes:
        ratio: True.
        asked: Share of the comparisons of ten launches that named a number.
        median: Of the numbers named.
        decided: Share of these that were decided, or ruled a difference out, with so many more.
        simulations: How many.
    """

    ratio: float
    asked: float
    median: float | None
    decided: float | None
    simulations: int

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        return asdict(self)


_RUNS: Final = 50


def calm(spread: float) -> World:
    """Return a world of launches that differ by a normal variable, and of runs that are alike (0.7) and vary by 3 %."""

    def draw(random: np.random.Generator, m: int, n: int) -> Array:
        own = np.exp(spread * random.standard_normal((m, 1)))
        return np.asarray(own * np.exp(0.03 * alike(random, m, n, 0.7)))

    return World(f"launches {100 * spread:.2g} % apart", "normal launches", draw)


def true_floor(world: World) -> float:
    """Return a world's noise floor: that of a very long ``strop bench aa``."""
    random = np.random.default_rng(7)
    times = world.draw(random, 4000, _RUNS)
    medians = np.median(times, axis=1)
    drawn = np.log(np.median(medians[random.integers(0, len(medians), (2, 20_000, USUAL))], axis=2))
    return float(np.exp(np.quantile(np.abs(drawn[0] - drawn[1]), 0.95)) - 1)


def at_floor(floor: float) -> World:
    """Return the calm world that has this noise floor."""
    low, high = 0.0, 0.5
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if true_floor(calm(middle)) < floor else (low, middle)
    return replace(calm(high), name=f"noise floor {100 * floor:.1f} %")


def calls(world: World, ratio: float, launches: int, floor: float | None, simulations: int) -> Calls:
    """Return what comparisons say of a true ratio."""
    random = np.random.default_rng([launches, round(1000 * ratio)])
    times = world.draw(random, simulations * 2 * launches, _RUNS).reshape(simulations, 2, launches, _RUNS)
    said: Counter[str] = Counter()
    held = 0
    for number, (a, b) in enumerate(times):
        verdict = judge(list(a), list(ratio * b), noise=floor, seed=number)
        said[verdict.kind] += 1
        held += verdict.ratio.low <= ratio <= verdict.ratio.high
    shares = {kind: count / simulations for kind, count in sorted(said.items())}
    return Calls(world.name, ratio, launches, floor, shares, held / simulations, simulations)


def false_alarms(simulations: int) -> list[Calls]:
    """Return what A/A comparisons say: with a floor that was measured by ten launches of each, and without one."""
    found = []
    for world in (*WORLDS, calm(0.05), calm(0.15)):
        random = np.random.default_rng(11)
        times = list(world.draw(random, 2 * USUAL, _RUNS))
        floor = noise_of(times[:USUAL], times[USUAL:])
        found += [calls(world, 1.0, USUAL, None, simulations), calls(world, 1.0, USUAL, floor, simulations)]
    return found


def slow_downs(simulations: int, floors: Sequence[float] = (0.01, 0.015, 0.02)) -> list[Calls]:
    """Return how a slow-down of 5 % is judged at noise floors and numbers of launches."""
    found = []
    for floor in floors:
        world = at_floor(floor)
        found += [calls(world, 1.05, launches, floor, simulations) for launches in (10, 15, 20, 30)]
        found.append(calls(world, 1.10, 10, floor, simulations))
    return found


def needs(simulations: int, floor: float = 0.015, ratios: Sequence[float] = (1.0, 1.02, 1.05, 1.07)) -> list[Needs]:
    """Return whether so many more launches as were asked for were enough; the goal is 80 %."""
    world = at_floor(floor)
    return [_needed(world, ratio, floor, simulations) for ratio in ratios]


def _needed(world: World, ratio: float, floor: float, simulations: int) -> Needs:
    random = np.random.default_rng([3, round(1000 * ratio)])
    asked: list[int] = []
    decided = 0
    for _ in range(simulations):
        a, b = (list(world.draw(random, USUAL, _RUNS)) for _ in range(2))
        b = [ratio * one for one in b]
        more = judge(a, b, noise=floor).needs
        if not more:
            continue
        asked.append(more)
        a += list(world.draw(random, more, _RUNS))
        b += [ratio * one for one in world.draw(random, more, _RUNS)]
        after = judge(a, b, noise=floor)
        decided += after.kind != "INCONCLUSIVE" or after.needs == 0
    share = decided / len(asked) if asked else None
    median = float(np.median(asked)) if asked else None
    return Needs(ratio, len(asked) / simulations, median, share, simulations)
