# SPDX-License-Identifier: Apache-2.0
"""Images at this hour of the day on earlier days: what a sunset is compared with, so that it does not alarm.

A camera sees other images at noon and at night, and the bundle's reference mixes all hours or holds only some. So the
input channel alone gets a second opinion. For each hour of the day (UTC) the histograms of brightness, contrast and
sharpness of the days before are kept; a window that looks like the reference, *or* like the days before at its own hour
or an hour to either side, is no drift of the inputs. All other channels are judged as ever.

1. Which earlier days count: at least ``MIN_DAYS`` whole ones. Until the device has been heard for so many days, its
   hours are being learned: the reference is asked, but what only the inputs say is at most a warning, for nobody knows
   yet whether it is the evening.
2. How alike days are is learned, too: the largest squared distance between a day and those before it (``sway``) takes
   the place of the effect that is too small to matter. A cloudy day is then no drift once there was one.
3. A change that is larger than any hour showed (``_BEYOND`` times the largest distance from the reference in the first
   ``FIRST_DAYS``), or images where these hours had none, is left to the reference: no hour can excuse it.
4. Hours go on learning from windows that are no drift, and old days fade, so that they follow the seasons. ``effect``
   and ``sway`` stay those of the first days: dust that gathers for months is not learned as well.

The state is bounded: 24 hours of 96 counts for each device and set of bin edges.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from edge_contract import arrays
from edge_contract.counts import BINS, Counters
from edge_contract.errors import SummaryError
from edge_contract.packing import Cursor, pack_counts
from edge_contract.profile import INPUTS, ReferenceProfile
from edge_contract.statistics import IGNORED_EFFECT, Evidence, combine, compare_counts, pool
from edge_contract.tails import chi2_quantile, noncentral_chi2_sf

__all__ = ["DAY_MS", "FIRST_DAYS", "HOURS", "MIN_DAYS", "Daytime", "Hour", "place_of", "scale_of"]

HOURS: Final = 24
DAY_MS: Final = 86_400_000
_HOUR_MS: Final = DAY_MS // HOURS
MIN_DAYS: Final = 2
FIRST_DAYS: Final = 7
_MIN_SAMPLES: Final = 128
_MOST_SAMPLES: Final = 6000
"""Of an hour; beyond it all counts are halved."""
_BEYOND: Final = 1.25
_NOVEL: Final = 0.1
_RARE: Final = 0.01
_REFERENCE_TAIL: Final = 1e-3
_LEARNING_P: Final = 1e-5
_LEARN_P: Final = 0.01
_LEAST_SWAY, _MOST_SWAY = 0.1, 1.0
"""Days are never quite alike; and a camera that saw a defect in its first days must not take it for weather."""
_UNKNOWN: Final = 2.0
"""Two days know little of the weather: in the first days the sway counts so many times."""

Histograms = tuple[tuple[int, ...], ...]
_EMPTY: Final[Histograms] = ((0,) * BINS,) * len(INPUTS)


def place_of(start_ms: int, duration_ms: int) -> tuple[int, int]:
    """Return (day since 1970, hour 0 .. 23) of a window's middle, in UTC.

    Example:
        >>> place_of(86_400_000 + 3_600_000, 60_000)
        (1, 1)
    """
    middle = start_ms + duration_ms // 2
    return middle // DAY_MS, middle % DAY_MS // _HOUR_MS


def scale_of(profile: ReferenceProfile) -> int:
    """Return a number of the edges of the input histograms: counts of one scale may be added over bundles."""
    return zlib.crc32("".join(map(arrays.floats, profile.edges.inputs)).encode())


def _of(counters: Counters) -> Histograms:
    return tuple(tuple(getattr(counters, name)) for name in INPUTS)


def _added(a: Histograms, b: Histograms) -> Histograms:
    return tuple(tuple(x + y for x, y in zip(one, other, strict=True)) for one, other in zip(a, b, strict=True))


@dataclass(frozen=True)
class Hour:
    """One hour of the day of one device.

    Attributes:
        hour: 0 .. 23, UTC.
        began: Day since 1970 of the first window.
        day: Day of the newest window; its counts stand in ``today`` until it has ended.
        days: Days that have ended.
        settled, today: Histograms of brightness, contrast and sharpness [3][BINS].
        effect: Largest squared distance of a window from the bundle's reference in the first days.
        sway: Largest squared distance of a day from the days before it, in the first days.
    """

    hour: int
    began: int = 0
    day: int = 0
    days: int = 0
    settled: Histograms = _EMPTY
    today: Histograms = _EMPTY
    effect: float = 0.0
    sway: float = 0.0

    @property
    def samples(self) -> int:
        """Images of the days that have ended."""
        return sum(self.settled[0])

    def turned(self, day: int) -> "Hour":
        """Return the hour with the day before put to the others, once a new one has begun."""
        if day <= self.day or not any(self.today[0]):
            return self
        apart = _distance(self.today, self.settled) if self.days else 0.0
        sway = max(self.sway, apart) if self.day - self.began < FIRST_DAYS else self.sway
        settled = _added(self.settled, self.today)
        while sum(settled[0]) > _MOST_SAMPLES:
            settled = tuple(tuple(count // 2 for count in one) for one in settled)
        return replace(self, day=day, days=self.days + 1, settled=settled, today=_EMPTY, sway=sway)

    def plus(self, counters: Counters, day: int, effect: float) -> "Hour":
        """Return the hour with one more window."""
        hour = self.turned(day) if self.day else replace(self, began=day, day=day)
        if day < hour.day:  # late: its day was closed
            return hour
        seen = max(hour.effect, effect) if day - hour.began < FIRST_DAYS else hour.effect
        return replace(hour, day=max(day, hour.day), today=_added(hour.today, _of(counters)), effect=seen)

    def pack(self) -> bytes:
        """Return the counts as bytes; the other fields are kept beside them."""
        return b"".join(pack_counts(one) for one in (*self.settled, *self.today))

    def with_counts(self, data: bytes) -> "Hour":
        """Return the hour with the counts of ``pack``.

        Raises:
            SummaryError: They are cut short or too long.
        """
        cursor = Cursor(data, "hour of day")
        rows = [cursor.counts(BINS) for _ in range(2 * len(INPUTS))]
        if not cursor.ended:
            raise SummaryError("an hour's counts are too long", where="hour of day")
        return replace(self, settled=tuple(rows[: len(INPUTS)]), today=tuple(rows[len(INPUTS) :]))


def _distance(here: Histograms, there: Histograms) -> float:
    """Return the largest squared distance of the three histograms beyond chance."""
    found = [compare_counts(a, b) for a, b in zip(here, there, strict=True) if sum(a) and sum(b)]
    return max((one.effect for one in found if one is not None), default=0.0)


@dataclass
class Daytime:
    """The second opinion on one window's inputs: ``judge`` asks ``weigh``, and ``words`` tells afterwards who decided.

    Args:
        hours: What is known of the hours, by hour.
        day, hour: Of the window, see ``place_of``.
    """

    hours: Mapping[int, Hour]
    day: int
    hour: int
    used: str = "reference"
    days: int = 0
    effect: float = 0.0
    found: Evidence | None = None

    @property
    def is_learning(self) -> bool:
        """True in the device's first days."""
        began = min((one.began for one in self.hours.values()), default=self.day)
        return self.day - began < MIN_DAYS

    @property
    def words(self) -> str:
        """Who decided about the inputs, for the page."""
        clock = f"{self.hour:02}:00 UTC"
        if self.used == "hours":
            return f"inputs compared with {self.days} earlier days around {clock}"
        if self.used == "learning":
            return (
                "inputs compared with the bundle's reference; the hours of the day are being learned, so they only warn"
            )
        return "inputs compared with the bundle's reference"

    def weigh(self, against: Evidence | None, counters: Counters, design: float) -> Evidence | None:
        """Return the evidence of the inputs that counts: the mildest of the reference's and the hours'."""
        self.found, self.used = against, "reference"
        if against is None or not sum(counters.brightness):
            return against
        self.effect, best = against.effect, against
        if self.is_learning:
            self.used, best = "learning", Evidence(max(against.p, _LEARNING_P), 1.0, against.effect)
        for one in () if self.is_learning else self._near():
            told = _against(one, counters, design, self._sway)
            if told is not None and told.p_beyond > best.p_beyond:
                best, self.used, self.days = told, "hours", one.days
        self.found = best
        return best

    @property
    def _sway(self) -> float:
        most, days = (max((f(one) for one in self.hours.values()), default=0.0) for f in (_sway_of, _days_of))
        return min(max(most * (_UNKNOWN if days < FIRST_DAYS else 1.0), _LEAST_SWAY), _MOST_SWAY)

    def _near(self) -> list[Hour]:
        """The hours that may excuse the window; none where it is further from the reference than any hour ever was."""
        most = max((one.effect for one in self.hours.values()), default=0.0)
        if self.effect > _BEYOND * most + IGNORED_EFFECT:
            return []
        near = ((self.hour + step) % HOURS for step in (0, -1, 1))
        known = (self.hours[hour].turned(self.day) for hour in near if hour in self.hours)
        return [one for one in known if one.days >= MIN_DAYS and one.samples >= _MIN_SAMPLES]

    def learned(self, counters: Counters, *, is_alarmed: bool) -> Hour | None:
        """Return the window's hour with the window in it; None if it is not to be learned: it is, or may be, drift."""
        if is_alarmed or not sum(counters.brightness):
            return None
        is_calm = self.found is None or self.used == "learning" or self.found.p_beyond >= _LEARN_P
        hour = self.hours.get(self.hour, Hour(self.hour))
        return hour.plus(counters, self.day, self.effect) if is_calm else None


