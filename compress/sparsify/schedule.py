# SPDX-License-Identifier: Apache-2.0
"""When zeros grow: fast at first, while there is much to spare, then ever slower."""

from dataclasses import dataclass

__all__ = ["Ramp", "cubic"]


def cubic(progress: float, initial: float, final: float) -> float:
    """Return the sparsity at a progress from 0 to 1: s_f + (s_i - s_f)(1 - p)³.

    Example:
        >>> [round(cubic(p, 0.0, 0.8), 3) for p in (0.0, 0.5, 1.0)]
        [0.0, 0.7, 0.8]

    Reference:
        Zhu & Gupta 2017, "To prune, or not to prune", equation 1.
    """
    left = 1 - min(max(progress, 0.0), 1.0)
    return final + (initial - final) * left**3


@dataclass(frozen=True)
class Ramp:
    """The growth of zeros over optimizer steps.

    Attributes:
        initial, final: Sparsity before and after, 0 to 1.
        share: Share of all steps over which it grows; 0 takes the first step.
        every: Steps between two growths.
    """

    initial: float
    final: float
    share: float = 0.6
    every: int = 20

    def at(self, step: int, steps: int) -> float | None:
        """Return the sparsity that is due after a step (from 1), or None if none is.

        Example:
            >>> ramp = Ramp(0.0, 0.8, share=0.5, every=10)
            >>> ramp.at(5, 80), round(ramp.at(20, 80), 3), ramp.at(40, 80), ramp.at(41, 80)
            (None, 0.7, 0.8, None)
        """
        end = max(1, round(self.share * steps))
        if step > end or (step != end and step % self.every):
            return None
        return cubic(step / end, self.initial, self.final)
