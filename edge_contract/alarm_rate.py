# SPDX-License-Identifier: Apache-2.0
"""How often a healthy device may alarm, in plain words: "at most one false alarm per device per year".

The words become thresholds. A device that closes a window every ``window_s`` seconds judges N windows a year. Two
things may alarm by chance, and they share what is allowed:

- a CUSUM of one of the judged channels (``JUDGED``; Bonferroni, whatever their dependence) reaches its limit: once in
  ARL0(h) windows, tabulated below for our increments, z = Φ⁻¹(1 - p) cut to -3 … 6 less ½ (``CUSUM_RUN_LENGTH``);
- two successive windows have a family p-value below ``alarm_p``: at most once in 1/alarm_p windows, also where the
  second is a copy of the first. It may use a tenth of what is allowed.

The table assumes uniform p-values. Those of the CUSUM are never too small (``edge_contract.statistics``), so the
words hold as "at most": ``python -m benchmarks.drift.false_alarms`` measures it.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from edge_contract.errors import UsageError

__all__ = ["CUSUM_RUN_LENGTH", "DEFAULT", "JUDGED", "YEAR_S", "AlarmLimits", "limits_for", "run_length"]

JUDGED: Final = 6
"""Channels with a CUSUM of their own; latency has none."""
YEAR_S: Final = 365.25 * 86_400
_WEEK_S: Final = 7 * 86_400
_QUICK_SHARE: Final = 0.1
_LEAST: Final = 4.0

CUSUM_RUN_LENGTH: Final[tuple[tuple[float, float], ...]] = (
    (4.0, 3.354e2), (5.0, 9.309e2), (6.0, 2.553e3), (7.0, 6.966e3), (8.0, 1.896e4), (9.0, 5.158e4), (10.0, 1.402e5),
    (11.0, 3.812e5), (12.0, 1.036e6), (13.0, 2.817e6), (14.0, 7.657e6), (15.0, 2.081e7), (16.0, 5.657e7),
    (17.0, 1.538e8), (18.0, 4.180e8), (19.0, 1.136e9), (20.0, 3.088e9),
)  # fmt: skip
"""Limit h → mean windows between false alarms of one CUSUM with k = ½: Markov chain of 1200 states (Brook and Evans
1972), made again by the tests. Between two rows the logarithm is interpolated."""


@dataclass(frozen=True)
class AlarmLimits:
    """When a window warns and when a device alarms.

    Attributes:
        warn_p: A window whose family p-value is below it warns.
        alarm_p: Two successive windows below it alarm.
        cusum: A channel whose CUSUM reaches it alarms.
        calm: An alarm ends once every CUSUM is below it and the windows look ordinary.
    """

    warn_p: float = 1e-3
    alarm_p: float = 1e-6
    cusum: float = 10.0
    calm: float = 5.0

    @property
    def cap(self) -> float:
        """Where a CUSUM stops rising, so that a device that has healed is quiet again after a few good windows."""
        return self.cusum + 2.0

    def per_device_year(self, window_s: float) -> float:
        """Return how many false alarms a healthy device has in a year at most, with windows of so many seconds.

        Example:
            >>> round(DEFAULT.per_device_year(3600), 2)
            0.38
        """
        windows = YEAR_S / _positive("window_s", window_s)
        return windows * (JUDGED / run_length(self.cusum) + self.alarm_p)


DEFAULT: Final = AlarmLimits()
"""For windows of an hour: less than one false alarm per device in two years."""


def run_length(cusum: float) -> float:
    """Return ARL0: the mean number of windows until one CUSUM of a healthy device reaches a limit.

    Example:
        >>> round(run_length(4.0)), round(run_length(4.5))
        (335, 559)
    """
    steps = list(pairwise(CUSUM_RUN_LENGTH))
    (low, short), (high, long) = next((step for step in steps if cusum <= step[1][0]), steps[-1])
    grade = math.log(long / short) / (high - low)
    return math.exp(math.log(short) + grade * (cusum - low))


def limits_for(per_device_year: float, window_s: float) -> AlarmLimits:
    """Return the limits that keep "at most so many false alarms per device per year".

    A window warns at most about once a week by chance, and never more easily than at p = 1e-3.

    Args:
        per_device_year: False alarms allowed, such as 1, or 0.1 for one in ten years.
        window_s: Seconds between two judged windows of a device.

    Raises:
        UsageError: A number that is not above 0, or more than the limits from 4 to 20 can promise.

    Example:
        >>> hourly = limits_for(1, 3600)
        >>> hourly.cusum, hourly.alarm_p, hourly.warn_p
        (9.1, 1e-06, 0.001)
        >>> limits_for(1, 60).cusum
        13.3

    Reference:
        Brook, D., Evans, D. A. (1972). An approach to the probability distribution of CUSUM run length. Biometrika 59.
    """
    allowed = _positive("per_device_year", per_device_year) * _positive("window_s", window_s) / YEAR_S
    alarm_p = min(DEFAULT.alarm_p, _QUICK_SHARE * allowed)
    needed = JUDGED / (allowed - alarm_p)
    steps = range(round(10 * _LEAST), round(10 * CUSUM_RUN_LENGTH[-1][0]) + 1)
    found = next((step / 10 for step in steps if run_length(step / 10) >= needed), None)
    if found is None:
        what = f"{per_device_year:g} false alarms per device per year with windows of {window_s:g} s"
        raise UsageError(f"{what} cannot be promised", where="alarm rate", fix="allow more of them, or longer windows")
    warn_p = min(DEFAULT.warn_p, window_s / _WEEK_S)
    return AlarmLimits(warn_p=max(warn_p, alarm_p), alarm_p=alarm_p, cusum=found, calm=found / 2)


def _positive(name: str, value: float) -> float:
    if not (value > 0 and math.isfinite(value)):
        raise UsageError(f"{name} is {value}", where="alarm rate", fix="give a number above 0")
    return value
