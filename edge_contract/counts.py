# SPDX-License-Identifier: Apache-2.0
"""The counters of a window: integers only, so that adding windows is exact in any order.

Sums of real numbers are kept in fixed point (``*_UNIT`` steps per unit), rounded once per inference. Float
sums would depend on the order in which windows arrive; integers do not.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from operator import add, sub
from typing import Any, Final

from edge_contract.errors import SummaryError

__all__ = [
    "BINS",
    "BLOCK",
    "COMPONENTS",
    "CONFIDENCE_UNIT",
    "EMBEDDING_CLIP",
    "EMBEDDING_UNIT",
    "ENERGY_CLIP",
    "ENERGY_UNIT",
    "LATENCY_BUCKETS",
    "LEVELS",
    "MAX_SLOTS",
    "SHARE_UNIT",
    "Counters",
    "latency_bucket",
    "latency_quantile_us",
]

MAX_SLOTS: Final = 64
"""Class slots; with more classes the 63 most frequent of the reference have their own, the rest share one."""
LEVELS: Final = 4
BINS: Final = 16
COMPONENTS: Final = 8
LATENCY_BUCKETS: Final = 32
BLOCK: Final = 16
"""Inferences per block of the block-mean estimate of autocorrelation."""
EMBEDDING_UNIT: Final = 1024
EMBEDDING_CLIP: Final = 6.0
ENERGY_UNIT: Final = 64
ENERGY_CLIP: Final = 8.0
CONFIDENCE_UNIT: Final = 65536
SHARE_UNIT: Final = 65536
_SIGNED: Final = frozenset({"energy_sum", "block_sum", "lag", "embedding_sum"})
_FIRST_OCTAVE: Final = 5  # 2^5 = 32 µs


@dataclass(frozen=True)
class Counters:
    """What was counted over a window, or since a runner started.

    Attributes:
        n_infer: Inferences done, errors included.
        n_sampled: Inferences that entered the counters below.
        n_err: Inferences that failed or gave NaN.
        n_drop: Inputs that were never inferred (the source was faster than the model).
        cells: Predicted class × level of confidence [slots × LEVELS]; the first two levels are below the ATC
            threshold of the profile.
        confidence: Max-prob, at reference quantiles [BINS].
        confidence_sum: Sum of max-prob, CONFIDENCE_UNIT steps per 1.
        energy: logsumexp of the logits, at reference quantiles [BINS].
        energy_sum, energy_squares: Of the standardised energy e (reference mean 0 and deviation 1, clipped to
            ±ENERGY_CLIP), in ENERGY_UNIT steps; squares in ENERGY_UNIT² steps.
        blocks, block_sum, block_squares: Blocks of BLOCK successive inferences; their sums of e; the squares.
        pairs, lag, repeats: Successive pairs; the sum of their products of e; pairs with equal class.
        embedding_sum, embedding_squares: Of the whitened components z, clipped to ±EMBEDDING_CLIP, in
            EMBEDDING_UNIT steps [COMPONENTS]; z² is rounded to EMBEDDING_UNIT steps too.
        brightness, contrast, sharpness: Input statistics, at reference quantiles [BINS].
        dark, bright: Sums of the share of saturated pixels, SHARE_UNIT steps per 1.
        latency: Log-linear histogram of the inference time, see ``latency_bucket`` [LATENCY_BUCKETS].
        latency_sum_us: Sum of the inference time, µs.
    """

    n_infer: int
    n_sampled: int
    n_err: int
    n_drop: int
    cells: tuple[int, ...]
    confidence: tuple[int, ...]
    confidence_sum: int
    energy: tuple[int, ...]
    energy_sum: int
    energy_squares: int
    blocks: int
    block_sum: int
    block_squares: int
    pairs: int
    lag: int
    repeats: int
    embedding_sum: tuple[int, ...]
    embedding_squares: tuple[int, ...]
    brightness: tuple[int, ...]
    contrast: tuple[int, ...]
    sharpness: tuple[int, ...]
    dark: int
    bright: int
    latency: tuple[int, ...]
    latency_sum_us: int

    @classmethod
    def zero(cls, classes: int) -> "Counters":
        """Return counters that have seen nothing, for a model with so many classes.

        Example:
            >>> Counters.zero(10).slots, Counters.zero(1000).slots
            (10, 64)
        """
        slots = min(max(classes, 1), MAX_SLOTS)
        return cls.from_vector(slots, [0] * cls.length(slots))

    @staticmethod
    def length(slots: int) -> int:
        """Return the number of integers in the flat form."""
        return slots * LEVELS + 5 * BINS + 2 * COMPONENTS + LATENCY_BUCKETS + 16

    @classmethod
    def from_vector(cls, slots: int, vector: Sequence[int]) -> "Counters":
        """Return the counters of a flat form.

        Raises:
            SummaryError: The vector has another length.
        """
        if len(vector) != cls.length(slots):
            fix = f"{slots} class slots need {cls.length(slots)}"
            raise SummaryError(f"{len(vector)} counters", where="counters", fix=fix)
        values: list[Any] = []
        at = 0
        for _, size in _shape(slots):
            values.append(tuple(vector[at : at + size]) if size else vector[at])
            at += size or 1
        return cls(*values)

    def to_vector(self) -> list[int]:
        """Return every counter in one flat list, in the order of the fields."""
        flat: list[int] = []
        for name in _NAMES:
            value = getattr(self, name)
            flat.extend(value if isinstance(value, tuple) else (value,))
        return flat

    @property
    def slots(self) -> int:
        """Class slots."""
        return len(self.cells) // LEVELS

    @property
    def classes(self) -> tuple[int, ...]:
        """Predictions per class slot [slots]."""
        return tuple(sum(self.cells[i : i + LEVELS]) for i in range(0, len(self.cells), LEVELS))

    @property
    def levels(self) -> tuple[int, ...]:
        """Predictions per level of confidence, least confident first [LEVELS]."""
        return tuple(sum(self.cells[i::LEVELS]) for i in range(LEVELS))

    def merge(self, other: "Counters") -> "Counters":
        """Return the counters of both windows together; exact, in any order.

        Raises:
            SummaryError: They count different class slots.
        """
        return self._combine(other, add)

    def minus(self, earlier: "Counters") -> "Counters":
        """Return what was counted since an earlier reading of the same counters.

        Raises:
            SummaryError: They count different class slots, or a counter went back: not the same run.
        """
        since = self._combine(earlier, sub)
        for name, value in ((name, getattr(since, name)) for name in _NAMES):
            if name not in _SIGNED and (min(value) if isinstance(value, tuple) else value) < 0:
                fix = "compare readings of one epoch only"
                raise SummaryError(f"'{name}' went back", where="counters", fix=fix)
        return since

    def check(self) -> None:
        """Check that the counters can come from one window.

        Raises:
            SummaryError: Histograms that disagree with the number of samples, or a negative count.
        """
        n = self.n_sampled
        if n + self.n_err > self.n_infer:
            raise SummaryError(f"{n} sampled and {self.n_err} failed of {self.n_infer}", where="counters")
        for name in ("cells", "confidence", "energy"):
            if sum(getattr(self, name)) != n:
                raise SummaryError(f"'{name}' counts {sum(getattr(self, name))} of {n} samples", where="counters")
        for name in ("brightness", "contrast", "sharpness", "latency"):
            if sum(getattr(self, name)) > n:
                raise SummaryError(f"'{name}' counts more than {n} samples", where="counters")
        seen = {sum(self.brightness), sum(self.contrast), sum(self.sharpness)}
        if len(seen) > 1 or (seen == {0} and (self.dark or self.bright)):
            raise SummaryError("the input statistics count different images", where="counters")
        if any(self.embedding_sum) and not any(self.embedding_squares):
            raise SummaryError("embedding sums without squares", where="counters")
        if self.repeats > self.pairs or self.pairs > n or self.blocks * BLOCK > n + BLOCK:
            raise SummaryError("more pairs or blocks than samples", where="counters")

    def _combine(self, other: "Counters", operation: Callable[[int, int], int]) -> "Counters":
        if self.slots != other.slots:
            raise SummaryError(f"{self.slots} class slots against {other.slots}", where="counters")
        return Counters.from_vector(self.slots, list(map(operation, self.to_vector(), other.to_vector())))


_NAMES: Final = tuple(f.name for f in fields(Counters))
_SIZES: Final = {
    **dict.fromkeys(("confidence", "energy", "brightness", "contrast", "sharpness"), BINS),
    **dict.fromkeys(("embedding_sum", "embedding_squares"), COMPONENTS),
    "latency": LATENCY_BUCKETS,
}


def _shape(slots: int) -> Iterator[tuple[str, int]]:
    """Yield each field's name and size, 0 for a single integer."""
    for name in _NAMES:
        yield name, slots * LEVELS if name == "cells" else _SIZES.get(name, 0)


