# SPDX-License-Identifier: Apache-2.0
"""The counters of a window: integers only, so that adding windows is exact in any order.

Sums of real numbers are kept in fixed point (``*_UNIT`` steps per unit), rounded once per inference. Float
sums would depend on the order in which windows arrive; integers do not.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from operator import add, sub
from typing import Any, Final

from edge_contract.errors import SummaryError
from edge_contract.latency_buckets import LATENCY_BUCKETS, latency_bucket, latency_quantile_us
from edge_contract.tasks import CLASSIFY, TASKS, Form

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
    "NOISE_UNIT",
    "PLAIN",
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
BLOCK: Final = 16
"""Inferences per block of the block-mean estimate of autocorrelation."""
EMBEDDING_UNIT: Final = 1024
EMBEDDING_CLIP: Final = 6.0
ENERGY_UNIT: Final = 64
ENERGY_CLIP: Final = 8.0
CONFIDENCE_UNIT: Final = 65536
SHARE_UNIT: Final = 65536
NOISE_UNIT: Final = 256
PLAIN: Final = Form()
_SIGNED: Final = frozenset({"energy_sum", "block_sum", "lag", "embedding_sum"})


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
        task: What the model does; the energy above is that task's signal (``edge_contract.tasks``).
        tables: What else the task counts, as its form says.
        sensors: Of each sensor of a series or vector the sum of its mean z, then of the squares, in the units of
            the embedding [2 × sensors].
        noise: Noised windows within, and the sum of the variance that each of their cells has, in NOISE_UNIT steps.
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
    task: str = CLASSIFY
    tables: tuple[tuple[int, ...], ...] = ()
    sensors: tuple[int, ...] = ()
    noise: tuple[int, int] = (0, 0)

    @classmethod
    def zero(cls, classes: int, form: Form = PLAIN) -> "Counters":
        """Return counters that have seen nothing, for a model with so many classes.

        Example:
            >>> Counters.zero(10).slots, Counters.zero(1000).slots
            (10, 64)
        """
        slots = min(max(classes, 1), MAX_SLOTS)
        return cls.from_vector(slots, [0] * cls.length(slots, form), form)

    @staticmethod
    def length(slots: int, form: Form = PLAIN) -> int:
        """Return the number of integers in the flat form."""
        return slots * LEVELS + 5 * BINS + 2 * COMPONENTS + LATENCY_BUCKETS + 16 + form.size

    @classmethod
    def from_vector(
        cls, slots: int, vector: Sequence[int], form: Form = PLAIN, noise: tuple[int, int] = (0, 0)
    ) -> "Counters":
        """Return the counters of a flat form.

        Raises:
            SummaryError: The vector has another length.
        """
        if len(vector) != cls.length(slots, form):
            fix = f"{slots} class slots need {cls.length(slots, form)}"
            raise SummaryError(f"{len(vector)} counters", where="counters", fix=fix)
        values: list[Any] = []
        at = 0
        for _, size in _shape(slots):
            values.append(tuple(vector[at : at + size]) if size else vector[at])
            at += size or 1
        values += [form.task, *form.cut(vector[at:]), noise]
        return cls(*values)

    def to_vector(self) -> list[int]:
        """Return every counter in one flat list, in the order of the fields; task and noise are no counters."""
        flat: list[int] = []
        for name in _NAMES:
            value = getattr(self, name)
            flat.extend(value if isinstance(value, tuple) else (value,))
        for table in self.tables:
            flat.extend(table)
        flat.extend(self.sensors)
        return flat

    @property
    def form(self) -> Form:
        """What is counted beside the common counters."""
        if self.task == CLASSIFY and not self.sensors:
            return PLAIN
        return Form(self.task, tuple(len(table) for table in self.tables), len(self.sensors) // 2)

    def to_list(self) -> list[int]:
        """Return the flat form with what is needed to read it again: for a journal.

        Plain counters are their slots and the vector, as they have always been.

        Example:
            >>> Counters.from_list(Counters.zero(3).to_list()) == Counters.zero(3)
            True
        """
        form = self.form
        if form == PLAIN and self.noise == (0, 0):
            return [self.slots, *self.to_vector()]
        told = [TASKS.index(form.task), form.sensors, *self.noise, len(form.tables), *form.tables]
        return [-self.slots, *told, *self.to_vector()]

    @classmethod
    def from_list(cls, values: Sequence[int]) -> "Counters":
        """Return the counters of ``to_list``.

        Raises:
            SummaryError: Cut short, or of a form that cannot be.
        """
        if not values or values[0] >= 0:
            return cls.from_vector(values[0] if values else 0, values[1:])
        try:
            slots, code, sensors, windows, variance, count = values[:6]
            form = Form(TASKS[code], tuple(values[6 : 6 + count]), sensors).check()
        except (ValueError, IndexError) as error:
            raise SummaryError(f"no counters: {error}", where="counters") from error
        return cls.from_vector(-slots, values[6 + count :], form, (windows, variance))

    def emptied(self, **kept: int) -> "Counters":
        """Return counters of the same form that have seen nothing, but for what is given by name."""
        form = self.form
        empty = Counters.from_vector(self.slots, [0] * self.length(self.slots, form), form)
        return replace(empty, **kept)  # type: ignore[arg-type]  # plain integers only

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
            SummaryError: They count different class slots, or different tasks.
        """
        return self._combine(other, add)

    def minus(self, earlier: "Counters") -> "Counters":
        """Return what was counted since an earlier reading of the same counters.

        Raises:
            SummaryError: They count different class slots, or a counter went back: not the same run.
        """
        since = self._combine(earlier, sub)
        if since.noise != (0, 0) or self.noise != (0, 0):  # noise may be negative
            return since
        named = [(name, getattr(since, name)) for name in _NAMES if name not in _SIGNED]
        named += [("tables", table) for table in since.tables]
        for name, value in named:
            if (min(value) if isinstance(value, tuple) else value) < 0:
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
        if self.noise != (0, 0):  # noisy histograms agree with nothing, and need not
            return
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
        if self.tables or self.sensors:
            self._check_task()

    def _check_task(self) -> None:
        """Check what a task counts beside; a table of areas holds sums, all others hold one of each sample or box."""
        n, form = self.n_sampled, self.form.check()
        totals = [sum(table) for table in self.tables]
        if form.task == "segment":
            fits = all(total <= (SHARE_UNIT + 64) * n for total in totals)
        elif form.task == "detect":
            fits = totals[0] == n and len(set(totals[1:])) == 1
        else:
            fits = all(total == n for total in totals)
        if not fits:
            raise SummaryError(f"the tables of task '{form.task}' do not count {n} samples", where="counters")
        limit = int(EMBEDDING_CLIP) * EMBEDDING_UNIT * n
        if any(abs(value) > limit for value in self.sensors[: form.sensors]):
            raise SummaryError("a sensor's sum is beyond its samples", where="counters")

    def _combine(self, other: "Counters", operation: Callable[[int, int], int]) -> "Counters":
        if self.slots != other.slots:
            raise SummaryError(f"{self.slots} class slots against {other.slots}", where="counters")
        if self.form != other.form:
            if _is_nothing(other):  # plain counters that have seen nothing are neutral
                return self
            if not _is_nothing(self) or operation is not add:
                what = f"task '{self.task}' against '{other.task}', or other tables"
                raise SummaryError(what, where="counters", fix="group by profile")
            return other
        noise = operation(self.noise[0], other.noise[0]), operation(self.noise[1], other.noise[1])
        vector = list(map(operation, self.to_vector(), other.to_vector()))
        return Counters.from_vector(self.slots, vector, self.form, noise)


def _is_nothing(counters: Counters) -> bool:
    return counters.form == PLAIN and counters.noise == (0, 0) and not any(counters.to_vector())


_NAMES: Final = tuple(f.name for f in fields(Counters))[:-4]
_SIZES: Final = {
    **dict.fromkeys(("confidence", "energy", "brightness", "contrast", "sharpness"), BINS),
    **dict.fromkeys(("embedding_sum", "embedding_squares"), COMPONENTS),
    "latency": LATENCY_BUCKETS,
}


def _shape(slots: int) -> Iterator[tuple[str, int]]:
    """Yield each field's name and size, 0 for a single integer."""
    for name in _NAMES:
        yield name, slots * LEVELS if name == "cells" else _SIZES.get(name, 0)
