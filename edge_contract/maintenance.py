# SPDX-License-Identifier: Apache-2.0
"""Maintenance windows: a few spans of the week in which a new model may be sent out or switched on.

A span belongs to the day on which it opens, and may pass midnight. The clock's offset from UTC comes in with each
question, so a change to summer time moves the windows with the people.
"""

import re
from collections.abc import Sequence
from typing import Final

from edge_contract.errors import ContractError

__all__ = ["moment", "next_open", "parse_window"]

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY_MIN: Final = 24 * 60
_WEEK_MIN: Final = 7 * _DAY_MIN
_FORM: Final = re.compile(r"(?:(?P<days>[A-Za-z,-]+) +)?(?P<h1>\d\d):(?P<m1>\d\d)-(?P<h2>\d\d):(?P<m2>\d\d)\Z")

Span = tuple[int, int]
"""(minute of the week at which it opens, Monday 00:00 is 0; length in minutes)"""


def parse_window(text: str) -> tuple[Span, ...]:
    """Return the spans of one window, such as ``Mon-Fri 22:00-05:00``; without days it opens every day.

    Raises:
        ContractError: Not of that form.

    Example:
        >>> parse_window("Sun 23:00-01:30"), len(parse_window("22:00-05:00")), parse_window("Sat,Mon 00:00-24:00")
        (((10020, 150),), 7, ((7200, 1440), (0, 1440)))
    """
    found = _FORM.match(text)
    if found is None:
        raise ContractError(f"{text!r} is not a window", fix='write "Mon-Fri 22:00-05:00" or "22:00-05:00"')
    opens, closes = (int(found[f"h{i}"]) * 60 + int(found[f"m{i}"]) for i in (1, 2))
    if opens >= _DAY_MIN or closes > _DAY_MIN or int(found["m1"]) > 59 or int(found["m2"]) > 59:
        raise ContractError(f"{text!r} names a time that no day has", fix="use 00:00 to 24:00")
    length = (closes - opens) % _DAY_MIN or _DAY_MIN
    return tuple((day * _DAY_MIN + opens, length) for day in _days(found["days"] or "Mon-Sun", text))


def _days(words: str, text: str) -> list[int]:
    days = []
    for word in words.split(","):
        first, _, last = word.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise ContractError(f"{text!r} names a day that no week has", fix=f"use {', '.join(DAYS)}")
        start = DAYS.index(first)
        days += [(start + i) % 7 for i in range((DAYS.index(last or first) - start) % 7 + 1)]
    return days


def next_open(windows: Sequence[str], wall: float, offset_s: int) -> float:
    """Return when a window is open next, in seconds since 1970; 0 if one is open now.

    Args:
        windows: Their texts, at least one.
        wall: Now, seconds since 1970.
        offset_s: Seconds that the windows' clock is ahead of UTC.

    Example:
        >>> thursday_noon = 12 * 3600.0
        >>> next_open(["Thu 11:00-13:00"], thursday_noon, 0), next_open(["22:00-05:00"], thursday_noon, 3600) / 3600
        (0.0, 21.0)
    """
    local = int(wall) + offset_s
    minute = (local // 60 + 3 * _DAY_MIN) % _WEEK_MIN  # 1970-01-01 was a Thursday
    spans = [span for text in windows for span in parse_window(text)]
    if any((minute - opens) % _WEEK_MIN < length for opens, length in spans):
        return 0.0
    wait = min((opens - minute) % _WEEK_MIN for opens, _ in spans)
    return float(int(wall) - local % 60 + wait * 60)


def moment(seconds: float, offset_s: int) -> str:
    """Return a day of the week and a time of day.

    Example:
        >>> moment(0.0, 3600)
        'Thu 01:00'
    """
    minute = (int(seconds) + offset_s) // 60
    day = DAYS[(minute // _DAY_MIN + 3) % 7]
    return f"{day} {minute % _DAY_MIN // 60:02}:{minute % 60:02}"
