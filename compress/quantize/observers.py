# SPDX-License-Identifier: Apache-2.0
"""Observers: the range of a tensor over a stream of batches, in memory that does not grow with the samples."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_contract.errors import UsageError

__all__ = ["OBSERVERS", "MinMaxObserver", "Observer", "PercentileObserver", "SquaredErrorObserver", "make_observer"]


class Observer(Protocol):
    """Sees every value of one tensor once and then tells its range."""

    def observe(self, values: Tensor) -> None: ...

    def range(self) -> tuple[float, float]: ...


class MinMaxObserver:
    """The smallest and the largest value seen.

    Example:
        >>> observer = MinMaxObserver()
        >>> observer.observe(torch.tensor([1.0, -2.0])); observer.observe(torch.tensor([4.0]))
        >>> observer.range()
        (-2.0, 4.0)
    """

    def __init__(self) -> None:
        self._low, self._high = float("inf"), float("-inf")

    def observe(self, values: Tensor) -> None:
        low, high = torch.aminmax(values)
        self._low, self._high = min(self._low, float(low)), max(self._high, float(high))

    def range(self) -> tuple[float, float]:
        return self._low, self._high


class _Histogram:
    """Counts of all values seen, in bins whose width doubles when a value falls outside.

    Bins are multiples of a power of two around zero, so that merging neighbours in pairs is exact and the result does
    not depend on the order of the batches.
    """

    _BINS = 4096  # half of them below zero

    def __init__(self) -> None:
        self._extremes = MinMaxObserver()
        self._exponent = -60  # bin width 2**exponent
        self._counts = np.zeros(self._BINS, np.int64)

    def observe(self, values: Tensor) -> None:
        self._extremes.observe(values)
        low, high = self._extremes.range()
        half = self._BINS // 2
        while max(-low, high) >= half * 2.0**self._exponent:
            self._widen()
        # A multiplication by a power of two is exact in float32 too, and takes half the memory of float64.
        index = torch.floor(values.detach() * 2.0**-self._exponent).to(torch.int32).ravel() + half
        self._counts += torch.bincount(index, minlength=self._BINS).numpy()

    def _widen(self) -> None:
        """Double the bin width about zero: bins 2k and 2k+1 become bin k."""
        self._exponent += 1
        if not self._counts.any():
            return
        half = self._BINS // 2
        pairs = self._counts.reshape(-1, 2).sum(axis=1)
        self._counts = np.zeros_like(self._counts)
        self._counts[half // 2 : half // 2 + half] = pairs

    def _edges(self) -> NDArray[np.float64]:
        numbers = np.arange(self._BINS + 1, dtype=np.float64) - self._BINS // 2
        return np.ldexp(numbers, self._exponent)


class PercentileObserver(_Histogram):
    """The central share of all values seen.

    The answer is within one bin width (range / 1024 at worst) of the exact percentile, and never outside the smallest
    and largest value.

    Args:
        percentile: Percent of the values at or below the upper end; the lower end leaves as many below.

    Example:
        >>> observer = PercentileObserver(90.0)
        >>> observer.observe(torch.arange(1001.0))
        >>> [round(end, -1) for end in observer.range()]
        [100.0, 900.0]
    """

    def __init__(self, percentile: float = 99.99) -> None:
        if not 50.0 < percentile <= 100.0:
            raise UsageError(f"percentile {percentile} is not above 50 and at most 100", fix="use 99.99")
        super().__init__()
        self._share = percentile / 100.0

    def range(self) -> tuple[float, float]:
        low, high = self._extremes.range()
        total, edges = np.cumsum(self._counts), self._edges()
        first = int(np.searchsorted(total, (1.0 - self._share) * total[-1], side="right"))
        last = int(np.searchsorted(total, self._share * total[-1], side="left"))
        bottom, top = edges[min(first, self._BINS - 1)], edges[min(last, self._BINS - 1) + 1]
        return max(low, float(bottom)), min(high, float(top))


class SquaredErrorObserver(_Histogram):
    """The range in which 8 bits lose least: the sum of squared errors of rounding and of clipping is smallest.

    Rounding errs by step² / 12 on average; a value outside errs by its distance to the range. Both ends are moved
    inwards in turn, from the smallest and the largest value, until neither moves.

    Example:
        >>> observer = SquaredErrorObserver()
        >>> observer.observe(torch.cat([torch.linspace(0, 1, 1000000), torch.tensor([5.0])]))
        >>> [round(end, 1) for end in observer.range()]
        [0.0, 2.2]

    Reference:
        Nagel et al., "A White Paper on Neural Network Quantization", 2021, section 3.1 (MSE).
    """

    _CANDIDATES = 96
    _ROUNDS = 4

    def range(self) -> tuple[float, float]:
        low, high = self._extremes.range()
        edges = self._edges()
        used = np.flatnonzero(self._counts)
        centres, counts = (edges[used] + edges[used + 1]) / 2, self._counts[used].astype(np.float64)
        lows, highs = self._candidates(low), self._candidates(high)
        chosen = min(low, 0.0), max(high, 0.0)
        for _ in range(self._ROUNDS):
            top = min(highs, key=lambda end: _squared_error(centres, counts, chosen[0], end))
            bottom = min(lows, key=lambda end: _squared_error(centres, counts, end, top))
            if (bottom, top) == chosen:
                break
            chosen = bottom, top
        return max(low, chosen[0]), min(high, chosen[1])

    def _candidates(self, end: float) -> list[float]:
        """From the end itself to a sixteenth of it, evenly in the logarithm."""
        return [end * 2.0 ** (-4.0 * i / self._CANDIDATES) for i in range(self._CANDIDATES + 1)] if end else [0.0]


def _squared_error(centres: NDArray[np.float64], counts: NDArray[np.float64], low: float, high: float) -> float:
    step = (max(high, 0.0) - min(low, 0.0)) / 255.0
    outside = centres - np.clip(centres, min(low, 0.0), max(high, 0.0))
    return float(counts @ np.where(outside == 0.0, step * step / 12.0, outside * outside))


OBSERVERS = ("min-max", "percentile", "squared-error")


def make_observer(name: str, percentile: float = 99.99) -> Observer:
    """Return a fresh observer by name.

    Raises:
        UsageError: An unknown name, or a percentile outside (50, 100].
    """
    if name == "min-max":
        return MinMaxObserver()
    if name == "percentile":
        return PercentileObserver(percentile)
    if name == "squared-error":
        return SquaredErrorObserver()
    raise UsageError(f"unknown observer '{name}'", fix=f"use one of {', '.join(OBSERVERS)}")
