# SPDX-License-Identifier: Apache-2.0
"""What a gate looks at: each device before and after a moment, as counts and moments of its metric rows.

A metric row covers some seconds of one device: inferences, errors, and quantiles of the latency. Quantiles are kept
as logarithms, so that "10 % slower" is the same distance on a fast board and on a slow one.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

__all__ = ["DeviceEvidence", "Judged", "Moments", "Row", "Span"]


@dataclass(frozen=True)
class Row:
    """One metric row; latencies in µs, 0 where nothing was inferred."""

    seconds: float
    inferences: int
    errors: int
    p50_us: float = 0.0
    p95_us: float = 0.0


@dataclass(frozen=True)
class Moments:
    """Running sums of a series, from which mean, spread and the correlation of neighbours follow.

    Values are counted from the first one, so that nothing cancels out in the sums.

    Example:
        >>> m = Moments().plus(1.0).plus(2.0).plus(1.0).plus(2.0).plus(1.0).plus(2.0)
        >>> m.n, m.mean, round(m.variance, 2), m.correlation < -0.5
        (6, 1.5, 0.3, True)
    """

    n: int = 0
    first: float = 0.0
    last: float = 0.0
    total: float = 0.0
    total_squares: float = 0.0
    total_lagged: float = 0.0

    def plus(self, value: float) -> "Moments":
        """Return the moments after one more value."""
        if not self.n:
            return Moments(1, value)
        off = value - self.first
        lagged = self.total_lagged + off * self.last
        return Moments(self.n + 1, self.first, off, self.total + off, self.total_squares + off * off, lagged)

    @classmethod
    def of(cls, values: Iterable[float]) -> "Moments":
        """Return the moments of a series in its order."""
        found = cls()
        for value in values:
            found = found.plus(value)
        return found

    @property
    def mean(self) -> float:
        """The mean; 0 of nothing."""
        return self.first + self.total / self.n if self.n else 0.0

    @property
    def squares(self) -> float:
        """Sum of squared deviations from the mean."""
        return max(self.total_squares - self.total * self.total / self.n, 0.0) if self.n else 0.0

    @property
    def variance(self) -> float:
        """Of one value; 0 for fewer than two."""
        return self.squares / (self.n - 1) if self.n > 1 else 0.0

    @property
    def correlation(self) -> float:
        """Of neighbours, −1 .. 1; 0 while unknown."""
        if self.n <= 3 or self.squares <= 0:
            return 0.0
        mean = self.total / self.n
        lagged = self.total_lagged - mean * (2 * self.total - self.last) + (self.n - 1) * mean * mean
        return lagged / self.squares

    @property
    def error(self) -> float:
        """Variance of the mean, with neighbours that resemble each other counted less (first-order autoregression)."""
        r = min(max(self.correlation, 0.0), 0.95)
        return self.variance / self.n * (1 + r) / (1 - r) if self.n else math.inf


@dataclass(frozen=True)
class Judged:
    """One judged drift window.

    Attributes:
        z: How unlike the reference, z = Φ⁻¹(1 − p) of the family's p-value within −3 … 6: one scale for all profiles.
        is_unusual: WARN or ALARM.
        accuracy: Estimated, where the estimate is valid.
    """

    z: float
    is_unusual: bool
    accuracy: float | None = None


@dataclass(frozen=True)
class Span:
    """One device over one span of time.

    Attributes:
        seconds: Covered by rows.
        inferences, errors: Counted.
        p50, p95: Logarithms of the rows' latency quantiles.
        crashed: Whether a runner crashed in it.
        windows, unusual: Judged drift windows, and how many of them were WARN or ALARM.
        drift: How unlike the reference they were, see ``Judged``.
        accuracy: Estimated accuracy of those whose estimate is valid.
    """

    seconds: float = 0.0
    inferences: int = 0
    errors: int = 0
    p50: Moments = field(default_factory=Moments)
    p95: Moments = field(default_factory=Moments)
    crashed: bool = False
    windows: int = 0
    unusual: int = 0
    drift: Moments = field(default_factory=Moments)
    accuracy: Moments = field(default_factory=Moments)

    def plus(self, row: Row) -> "Span":
        """Return the span with one more row.

        Example:
            >>> span = Span().plus(Row(60.0, 100, 1, 900.0, 1000.0)).plus(Row(60.0, 100, 0, 900.0, 1100.0))
            >>> span.rows, span.inferences, round(span.error_share, 4)
            (2, 200, 0.005)
        """
        return replace(
            self,
            seconds=self.seconds + row.seconds,
            inferences=self.inferences + row.inferences,
            errors=self.errors + row.errors,
            p50=self.p50.plus(math.log(row.p50_us)) if row.p50_us > 0 else self.p50,
            p95=self.p95.plus(math.log(row.p95_us)) if row.p95_us > 0 else self.p95,
        )

    def judged(self, window: Judged) -> "Span":
        """Return the span with one more drift window.

        Example:
            >>> span = Span().judged(Judged(0.5, False, 0.9)).judged(Judged(6.0, True))
            >>> span.windows, span.unusual_share, span.drift.mean, span.accuracy.n
            (2, 0.5, 3.25, 1)
        """
        return replace(
            self,
            windows=self.windows + 1,
            unusual=self.unusual + window.is_unusual,
            drift=self.drift.plus(window.z),
            accuracy=self.accuracy if window.accuracy is None else self.accuracy.plus(window.accuracy),
        )

    @property
    def unusual_share(self) -> float:
        """Share of windows that were WARN or ALARM, 0 .. 1."""
        return self.unusual / self.windows if self.windows else 0.0

    @property
    def error_share(self) -> float:
        """Errors per inference asked for, 0 .. 1."""
        return self.errors / (self.inferences + self.errors) if self.inferences + self.errors else 0.0

    @property
    def rows(self) -> int:
        """Rows that say how long an inference took."""
        return self.p95.n


@dataclass(frozen=True)
class DeviceEvidence:
    """One device of the treated or the control group.

    Attributes:
        treated: It runs the new bundle in ``after``; a control ran the old one all the time.
        before, after: Its spans.
        compared, agreed: Inputs that both models answered, and with the same class; 0 without a shadow.
    """

    device: str
    treated: bool
    before: Span
    after: Span
    compared: int = 0
    agreed: int = 0