def latency_bucket(latency_us: float) -> int:
    """Return the bucket of a time: two per octave from 32 µs to 2.1 s, the ends are open.

    Example:
        >>> [latency_bucket(us) for us in (1, 32, 47, 48, 64, 1000, 1e9)]
        [0, 0, 0, 1, 2, 9, 31]
    """
    whole = min(max(int(latency_us), 1), 1 << 40)
    octave = whole.bit_length() - 1
    half = whole >> (octave - 1) & 1 if octave else 0
    return min(max(2 * (octave - _FIRST_OCTAVE) + half, 0), LATENCY_BUCKETS - 1)


def latency_quantile_us(latency: Sequence[int], share: float) -> float | None:
    """Return a quantile of a latency histogram in µs, at the bucket's geometric middle; None when empty.

    Example:
        >>> latency = [0] * 32
        >>> latency[latency_bucket(1000)] = 9
        >>> latency_quantile_us(latency, 0.5)
        887.0
    """
    total, seen = sum(latency), 0
    for bucket, count in enumerate(latency):
        seen += count
        if count and seen >= share * total:
            low = 2.0 ** (_FIRST_OCTAVE + bucket // 2) * (1.5 if bucket % 2 else 1.0)
            high = low * (4 / 3 if bucket % 2 else 1.5)
            return float(round(math.sqrt(low * high)))
    return None
