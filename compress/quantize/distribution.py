# SPDX-License-Identifier: Apache-2.0
"""How the values of a tensor are distributed, for the report: at most 64 bins, whatever is seen in whatever order."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_contract.errors import DataError

__all__ = ["BINS", "Histogram", "Stream"]

BINS: Final = 64
_FINEST: Final = -60  # bin width 2**-60 at least
_PLACES: Final = 40  # bins from zero are numbered in fewer bits than this


@dataclass(frozen=True)
class Histogram:
    """Counts of values in bins of one width, and the range that quantization gave the tensor.

    Attributes:
        name: Of the layer.
        low, width: Lower end of the first bin; width of each.
        counts: Of each bin.
        range_low, range_high: Smallest and largest value that the codes can say.
    """

    name: str
    low: float
    width: float
    counts: tuple[int, ...]
    range_low: float
    range_high: float

    @property
    def high(self) -> float:
        """Upper end of the last bin."""
        return self.low + self.width * len(self.counts)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "counts": list(self.counts)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Histogram":
        numbers = {key: float(document[key]) for key in ("low", "width", "range_low", "range_high")}
        return cls(name=str(document["name"]), counts=tuple(int(one) for one in document["counts"]), **numbers)


class Stream:
    """Counts values as they come. Bins are multiples of a power of two, so that widening them is exact.

    Example:
        >>> stream = Stream()
        >>> for value in (0.25, 1.0, 1.0):
        ...     stream.observe(torch.tensor(value))
        >>> made = stream.histogram("x", (0.0, 1.0))
        >>> made.low, made.counts[0], made.counts[-1], len(made.counts) <= BINS
        (0.25, 1, 2, True)
    """

    def __init__(self) -> None:
        self._low, self._high = math.inf, -math.inf
        self._exponent, self._first = _FINEST, 0
        self._counts: NDArray[np.int64] = np.zeros(0, np.int64)

    def observe(self, values: Tensor) -> None:
        """Count the values of a tensor of any shape.

        Raises:
            DataError: NaN or an infinity among them.
        """
        real = values.detach().double().ravel()
        if not bool(torch.isfinite(real).all()):
            raise DataError("NaN or an infinity has no place in a histogram")
        low, high = (float(end) for end in torch.aminmax(real))
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._widen(self._needed())
        index = torch.floor(real * 2.0**-self._exponent).long()
        first, last = (math.floor(math.ldexp(end, -self._exponent)) for end in (self._low, self._high))
        grown = np.zeros(last - first + 1, np.int64)
        start = self._first - first if len(self._counts) else 0
        grown[start : start + len(self._counts)] = self._counts
        self._counts, self._first = grown, first
        self._counts += torch.bincount(index - first, minlength=len(grown)).numpy()

    def _needed(self) -> int:
        """Return the smallest exponent with which everything seen fits into the bins."""
        exponent = max(_FINEST, math.frexp(max(abs(self._low), abs(self._high)))[1] - _PLACES)
        while math.floor(math.ldexp(self._high, -exponent)) - math.floor(math.ldexp(self._low, -exponent)) >= BINS:
            exponent += 1
        return exponent

    def _widen(self, exponent: int) -> None:
        steps = exponent - self._exponent
        self._exponent = exponent
        if not steps or not len(self._counts):
            return
        places = (np.arange(len(self._counts), dtype=object) + self._first) // 2**steps
        self._first = int(places[0])
        merged = np.zeros(int(places[-1]) - self._first + 1, np.int64)
        np.add.at(merged, (places - self._first).astype(np.int64), self._counts)
        self._counts = merged

    def histogram(self, name: str, chosen: tuple[float, float]) -> Histogram:
        """Return what was counted, with the range that was chosen for the tensor."""
        width = 2.0**self._exponent
        counts = tuple(int(one) for one in self._counts) or (0,)
        return Histogram(name, self._first * width, width, counts, *chosen)
