# SPDX-License-Identifier: Apache-2.0
"""How far confidence is from accuracy: the expected calibration error, with an interval."""

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from compress.checks.asked import CalibrationError
from compress.checks.outcome import CheckResult, Row
from compress.checks.subject import Subject
from compress.evaluate import Hits

__all__ = ["calibration_error", "expected_error", "interval"]

RESAMPLES: Final = 500
SEED: Final = 20_262
_AT_ONCE: Final = 2**22
Reals = NDArray[np.float64]


def calibration_error(check: CalibrationError, subject: Subject) -> CheckResult:
    """Return the expected calibration error on the validation split, in points.

    Fails where the lower end of the interval is above ``max``; with ``strict``, where the figure is.
    """
    confidence = torch.softmax(subject.logits.double(), 1).max(1).values.numpy()
    figure = 100 * expected_error(confidence, subject.hits, check.bins)
    low, high = (100 * end for end in interval(confidence, subject.hits, check.bins))
    passed = (figure if check.strict else low) <= check.max
    mean, right = 100 * float(confidence.mean()), 100 * float(subject.hits.mean())
    words = f"confidence {mean:.1f} %, accuracy {right:.1f} %; error {figure:.2f} points, allowed {check.max:g}"
    rows = tuple(_rows(confidence, subject.hits, check.bins))
    return CheckResult(check.name, check.kind, passed, figure, check.max, "points", words, low, high, rows=rows)


def expected_error(confidence: Reals, hits: Hits, bins: int = 15) -> float:
    """Return the expected calibration error: over bins of equal width, the mean of |accuracy - confidence|.

    ECE = sum_b |sum_{i in b} (hit_i - confidence_i)| / N. It is biased: with few samples a perfectly calibrated model
    has an error above 0 too.

    Args:
        confidence: Largest probability of each answer, [N], 0 to 1.
        hits: Right or wrong, bool [N].
        bins: Of equal width.

    Example:
        >>> expected_error(np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, False, True, False]), 10)
        0.25

    Reference:
        Guo et al. 2017, "On calibration of modern neural networks", equation 3.
    """
    sums = np.bincount(_bins(confidence, bins), hits - confidence, bins)
    return float(np.abs(sums).sum() / len(confidence))


def interval(confidence: Reals, hits: Hits, bins: int = 15, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Return the basic bootstrap interval of the expected calibration error, cut off at 0.

    Resampling adds the same upward bias once more, so its quantiles are mirrored at the figure: the interval is
    [2 e - q(97.5 %), 2 e - q(2.5 %)]. Drawn from a fixed seed. It is a little short: a true error of 15 points was
    inside in 89 to 92 % of 200 draws (200 to 2 000 samples), and of a calibrated model the lower end was above 4.1, 2.5
    and 1.1 points in one of 40 (200, 600, 2 000 samples).

    Reference:
        Davison & Hinkley 1997, "Bootstrap methods and their application", section 5.2.
    """
    n, place, gaps = len(confidence), _bins(confidence, bins), hits - confidence
    draw = np.random.default_rng(SEED)
    at_once = max(1, min(resamples, _AT_ONCE // n))
    found: list[Reals] = []
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        rows = draw.integers(0, n, (count, n))
        keys = place[rows] + bins * np.arange(count)[:, None]
        sums = np.bincount(keys.ravel(), gaps[rows].ravel(), bins * count)
        found.append(np.abs(sums.reshape(count, bins)).sum(axis=1) / n)
    low, high = np.quantile(np.concatenate(found), (0.025, 0.975))
    figure = expected_error(confidence, hits, bins)
    return max(0.0, float(2 * figure - high)), max(0.0, float(2 * figure - low))


def _bins(confidence: Reals, bins: int) -> NDArray[Any]:
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)


def _rows(confidence: Reals, hits: Hits, bins: int) -> list[Row]:
    """One row for each bin that holds answers: accuracy, and the mean confidence in words."""
    place, rows = _bins(confidence, bins), []
    for number in np.unique(place).tolist():
        inside = place == number
        said, right = 100 * float(confidence[inside].mean()), 100 * float(hits[inside].mean())
        name = f"{100 * number / bins:.0f} to {100 * (number + 1) / bins:.0f} %"
        rows.append(Row(name, right, None, None, int(inside.sum()), words=f"confidence {said:.1f} %"))
    return rows
