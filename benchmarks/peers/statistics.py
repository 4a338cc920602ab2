# SPDX-License-Identifier: Apache-2.0
"""How far an integer model is from the float model that it was made of, with intervals that say what is noise.

All intervals are 95 % and cover the drawing of the test samples alone: one checkpoint, one calibration set.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import DataError

__all__ = ["Share", "divergence", "exact_codes", "paired_drop", "wilson"]

Z95: Final = 1.959963984540054  # the normal distribution's 97.5 % point


@dataclass(frozen=True)
class Share:
    """An estimate in per cent, or in points, with its 95 % interval."""

    value: float
    low: float
    high: float


def paired_drop(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Share:
    """Return how many points of accuracy were lost, from two answers to each of the same questions.

    The difference of one sample is -1, 0 or 1; the interval is that of its mean, sd / sqrt(n). It is much narrower
    than that of two separate accuracies, because most samples are answered alike.

    Args:
        before: Whether the float model was right, bool [N].
        after: Whether the integer model was right, bool [N].

    Raises:
        DataError: Fewer than two samples, or unlike shapes.

    Example:
        >>> before = np.array([True] * 90 + [False] * 10)
        >>> after = np.array([True] * 88 + [False] * 12)
        >>> drop = paired_drop(before, after)
        >>> round(drop.value, 2), round(drop.low, 2), round(drop.high, 2)
        (2.0, -0.76, 4.76)

    Reference:
        A. Agresti, Categorical Data Analysis, 3rd edition, section 11.1 (matched pairs)
    """
    if before.shape != after.shape or before.size < 2:
        raise DataError(f"{before.shape} against {after.shape} answers", fix="compare at least two samples, pairwise")
    lost = before.astype(np.float64) - after.astype(np.float64)
    half = Z95 * float(lost.std(ddof=1)) / sqrt(lost.size)
    return Share(100 * float(lost.mean()), 100 * (float(lost.mean()) - half), 100 * (float(lost.mean()) + half))


def wilson(hits: int, n: int) -> Share:
    """Return a share of hits in per cent with Wilson's score interval.

    Raises:
        DataError: No samples, or more hits than samples.

    Example:
        >>> share = wilson(235, 240)
        >>> round(share.value, 1), round(share.low, 1), round(share.high, 1)
        (97.9, 95.2, 99.1)

    Reference:
        E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927
    """
    if not 0 <= hits <= n or n == 0:
        raise DataError(f"{hits} hits among {n} samples")
    share, denominator = hits / n, 1 + Z95**2 / n
    centre = (share + Z95**2 / (2 * n)) / denominator
    half = Z95 * sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n)) / denominator
    return Share(100 * share, 100 * (centre - half), 100 * (centre + half))


def divergence(reference: NDArray[Any], answer: NDArray[Any]) -> float:
    """Return the mean Kullback-Leibler divergence of softmax(answer) from softmax(reference), in nats.

    KL = mean_n sum_k p_nk (ln p_nk - ln q_nk), with p the reference's and q the answer's probabilities.

    Args:
        reference: Logits of the float model [N, K].
        answer: Logits of the integer model [N, K].

    Raises:
        DataError: Unlike shapes, or no samples.

    Example:
        >>> divergence(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]))
        0.0
        >>> round(divergence(np.log([[0.5, 0.5]]), np.log([[0.2, 0.8]])), 4)
        0.2231
    """
    if reference.shape != answer.shape or reference.ndim != 2 or reference.size == 0:
        raise DataError(f"logits of shapes {reference.shape} and {answer.shape}")
    p, q = _log_softmax(reference), _log_softmax(answer)
    return float(np.mean(np.sum(np.exp(p) * (p - q), axis=1)))


def _log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def exact_codes(a: NDArray[np.int16], b: NDArray[np.int16]) -> dict[str, float]:
    """Compare two files' output codes [N, K]: how many differ, by how many steps, and how often the class is the same.

    Raises:
        DataError: Unlike shapes, or no codes.

    Example:
        >>> exact_codes(np.array([[1, 5]], np.int16), np.array([[3, 5]], np.int16))
        {'codes': 2, 'differing': 1, 'exact_percent': 50.0, 'largest_steps': 2, 'same_class_percent': 100.0}
    """
    if a.shape != b.shape or a.ndim != 2 or a.size == 0:
        raise DataError(f"codes of shapes {a.shape} and {b.shape}")
    distance = np.abs(a.astype(np.int32) - b.astype(np.int32))
    return {
        "codes": int(a.size),
        "differing": int(np.count_nonzero(distance)),
        "exact_percent": 100 * float(np.mean(distance == 0)),
        "largest_steps": int(distance.max()),
        "same_class_percent": 100 * float(np.mean(a.argmax(1) == b.argmax(1))),
    }
