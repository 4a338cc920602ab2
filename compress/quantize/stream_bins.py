# SPDX-License-Identifier: Apache-2.0
"""A histogram of a stream of values in memory that does not grow, and the search for the range that suits it best."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Fitted", "Histogram", "Loss"]

Loss = Callable[[NDArray[np.float64], NDArray[np.float64], float, float], float]  # of centres, counts, low, high


class Histogram:
    """Counts of all values seen, in bins whose width doubles when a value falls outside.

    Bins are multiples of a power of two around zero, so that merging neighbours in pairs is exact and the result does
    not depend on the order of the batches.
    """

    _BINS = 4096  # half of them below zero

    def __init__(self) -> None:
        self._low, self._high = math.inf, -math.inf
        self._exponent = -60  # bin width 2**exponent
        self._counts = np.zeros(self._BINS, np.int64)

    def observe(self, values: Tensor) -> None:
        low, high = torch.aminmax(values)
        self._low, self._high = min(self._low, float(low)), max(self._high, float(high))
        half = self._BINS // 2
        while max(-self._low, self._high) >= half * 2.0**self._exponent:
            self._widen()
        # A multiplication by a power of two is exact in float32 too, and takes half the memory of float64.
        index = torch.floor(values.detach() * 2.0**-self._exponent).to(torch.int32).ravel() + half
        self._add(index, values)

    def _add(self, index: Tensor, values: Tensor) -> None:
        """Count values in their bins."""
        self._counts += torch.bincount(index, minlength=self._BINS).numpy()

    def _widen(self) -> None:
        """Double the bin width about zero: bins 2k and 2k+1 become bin k."""
        self._exponent += 1
        self._counts = self._paired(self._counts)

    def _paired(self, table: NDArray[Any]) -> NDArray[Any]:
        half = self._BINS // 2
        paired = np.zeros_like(table)
        paired[half // 2 : half // 2 + half] = table.reshape(-1, 2).sum(axis=1)
        return paired

    def _edges(self) -> NDArray[np.float64]:
        numbers = np.arange(self._BINS + 1, dtype=np.float64) - self._BINS // 2
        return np.ldexp(numbers, self._exponent)


class Fitted(Histogram):
    """The range of which a loss is smallest: both ends move inwards in turn until neither moves."""

    _CANDIDATES = 96
    _ROUNDS = 4

    def _fit(self, loss: Loss) -> tuple[float, float]:
        low, high = self._low, self._high
        centres, counts = self._used()
        lows, highs = self._candidates(low), self._candidates(high)
        chosen = min(low, 0.0), max(high, 0.0)
        for _ in range(self._ROUNDS):
            top = min(highs, key=lambda end: loss(centres, counts, chosen[0], end))
            bottom = min(lows, key=lambda end: loss(centres, counts, end, top))
            if (bottom, top) == chosen:
                break
            chosen = bottom, top
        return max(low, chosen[0]), min(high, chosen[1])

    def _used(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centre and count of every bin that is not empty."""
        table, edges = self._table(), self._edges()
        used = np.flatnonzero(table)
        return (edges[used] + edges[used + 1]) / 2, table[used].astype(np.float64)

    def _table(self) -> NDArray[np.int64]:
        return self._counts

    def _candidates(self, end: float) -> list[float]:
        """From the end itself to a sixteenth of it, evenly in the logarithm."""
        return [end * 2.0 ** (-4.0 * i / self._CANDIDATES) for i in range(self._CANDIDATES + 1)] if end else [0.0]