def _sway_of(hour: Hour) -> float:
    return hour.sway


def _days_of(hour: Hour) -> float:
    return hour.days


def _against(hour: Hour, counters: Counters, design: float, ignored: float) -> Evidence | None:
    """Compare a window's inputs with an hour's earlier days; None where they have images that it never had."""
    parts = []
    for here, there in zip(_of(counters), hour.settled, strict=True):
        if _novel(here, there) > _NOVEL:
            return None
        parts.append(_one(here, there, design, ignored))
    return combine(parts)


def _novel(here: tuple[int, ...], there: tuple[int, ...]) -> float:
    """Share of images in bins where the hour had next to none, its neighbouring bins included."""
    total = sum(there)
    wide = [sum(there[max(0, i - 1) : i + 2]) for i in range(len(there))]
    return sum(a for a, b in zip(here, wide, strict=True) if b < _RARE * total) / max(sum(here), 1)


def _one(here: tuple[int, ...], there: tuple[int, ...], design: float, ignored: float) -> Evidence:
    """The test that is fed to a CUSUM (``edge_contract.statistics``), with another effect that does not matter."""
    o, r = pool(here, there, sum(here) / design)
    n, m, df = sum(o), sum(r), len(o) - 1
    if df < 1 or not n:
        return Evidence(1.0, 1.0, 0.0)
    n_eff, m_eff = n / design, m / design
    against = sum((a - n * b / m) ** 2 / (n * b / m) for a, b in zip(o, r, strict=True)) / design
    p = noncentral_chi2_sf(against, df, n_eff * (chi2_quantile(_REFERENCE_TAIL, df) / m_eff + ignored))
    return Evidence(p, p, max(0.0, against / n_eff - df * (1 / n_eff + 1 / m_eff)))
