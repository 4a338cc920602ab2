# SPDX-License-Identifier: Apache-2.0
"""The profile ``mlperf-tiny-like``: five windows of ten seconds or more, their median, and an accuracy that is kept.

It follows the rules of MLPerf Tiny for the single stream as far as they can be followed without its runner and its
reference models. It is **not an MLPerf result**, and every print says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks.record import Launch, Measurement
from benchmarks.result import Quality
from edge_contract.errors import CheckError, UsageError

__all__ = ["LABEL", "Score", "score"]

LABEL: Final = "not an MLPerf result"
WINDOWS: Final = 5
LONG_S: Final = 10.0


@dataclass(frozen=True)
class Score:
    """What the profile came to.

    Attributes:
        windows_us: Mean time of an inference in each window, microseconds.
        seconds: Length of each window.
        accuracy: Of the same bytes.
    """

    windows_us: tuple[float, ...]
    seconds: tuple[float, ...]
    accuracy: float

    @property
    def median_us(self) -> float:
        """What counts: the median of the windows."""
        return median(self.windows_us)

    def __str__(self) -> str:
        per_s = 1e6 / self.median_us
        windows = ", ".join(f"{one:.1f}" for one in self.windows_us)
        return (
            f"mlperf-tiny-like ({LABEL}): {self.median_us:.1f} µs an inference, {per_s:.1f} a second, "
            f"accuracy {self.accuracy:.4f}; windows {windows} µs"
        )


def score(measurement: Measurement, quality: Quality | None, least: float) -> Score:
    """Return the score of a measurement by the profile.

    Args:
        measurement: Each launch is a window.
        quality: Of the same bytes.
        least: Accuracy that must be reached; 0.85 for MLPerf Tiny's image classification.

    Raises:
        CheckError: The accuracy is below, or nobody knows it.
        UsageError: Fewer or shorter windows than the profile has.

    Reference:
        MLPerf Tiny, rules for the single stream: windows of at least 10 s, the median of five runs
    """
    if quality is None:
        raise CheckError("no accuracy of these bytes", where="mlperf-tiny-like", fix="give --data with x and y")
    if quality.value < least:
        what = f"accuracy {quality.value:.4f} on {quality.n} samples, {least:g} wanted"
        raise CheckError(what, where="mlperf-tiny-like", fix="no time counts for a model that misses it")
    seconds = tuple(_span_s(one) for one in measurement.launches)
    if len(seconds) < WINDOWS or min(seconds) < LONG_S:
        what = f"{len(seconds)} windows, the shortest {min(seconds, default=0.0):.1f} s"
        raise UsageError(what, where="mlperf-tiny-like", fix=f"keep {WINDOWS} launches and {LONG_S:g} seconds")
    return Score(_means(measurement.launches), seconds, quality.value)


def _span_s(launch: Launch) -> float:
    return (launch.starts_ns[-1] + launch.stages_ns["total"][-1] - launch.starts_ns[0]) / 1e9


def _means(launches: Sequence[Launch]) -> tuple[float, ...]:
    """Return the mean microseconds of an inference in each; between two kept runs lie the ones that were not kept."""
    return tuple(_span_s(one) * 1e6 / (((one.runs - 1) * one.every + 1) * one.batch) for one in launches)
