# SPDX-License-Identifier: Apache-2.0
"""Observers: the range of a tensor over a stream of batches, in memory that does not grow with the samples."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.quantize.semantics import HIGH, LOW, scale_and_zero_point
from compress.quantize.stream_bins import Fitted, Histogram
from compress.steps.quantize import OBSERVERS
from edge_contract.errors import ModelError, UsageError

__all__ = [
    "OBSERVERS",
    "EntropyObserver",
    "MinMaxObserver",
    "MovingAverageObserver",
    "Observer",
    "PercentileObserver",
    "RoundingErrorObserver",
    "SquaredErrorObserver",
    "make_observer",
]


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


class MovingAverageObserver:
    """The smallest and the largest value of a sample, averaged over samples; later ones weigh more.

    One odd sample hardly moves it, and for the same reason it clips what typical samples reach now and then.

    Args:
        smoothing: What of the average stays when a sample comes.

    Example:
        >>> observer = MovingAverageObserver(0.5)
        >>> observer.observe(torch.tensor([[0.0, 1.0], [-1.0, 3.0]]))
        >>> observer.range()
        (-0.5, 2.0)

    Reference:
        Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
        2018, section 3.1.
    """

    def __init__(self, smoothing: float = 0.95) -> None:
        self._smoothing = smoothing
        self._ends: Tensor | None = None

    def observe(self, values: Tensor) -> None:
        samples = values.flatten(1) if values.dim() > 1 else values.unsqueeze(0)
        for ends in torch.stack(torch.aminmax(samples, dim=1), 1).double():
            before = ends if self._ends is None else self._ends
            self._ends = before * self._smoothing + ends * (1.0 - self._smoothing)

    def range(self) -> tuple[float, float]:
        assert self._ends is not None
        return float(self._ends[0]), float(self._ends[1])


class PercentileObserver(Histogram):
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
        total, edges = np.cumsum(self._counts), self._edges()
        first = int(np.searchsorted(total, (1.0 - self._share) * total[-1], side="right"))
        last = int(np.searchsorted(total, self._share * total[-1], side="left"))
        bottom, top = edges[min(first, self._BINS - 1)], edges[min(last, self._BINS - 1) + 1]
        return max(self._low, float(bottom)), min(self._high, float(top))


class SquaredErrorObserver(Fitted):
    """The range in which 8 bits lose least: the sum of squared errors of rounding and of clipping is smallest.

    Rounding errs by step² / 12 on average; a value outside errs by its distance to the range.

    Example:
        >>> observer = SquaredErrorObserver()
        >>> observer.observe(torch.cat([torch.linspace(0, 1, 1000000), torch.tensor([5.0])]))
        >>> [round(end, 1) for end in observer.range()]
        [0.0, 2.2]

    Reference:
        Nagel et al., "A White Paper on Neural Network Quantization", 2021, section 3.1 (MSE).
    """

    def range(self) -> tuple[float, float]:
        return self._fit(_squared_error)


class RoundingErrorObserver(Fitted):
    """As ``SquaredErrorObserver``, then the step on which the values that were seen fall best, within 6 %.

    Behind a convolution of an image with a black background, most values of a channel are one value, its bias. What
    rounding does to it is no noise: all of them err alike, and the mean of the channel with them. The sum of each bin
    is kept beside its count, so that such values are known exactly.

    Args:
        limits: Of the clamp that the range stands for: codes beyond a ReLU6's 6 would not be clamped.

    Example:
        >>> observer = RoundingErrorObserver()
        >>> observer.observe(torch.cat([torch.full((9000,), 0.503), torch.linspace(0, 1, 999)]))
        >>> low, high = observer.range()
        >>> round(0.503 / (high / 255) % 1.0, 1) % 1.0  # a whole number of steps
        0.0
    """

    _SPAN, _STEPS = 0.06, 121

    def __init__(self, limits: tuple[float, float] = (-np.inf, np.inf)) -> None:
        super().__init__()
        self._limits, self._sums = limits, np.zeros(self._BINS)

    def _add(self, index: Tensor, values: Tensor) -> None:
        super()._add(index, values)
        self._sums += torch.bincount(index, weights=values.double().ravel(), minlength=self._BINS).numpy()

    def _widen(self) -> None:
        super()._widen()
        self._sums = self._paired(self._sums)

    def range(self) -> tuple[float, float]:
        low, high = self._fit(_squared_error)
        low, high = min(low, 0.0), max(high, 0.0)
        if low == high:
            return low, high
        used = np.flatnonzero(self._counts)
        means, counts = self._sums[used] / self._counts[used], self._counts[used].astype(np.float64)
        factors = np.linspace(1.0 - self._SPAN, 1.0 + self._SPAN, self._STEPS)
        factors = factors[(low * factors >= self._limits[0]) & (high * factors <= self._limits[1])]
        try:
            best = min(factors, key=lambda factor: _rounding_error(means, counts, low * factor, high * factor))
        except ModelError:  # beyond float32: whoever makes codes of it can name the tensor
            return low, high
        return low * float(best), high * float(best)


class EntropyObserver(Fitted):
    """The range whose 256 levels keep most of the values' distribution: its divergence from what was seen is smallest.

    P is the histogram inside the range, with what lies outside added to the bins at its ends; Q spreads each level's
    inside values evenly over the level's bins that hold any. The divergence Σ P log(P / Q) grows with what a range
    clips and with what its levels blur. Both ends of a signed tensor are searched.

    Example:
        >>> observer = EntropyObserver()
        >>> observer.observe(torch.cat([torch.linspace(0, 1, 1000000), torch.tensor([5.0])]))
        >>> [round(end, 1) for end in observer.range()]
        [0.0, 1.1]

    Reference:
        Migacz, "8-bit Inference with TensorRT", GPU Technology Conference, 2017.
    """

    def range(self) -> tuple[float, float]:
        return self._fit(_divergence)

    def _table(self) -> NDArray[np.int64]:
        """The zeros of a ReLU have a code of their own, so they blur nothing: not more than their neighbours."""
        table, zero = self._counts.copy(), self._BINS // 2
        table[zero] = min(table[zero], max(table[zero - 1], table[zero + 1], 1))
        return table


def _squared_error(centres: NDArray[np.float64], counts: NDArray[np.float64], low: float, high: float) -> float:
    step = (max(high, 0.0) - min(low, 0.0)) / 255.0
    outside = centres - np.clip(centres, min(low, 0.0), max(high, 0.0))
    return float(counts @ np.where(outside == 0.0, step * step / 12.0, outside * outside))


def _rounding_error(means: NDArray[np.float64], counts: NDArray[np.float64], low: float, high: float) -> float:
    scale, zero = scale_and_zero_point(low, high)
    codes = np.clip(np.rint(means / scale) + zero, LOW, HIGH)
    return float(counts @ ((codes - zero) * scale - means) ** 2)


def _divergence(centres: NDArray[np.float64], counts: NDArray[np.float64], low: float, high: float) -> float:
    first, last = np.searchsorted(centres, (low, high))
    if last <= first:
        return float("inf")
    inside = counts[first:last]
    levels = np.rint(centres[first:last] * (255.0 / (high - low))).astype(np.int64)
    levels -= levels[0]
    even = np.bincount(levels, inside) / np.maximum(np.bincount(levels), 1)
    seen = inside.copy()
    seen[0] += counts[:first].sum()
    seen[-1] += counts[last:].sum()
    p, q = seen / seen.sum(), even[levels] / inside.sum()
    return float(p @ np.log(p / q))


_MAKERS: dict[str, Callable[[], Observer]] = {
    "squared-error": SquaredErrorObserver,
    "entropy": EntropyObserver,
    "moving-average": MovingAverageObserver,
    "min-max": MinMaxObserver,
}


def make_observer(name: str, percentile: float = 99.99, limits: tuple[float, float] = (-np.inf, np.inf)) -> Observer:
    """Return a fresh observer by name; ``limits`` are those of the clamp that its range will stand for.

    Raises:
        UsageError: An unknown name, or a percentile outside (50, 100].
    """
    if name == "percentile":
        return PercentileObserver(percentile)
    if name == "rounding-error":
        return RoundingErrorObserver(limits)
    if name not in _MAKERS:
        raise UsageError(f"unknown observer '{name}'", fix=f"use one of {', '.join(OBSERVERS)}")
    return _MAKERS[name]()
