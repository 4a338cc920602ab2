# SPDX-License-Identifier: Apache-2.0
"""REGRESSION, IMPROVED or INCONCLUSIVE: what launches of A and B allow to say, and how many more it would take.

The ratio of B's median of launch medians to A's has to be beyond a threshold with its whole 95 % interval: 3 %, or
twice the noise floor of the board where that is more. Ranks of the launch medians have to agree (Mann and Whitney).
The runs themselves are not tested: they are autocorrelated, and thousands of them make every p-value absurd.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Any, Final

import numpy as np

from benchmarks.quantiles import Interval, median
from benchmarks.stats.launches import Launches, launch_medians
from benchmarks.stats.ranktests import mann_whitney
from benchmarks.stats.resampling import ratio_of_launches
from edge_contract.errors import UsageError
from edge_contract.tails import normal_quantile, student_quantile

__all__ = ["FEWEST", "KINDS", "LEAST_GAP", "MOST_MORE", "USUAL", "Verdict", "judge", "noise_of", "threshold_of"]

KINDS: Final = ("REGRESSION", "IMPROVED", "INCONCLUSIVE")
LEAST_GAP: Final = 0.03
"""A difference of less than 3 % is not called one, however sure it is."""
USUAL: Final = 10
"""Launches on each side that a noise floor speaks of."""
FEWEST: Final = 5
"""With fewer launches on a side nothing is decided: the ranks alone could not be that sure."""
MOST_MORE: Final = 1000
"""More launches than this are not asked for: the difference is at the threshold."""
_SIGNIFICANT: Final = 0.05
_POWER: Final = 0.8
_MANY: Final = 50  # launches from which on Student's law is the normal one
_EFFICIENCY: Final = 1.2533  # the standard error of a median over that of a mean, of normal values


@dataclass(frozen=True)
class Verdict:
    """What may be said of B against A.

    Attributes:
        kind: ``REGRESSION``, ``IMPROVED`` or ``INCONCLUSIVE``.
        ratio: Median of B's launch medians over A's, with its 95 % interval; above 1: B is slower.
        needs: Launches more on each side until a decision is likely (80 %); 0: decided, or settled that there is no
            difference beyond the threshold; None: more than a thousand.
        p: Mann and Whitney, two-sided, on the launch medians.
        threshold: What the interval has to be beyond.
        noise: The board's noise floor that went into it; None: unknown.
        launches: Of A and of B.
        words: One line for people.
    """

    kind: str
    ratio: Interval
    needs: int | None
    p: float
    threshold: float
    noise: float | None
    launches: tuple[int, int]
    words: str

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        return {
            "kind": self.kind,
            "ratio": self.ratio.to_json(),
            "needs": self.needs,
            "p": self.p,
            "threshold": self.threshold,
            "noise_floor": self.noise,
            "launches": list(self.launches),
            "words": self.words,
        }


def threshold_of(noise: float | None, launches: int = USUAL) -> float:
    """Return what a ratio has to be beyond: 1 + max(3 %, twice the noise floor of so many launches on each side).

    The floor is that of ten launches; it falls with the square root of their number.

    Example:
        >>> threshold_of(None), threshold_of(0.01), threshold_of(0.02), round(threshold_of(0.02, 40), 3)
        (1.03, 1.03, 1.04, 1.03)
    """
    return 1.0 + max(LEAST_GAP, 2.0 * (noise or 0.0) * sqrt(USUAL / max(launches, 1)))


def noise_of(a: Launches, b: Launches, *, resamples: int = 2000, seed: int = 0) -> float:
    """Return the noise floor: how far from 1 a comparison of an artefact with itself comes, in 95 of 100 cases.

    Comparisons of ten launches with ten, drawn from all launches of both sides; and never less than what was
    seen between the two sides, since something may favour one of them.

    Raises:
        UsageError: Fewer than two launches, or a time that is not positive.

    Example:
        >>> round(noise_of([[1.00], [1.01]], [[0.99], [1.00]]), 3)
        0.01
    """
    medians = np.array([*launch_medians(a), *launch_medians(b)])
    if len(medians) < 2 or min(medians) <= 0:
        raise UsageError(f"a noise floor of {len(medians)} launches", fix="make at least 10")
    chosen = np.random.default_rng(seed).integers(0, len(medians), (2, resamples, USUAL))
    one, other = np.log(np.median(medians[chosen], axis=2))
    seen = abs(log(median(launch_medians(b)) / median(launch_medians(a))))
    return exp(max(float(np.quantile(np.abs(other - one), 0.95)), seen)) - 1.0


def judge(a: Launches, b: Launches, *, noise: float | None, seed: int = 0) -> Verdict:
    """Return the verdict on B against A.

    Args:
        a, b: Times of each launch in the order of its runs, all positive.
        noise: The board's noise floor, as a share; None: unknown.
        seed: Of the bootstrap.

    Raises:
        UsageError: A side without launches, a launch without runs, or a time that is not positive.

    Example:
        >>> one = [[1.0 + 0.001 * i] * 20 for i in range(10)]
        >>> two = [[1.2 + 0.001 * i] * 20 for i in range(10)]
        >>> judge(one, two, noise=0.01).words
        'REGRESSION: B takes 1.199 times as long as A [1.195, 1.203]; the threshold is 1.030'
    """
    ratio = ratio_of_launches(a, b, seed=seed)
    sides = launch_medians(a), launch_medians(b)
    fewest = min(map(len, sides))
    threshold, p = threshold_of(noise, fewest), mann_whitney(*sides)
    kind = _kind(ratio, threshold, p, fewest)
    needs = 0 if kind != "INCONCLUSIVE" else _needs(ratio, sides, noise)
    counts = len(sides[0]), len(sides[1])
    return Verdict(kind, ratio, needs, p, threshold, noise, counts, _words(kind, ratio, threshold, needs))


def _kind(ratio: Interval, threshold: float, p: float, fewest: int) -> str:
    if fewest >= FEWEST and p < _SIGNIFICANT:
        if ratio.low > threshold:
            return "REGRESSION"
        if ratio.high < 1 / threshold:
            return "IMPROVED"
    return "INCONCLUSIVE"


def _is_settled(ratio: Interval, threshold: float) -> bool:
    """Whether the interval lies between the thresholds: there is no difference worth the name."""
    return 1 / threshold <= ratio.low and ratio.high <= threshold


def _needs(ratio: Interval, sides: tuple[Sequence[float], Sequence[float]], noise: float | None) -> int | None:
    """Return how many more launches of each side it takes to get the interval off the threshold that it lies on.

    With s² = s_a² + s_b² of the logarithms of the launch medians, n launches on each side give the ratio a standard
    error of 1.2533 s / sqrt(n); the interval's bound passes the threshold with 80 % where the distance is
    (t_0.975 + z_0.8) standard errors. The threshold itself comes down with n.
    """
    have = min(map(len, sides))
    if have < 2:
        return FEWEST - have
    if have >= FEWEST and _is_settled(ratio, threshold_of(noise, have)):
        return 0
    spread = _EFFICIENCY * sqrt(sum(float(np.var(np.log(side), ddof=1)) for side in sides))
    for n in range(max(have + 1, FEWEST), have + MOST_MORE + 1):
        first = student_quantile(0.025, 2 * n - 2) if n < _MANY else normal_quantile(0.025)
        reach = first + normal_quantile(1 - _POWER)
        if abs(abs(log(ratio.point)) - log(threshold_of(noise, n))) >= reach * spread / sqrt(n):
            return n - have
    return None


def _words(kind: str, ratio: Interval, threshold: float, needs: int | None) -> str:
    found = f"B takes {ratio.point:.3f} times as long as A [{ratio.low:.3f}, {ratio.high:.3f}]"
    limit = f"the threshold is {threshold:.3f}"
    if kind != "INCONCLUSIVE":
        at = limit if kind == "REGRESSION" else f"the threshold is {1 / threshold:.3f}"
        return f"{kind}: {found}; {at}"
    if needs == 0:
        return f"{kind}: {found}; a difference beyond {threshold:.3f} is ruled out, more launches change nothing"
    if needs is None:
        return f"{kind}: {found}; at this spread a thousand more launches would not decide; {limit}"
    return f"{kind}: {found}; needs {needs} more launch{'es' if needs > 1 else ''} of each; {limit}"
