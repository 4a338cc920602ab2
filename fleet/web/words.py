# SPDX-License-Identifier: Apache-2.0
"""Figures as a person reads them: shares, times, sizes, and how long ago something was."""

import datetime as dt

__all__ = ["ago", "count", "latency", "moment", "percent", "size", "span"]


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as a percentage.

    Example:
        >>> percent(0.9712), percent(None)
        ('97.1 %', '–')
    """
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def latency(us: float | None) -> str:
    """Return microseconds in a unit that can be read.

    Example:
        >>> latency(431.0), latency(12_345.0), latency(None)
        ('431 µs', '12.3 ms', '–')
    """
    if us is None:
        return "–"
    return f"{us:.0f} µs" if us < 1000 else f"{us / 1000:.3g} ms"


def size(count: float) -> str:
    """Return bytes in a unit that can be read.

    Example:
        >>> size(512), size(20_480)
        ('512 B', '20.5 kB')
    """
    for limit, unit in ((1e3, "B"), (1e6, "kB"), (1e9, "MB")):
        if count < limit:
            return f"{count * 1e3 / limit:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
    return f"{count / 1e9:.3g} GB"


def ago(now: float, then: float) -> str:
    """Return how long ago something was.

    Example:
        >>> ago(100.0, 97.0), ago(5000.0, 1000.0), ago(5.0, 0.0)
        ('3 s ago', '1 h ago', 'never')
    """
    if not then:
        return "never"
    gone = max(0.0, now - then)
    for limit, unit in ((60, "s"), (3600, "min"), (86_400, "h")):
        if gone < limit:
            return f"{gone / {'s': 1, 'min': 60, 'h': 3600}[unit]:.0f} {unit} ago"
    return f"{gone / 86_400:.0f} d ago"


def moment(seconds: float) -> str:
    """Return a time in UTC.

    Example:
        >>> moment(0.0)
        '1970-01-01 00:00:00'
    """
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")


def count(number: float) -> str:
    """Return a whole number in groups of three.

    Example:
        >>> count(1234567)
        '1 234 567'
    """
    return f"{number:,.0f}".replace(",", " ")


def span(seconds: float) -> str:
    """Return a length of time.

    Example:
        >>> span(90.0), span(7200.0), span(200_000.0)
        ('2 min', '2 h', '2 d')
    """
    for limit, unit, divisor in ((60, "s", 1), (3600, "min", 60), (86_400, "h", 3600)):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"
