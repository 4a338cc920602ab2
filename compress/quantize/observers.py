# SPDX-License-Identifier: Apache-2.0
"""Observers: the range of a tensor over a stream of batches, in memory that does not grow with the samples."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from edge_contract.errors import UsageError

__all__ = ["OBSERVERS", "MinMaxObserver", "Observer", "PercentileObserver", "make_observer"]


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


class PercentileObserver:
    """The central share of all values seen, from a histogram whose bins double in width when a value falls outside.

    Bins are multiples of a power of two around zero, so that merging neighbours in pairs is exact and the result does
    not depend on the order of the batches. The answer is within one bin width (range / 1024 at worst) of the exact
    percentile, and never outside the smallest and largest value.

    Args:
        percentile: Percent of the values at or below the upper end; the lower end leaves as many below.

    Example:
        >>> observer = PercentileObserver(90.0)
        >>> observer.observe(torch.arange(1001.0))
        >>> [round(end, -1) for end in observer.range()]
        [100.0, 900.0]
    """

    _BINS = 4096  # half of them below zero

    def __init__(self, percentile: float = 99.99) -> None:
        if not 50.0 < percentile <= 100.0:
            raise UsageError(f"percentile {percentile} is not above 50 and at most 100", fix="use 99.99")
        self._share, self._extremes = percentile / 100.0, MinMaxObserver()
        self._exponent = -60  # bin width 2**exponent
        self._counts = np.zeros(self._BINS, np.int64)

    def observe(self, values: Tensor) -> None:
        self._extremes.observe(values)
        low, high = self._extremes.range()
        half = self._BINS // 2
        while max(-low, high) >= half * 2.0**self._exponent:
            self._widen()
        index = np.floor(values.detach().double().numpy().ravel() * 2.0**-self._exponent).astype(np.int64) + half
        self._counts += np.bincount(index, minlength=self._BINS)

    def _widen(self) -> None:
        """Double the bin width about zero: bins 2k and 2k+1 become bin k."""
        if not self._counts.any():
            self._exponent += 1
            return
        half = self._BINS // 2
        pairs = self._counts.reshape(-1, 2).sum(axis=1)
        self._counts = np.zeros_like(self._counts)
        self._counts[half // 2 : half // 2 + half] = pairs
        self._exponent += 1

    def range(self) -> tuple[float, float]:
        low, high = self._extremes.range()
        total = np.cumsum(self._counts)
        edges = (np.arange(self._BINS + 1) - self._BINS // 2) * 2.0**self._exponent
        below = (1.0 - self._share) * total[-1]
        first = int(np.searchsorted(total, below, side="right"))
        last = int(np.searchsorted(total, self._share * total[-1], side="left"))
        return max(low, float(edges[min(first, self._BINS - 1)])), min(
            high, float(edges[min(last, self._BINS - 1) + 1])
        )


OBSERVERS = ("min-max", "percentile")


def make_observer(name: str, percentile: float = 99.99) -> Observer:
    """Return a fresh observer by name.

    Raises:
        UsageError: An unknown name, or a percentile outside (50, 100].
    """
    if name == "min-max":
        return MinMaxObserver()
    if name == "percentile":
        return PercentileObserver(percentile)
    raise UsageError(f"unknown observer '{name}'", fix=f"use one of {', '.join(OBSERVERS)}")
