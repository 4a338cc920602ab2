# SPDX-License-Identifier: Apache-2.0
"""How near one set of answers is to another: relative error, SQNR, explained variance, KL and the task's own metric.

Top-1 alone tells little: on easy data it stays at 100 % while the numbers behind it are garbage. With r the reference
and a the answer, both [N, K], sums over all numbers:

    relative error  = ‖a - r‖ / ‖r‖
    SQNR            = 10 log10(Σ r² / Σ (a - r)²) dB = -20 log10(relative error)
    explained       = 1 - Σ (a - r)² / Σ (r - r̄)², r̄ the reference's mean answer [K]
    cosine          = Σ a r / (‖a‖ ‖r‖)
    KL              = mean over inputs of Σ_k p_k ln(p_k / q_k), p = softmax(r), q = softmax(a), in nats

Relative error is small for outputs far from zero whatever they do; *explained* is not: it is 0 for an output that gives
the same mean answer to every input. (SQNR: Widrow & Kollár 2008, "Quantization Noise", chapter 1; explained: the
coefficient of determination, Wright 1921; KL: Kullback & Leibler 1951.)
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compress.evaluate import Difference, Score, paired_difference, score, wilson
from edge_contract.errors import DataError, ParityError

__all__ = ["BETWEEN_INT8", "FLOAT", "INT8", "Fidelity", "Limits", "Share", "compare", "is_constant"]

Array = NDArray[Any]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Share:
    """How many of ``samples`` have a property, with the 95 % Wilson interval of the share (Wilson 1927)."""

    count: int
    samples: int

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.count / self.samples

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of the 95 % interval."""
        return wilson(self.count, self.samples)

    def to_json(self) -> dict[str, Any]:
        low, high = self.interval
        return {"share": self.share, "low": low, "high": high, "count": self.count, "samples": self.samples}


