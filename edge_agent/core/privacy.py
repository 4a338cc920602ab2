# SPDX-License-Identifier: Apache-2.0
"""What of a window may leave the device: nothing of a few inferences, and on request only counts with noise.

A window of fewer than ``FEW`` samples says how much was inferred and nothing of what was seen. With ``noise_epsilon``
in ``agent.toml`` the counts get noise (``edge_contract.noise``), and a device's day has a budget: what exceeds it is
held back like a window that is too small. A day is 24 hours in which the agent ran, by the clock that never jumps, so
that nobody gets a new budget by setting the clock. The core has no source of chance: each sample brings a seed.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from edge_agent.core.settings import Settings
from edge_contract.counts import Counters
from edge_contract.summary import Flag

__all__ = ["FEW", "Released", "Spent", "draws", "released", "withheld"]

FEW: Final = 64
"""A window below this many samples is marked as partial, and its cells are not sent."""
_DAY_S: Final = 86400.0
_STEPS: Final = 1 << 53


@dataclass(frozen=True)
class Spent:
    """What of a day's budget is gone.

    Attributes:
        epsilon: Sum over the day's noised windows.
        elapsed_s: How much of the day has passed.
        mono: When that was true; None after a restart, whose pause does not count.
    """

    epsilon: float = 0.0
    elapsed_s: float = 0.0
    mono: float | None = None

    def at(self, mono: float) -> "Spent":
        """Return the same at another moment; after a day it begins anew.

        Example:
            >>> Spent(8.0, 80_000.0, 10.0).at(5_010.0).epsilon, Spent(8.0, 80_000.0, 10.0).at(9_010.0).epsilon
            (8.0, 0.0)
        """
        elapsed = self.elapsed_s + (0.0 if self.mono is None else max(mono - self.mono, 0.0))
        return Spent(self.epsilon, elapsed, mono) if elapsed < _DAY_S else Spent(0.0, 0.0, mono)

    def to_json(self) -> dict[str, float]:
        """Return the JSON form for the journal."""
        return {"epsilon": self.epsilon, "elapsed_s": self.elapsed_s}

    @classmethod
    def from_json(cls, document: Any) -> "Spent":
        """Return what a journal says; raises LookupError, TypeError or ValueError when it is none."""
        return cls(float(document["epsilon"]), float(document["elapsed_s"]))


class Released(NamedTuple):
    """What may leave of a window, what is remarked on it, and what of the budget is gone then."""

    counters: Counters
    flags: Flag
    spent: Spent


def released(counters: Counters, settings: Settings, spent: Spent, mono: float, draw: Callable[[], float]) -> Released:
    """Return what may leave.

    Args:
        counters: The window as it was counted.
        settings: With ε of a window, 0 for no noise, and the day's budget.
        spent: Of the budget, until now.
        mono: Now, seconds.
        draw: Gives unpredictable numbers in (0, 1].
    """
    if counters.n_sampled < FEW:
        return Released(withheld(counters), Flag.PARTIAL, spent)
    epsilon = settings.noise_epsilon
    if not epsilon:
        return Released(counters, Flag.NONE, spent)
    spent = spent.at(mono)
    if spent.epsilon + epsilon > settings.noise_daily * (1 + 1e-9):
        return Released(withheld(counters), Flag.PARTIAL, spent)
    from edge_contract.noise import noised  # only where somebody asks for it

    gone = Spent(spent.epsilon + epsilon, spent.elapsed_s, spent.mono)
    return Released(noised(counters, epsilon, draw), Flag.NOISED, gone)


def withheld(counters: Counters) -> Counters:
    """Return how much was inferred, and nothing of what was seen."""
    return counters.emptied(n_infer=counters.n_infer, n_err=counters.n_err, n_drop=counters.n_drop)


def draws(seed: bytes, window: int) -> Callable[[], float]:
    """Return what gives numbers in (0, 1] that nobody can tell without the seed: SHA-256 in counter mode.

    Args:
        seed: At least 16 unpredictable bytes.
        window: Number of the window, so that one seed may serve several.

    Raises:
        ValueError: (from the first draw) the seed is too short.

    Example:
        >>> draw = draws(bytes(16), 7)
        >>> 0 < draw() <= 1
        True
    """
    count = 0

    def draw() -> float:
        nonlocal count
        if len(seed) < 16:
            raise ValueError("noise without a seed")
        count += 1
        block = hashlib.sha256(seed + window.to_bytes(8, "big") + count.to_bytes(8, "big")).digest()
        return (int.from_bytes(block[:8], "big") % _STEPS + 1) / _STEPS

    return draw
