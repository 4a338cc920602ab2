# SPDX-License-Identifier: Apache-2.0
"""The settings that agent.toml and the server may give, and what reads and checks each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from edge_contract.alarm_setting import RATE_SETTING
from edge_contract.canonical import as_float
from edge_contract.errors import ContractError
from edge_contract.maintenance import parse_window

__all__ = ["POLICY", "SETTINGS", "SWAPS", "Settings"]

SWAPS: Final = ("auto", "hot", "stop")


@dataclass(frozen=True)
class Settings:
    """The settings in force.

    Attributes:
        source: Name of the declared source that feeds the runner; empty means none.
        window_inferences: A drift window closes after this many sampled inferences, and never with fewer than 64,
        window_s: or after this many seconds, if it sampled 64; after a day with whatever it saw.
        heartbeat_s: Seconds between two reports.
        update_windows: When a new model may be switched on, such as ``Mon-Fri 22:00-05:00``; empty means always.
        update_clock: The windows' clock: ``local`` or ``utc``.
        bandwidth_kbps: Limit for downloads in kilobytes per second, 0 for none.
        metered: The link costs money: downloads wait,
        metered_kbps: or are limited to so many kilobytes per second, if this is not 0.
        min_battery_percent, max_temperature_c: An update begins only on this side of them; 0: not asked for.
        noise_epsilon: Differential privacy of one window's counts; 0: no noise. A person at the device says it alone.
        noise_daily: The most that the windows of one day may use up together.
        false_alarms_per_year: Of drift, at most, while nothing has moved; 0: limits that ask for no rate.
        swap: ``hot``: the new model is loaded beside the old one; ``stop``: after it was stopped; ``auto``: by memory.
    """

    source: str = ""
    window_inferences: int = 1000
    window_s: float = 3600.0
    heartbeat_s: float = 10.0
    update_windows: tuple[str, ...] = ()
    update_clock: str = "local"
    bandwidth_kbps: int = 0
    metered: bool = False
    metered_kbps: int = 0
    min_battery_percent: int = 0
    max_temperature_c: float = 0.0
    swap: str = "auto"
    noise_epsilon: float = 0.0
    noise_daily: float = 48.0
    false_alarms_per_year: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; rules for updates are named where they differ from what every device does."""
        rules = {name: getattr(self, name) for name in POLICY if getattr(self, name) != _DEFAULTS[name]}
        if self.update_windows:
            rules.update(update_windows=list(self.update_windows), update_clock=self.update_clock)
        if self.false_alarms_per_year:
            rules[RATE_SETTING] = self.false_alarms_per_year
        return {
            "source": self.source,
            "window_inferences": self.window_inferences,
            "window_s": self.window_s,
            "heartbeat_s": self.heartbeat_s,
            **rules,
        }


def _count(least: int, most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ContractError(f"{value!r} is not a count from {least} to {most}")
        return value

    return read


def _number(least: float, most: float, unit: str) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        number = as_float(value)
        if not least <= number <= most:
            raise ContractError(f"{number:g} is not between {least:g} and {most:g} {unit}")
        return number

    return read


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ContractError(f"{value!r} is not text")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ContractError(f"{value!r} is not true or false")
    return value


def _among(words: tuple[str, ...]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise ContractError(f"{value!r} is not one of {', '.join(words)}")
        return str(value)

    return read


def _windows(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or len(value) > 20 or not all(isinstance(text, str) for text in value):
        raise ContractError(f"{value!r:.60} is not a list of at most 20 windows")
    for text in value:
        parse_window(text)
    return tuple(value)


_KBPS: Final = _count(0, 10_000_000)
POLICY: Final[Mapping[str, Callable[[Any], Any]]] = {
    "update_windows": _windows,
    "update_clock": _among(("local", "utc")),
    "bandwidth_kbps": _KBPS,
    "metered": _flag,
    "metered_kbps": _KBPS,
    "min_battery_percent": _count(0, 100),
    "max_temperature_c": _number(0.0, 200.0, "°C"),
    "swap": _among(SWAPS),
}
"""Rule for updates → what reads and checks it."""

SETTINGS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "source": _text,
    "window_inferences": _count(10, 10_000_000),
    RATE_SETTING: _number(0.0, 1000.0, "in a year"),
    "window_s": _number(1.0, 30 * 86400.0, "seconds"),
    "heartbeat_s": _number(0.5, 86400.0, "seconds"),
    **POLICY,
}
"""Setting → what reads and checks it."""

_DEFAULTS: Final = {field.name: field.default for field in fields(Settings)}