@dataclass(frozen=True)
class Fidelity:
    """What ``compare`` found; None is what has no meaning for these numbers.

    Attributes:
        samples, values: Rows and numbers compared.
        relative_error: 0 is equal; infinite where the reference is all zero and the answer is not.
        sqnr_db: Infinite where equal.
        max_abs: The largest difference of one number.
        explained: None where the reference gives one answer to all inputs.
        cosine: None where either is all zero.
        same_class: Inputs with the same largest number; None for a single column and for what are no classes.
        kl: In nats; None as for ``same_class``.
        accuracy, reference_accuracy: With labels.
        change: Accuracy of the answer minus that of the reference, in points, with its paired interval.
    """

    samples: int
    values: int
    relative_error: float
    sqnr_db: float
    max_abs: float
    explained: float | None = None
    cosine: float | None = None
    same_class: Share | None = None
    kl: float | None = None
    accuracy: Score | None = None
    reference_accuracy: Score | None = None
    change: Difference | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; what is infinite or has no meaning is null."""
        numbers = {
            "relative_error": self.relative_error,
            "sqnr_db": self.sqnr_db,
            "max_abs": self.max_abs,
            "explained": self.explained,
            "cosine": self.cosine,
            "kl": self.kl,
        }
        parts = {
            "same_class": self.same_class,
            "accuracy": self.accuracy,
            "reference_accuracy": self.reference_accuracy,
            "change": self.change,
        }
        finite = {key: value if value is not None and math.isfinite(value) else None for key, value in numbers.items()}
        shown = {key: part.to_json() for key, part in parts.items() if part is not None}
        return {"samples": self.samples, "values": self.values, **finite, **shown}

    def __str__(self) -> str:
        words = [f"relative error {self.relative_error:.3g}", f"SQNR {self.sqnr_db:.1f} dB"]
        if self.same_class is not None:
            words.append(f"same class {100 * self.same_class.share:.2f} %")
        if self.kl is not None:
            words.append(f"KL {self.kl:.2g}")
        if self.change is not None:
            words.append(f"accuracy {self.change}")
        return ", ".join(words)


@dataclass(frozen=True)
class Limits:
    """What is wrong rather than coarse.

    Attributes:
        relative_error: At most this.
        explained: At least this.
        drop: In points: the accuracy's 95 % interval must not lie wholly below minus this.
        negligible: Where no number differs by more than this, nothing is wrong: two zeros, one of them rounded.
    """

    relative_error: float
    explained: float
    drop: float
    negligible: float = 0.0

    def broken(self, found: Fidelity) -> str:
        """Return which limit is broken and by what, or an empty text.

        Example:
            >>> r = np.array([[1.0, 0.0], [0.0, 1.0]])
            >>> INT8.broken(compare(r, 0.8 * r)), INT8.broken(compare(r, 0.5 * r))
            ('', 'relative error 0.5, allowed 0.3')
        """
        if found.max_abs <= self.negligible:
            return ""
        if not found.relative_error <= self.relative_error:
            return f"relative error {found.relative_error:.3g}, allowed {self.relative_error:g}"
        if found.explained is not None and not found.explained >= self.explained:
            return f"explains {found.explained:.3g} of the reference's variance, at least {self.explained:g} is asked"
        if found.change is not None and found.change.high < -self.drop:
            return f"accuracy changes by {found.change}, allowed -{self.drop:g}"
        return ""


INT8: Final = Limits(0.3, 0.5, 5.0)
"""int8 files that are right measured relative errors of .008 to .09 on nine kinds of networks, wrong ones .35 to 1."""
FLOAT: Final = Limits(1e-3, 0.99, 1.0, 1e-6)
"""Float files that are right measured 1e-6 to 3e-5; float16 weights .0004."""
BETWEEN_INT8: Final = Limits(0.1, 0.9, 5.0)
"""One int8 file in two runtimes whose kernels round in other ways: some steps at most."""


def compare(
    reference: Array, answer: Array, labels: Array | None = None, *, classes: bool = True, where: str = "output"
) -> Fidelity:
    """Return how near an answer is to a reference.

    Args:
        reference, answer: Real numbers [N, ...] for the same N inputs; all dimensions but the first are flattened.
        labels: Right classes [N], for the accuracy.
        classes: The columns are classes: False for boxes, embeddings and other numbers.
        where: Names the answer in errors.

    Raises:
        DataError: Empty, of different shapes, labels that do not fit, or a reference with NaN or an infinity.
        ParityError: The answer holds NaN or an infinity.

    Example:
        >>> found = compare(np.array([[3.0, 0.0], [0.0, 4.0]]), np.array([[3.0, 0.0], [0.0, 3.5]]))
        >>> found.relative_error, round(found.sqnr_db, 1), found.same_class.share
        (0.1, 20.0, 1.0)
    """
    r, a = _rows(reference, answer, where)
    difference, signal = a - r, float(np.linalg.norm(r))
    noise = float(np.linalg.norm(difference))
    relative = noise / signal if signal else (math.inf if noise else 0.0)
    ranked = classes and r.shape[1] > 1
    right = _hits(r, a, labels) if ranked and labels is not None else None
    return Fidelity(
        samples=len(r),
        values=r.size,
        relative_error=relative,
        sqnr_db=_decibels(relative),
        max_abs=float(np.abs(difference).max()),
        explained=_explained(r, noise),
        cosine=_cosine(r, a, signal),
        same_class=Share(int((r.argmax(1) == a.argmax(1)).sum()), len(r)) if ranked else None,
        kl=_kl(r, a) if ranked else None,
        accuracy=score(int(right[1].sum()), len(r)) if right else None,
        reference_accuracy=score(int(right[0].sum()), len(r)) if right else None,
        change=paired_difference(*right) if right else None,
    )


def _rows(reference: Array, answer: Array, where: str) -> tuple[Doubles, Doubles]:
    if np.shape(reference) != np.shape(answer) or not np.size(reference):
        what = f"{list(np.shape(answer))} numbers cannot be compared with {list(np.shape(reference))}"
        raise DataError(what, where=where, fix="give both for the same inputs, at least one")
    r, a = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (reference, answer))
    if not np.isfinite(r).all():
        row = int(np.flatnonzero(~np.isfinite(r).all(axis=1))[0])
        raise DataError(f"the reference holds NaN or an infinity for input {row}", where=where)
    if not np.isfinite(a).all():
        bad = ~np.isfinite(a)
        what = f"{int(bad.sum())} of {a.size} numbers are NaN or infinite, first for input {int(bad.any(1).argmax())}"
        raise ParityError(what, where=where, fix="do not ship this file for this runtime; export it again")
    return r, a


def _decibels(relative: float) -> float:
    if relative == 0.0:
        return math.inf
    return -20.0 * math.log10(relative) if relative < math.inf else -math.inf


def _hits(r: Doubles, a: Doubles, labels: Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    wanted = np.asarray(labels)
    if wanted.shape != (len(r),) or wanted.min() < 0 or wanted.max() >= r.shape[1]:
        fix = f"give one class below {r.shape[1]} for each input"
        raise DataError(f"labels {list(wanted.shape)} do not fit outputs {list(r.shape)}", where="labels", fix=fix)
    return r.argmax(1) == wanted, a.argmax(1) == wanted


def _explained(r: Doubles, noise: float) -> float | None:
    spread = float(np.linalg.norm(r - r.mean(axis=0)))
    # What remains of a constant's spread is the rounding of its mean.
    return 1.0 - (noise / spread) ** 2 if spread > 1e-12 * float(np.linalg.norm(r)) else None


def _cosine(r: Doubles, a: Doubles, signal: float) -> float | None:
    length = signal * float(np.linalg.norm(a))
    return float((r * a).sum()) / length if length else None


def _log_softmax(x: Doubles) -> Doubles:
    shifted = x - x.max(axis=1, keepdims=True)  # else exp overflows
    found: Doubles = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


def _kl(r: Doubles, a: Doubles) -> float:
    p, q = _log_softmax(r), _log_softmax(a)
    return max(0.0, float((np.exp(p) * (p - q)).sum(axis=1).mean()))  # rounding may leave -1e-17


def is_constant(rows: Array) -> bool:
    """Return whether all of at least two rows [N, ...] are equal.

    Example:
        >>> is_constant(np.ones((3, 2))), is_constant(np.eye(2)), is_constant(np.ones((1, 2)))
        (True, False, False)
    """
    return len(rows) > 1 and bool((rows == rows[:1]).all())
