# SPDX-License-Identifier: Apache-2.0
"""How fast a rollout's orders leave, when, and to whom not, in words: the page and the command line say the same."""

from collections.abc import Mapping
from typing import Any

__all__ = ["pace_words"]


def pace_words(limits: Mapping[str, Any]) -> list[str]:
    """Return in words how fast a rollout's orders leave, when, and what becomes of devices that are away.

    Args:
        limits: JSON of the rollout's limits.

    Example:
        >>> from fleet.core.limits import Limits, Rate
        >>> pace_words(Limits(rate=Rate(10, 2.0, 5, 40)).to_json())[0]
        'orders to 10 devices a minute, 2 times as many after each 5 successes, never more than 40'
    """
    words, rate, schedule = [], limits.get("rate"), limits.get("schedule") or {}
    if rate:
        grows = f", {rate['factor']:g} times as many after each {rate['after']} successes" if rate["after"] else ""
        most = f", never more than {rate['most']:g}" if rate["most"] else ""
        words.append(f"orders to {rate['per_minute']:g} devices a minute{grows}{most}")
    if schedule.get("windows"):
        clock = "each device's clock" if schedule["clock"] == "device" else "UTC"
        words.append(f"orders leave within {', '.join(schedule['windows'])} by {clock}")
    offline = limits.get("offline") or {}
    if offline.get("policy") == "skip":
        words.append(f"devices not seen for {offline['after_s'] / 3600:g} h are skipped")
    elif offline.get("policy") == "excuse":
        words.append("devices that say nothing until their time is up are excused")
    return words
