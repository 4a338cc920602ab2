# SPDX-License-Identifier: Apache-2.0
"""Desired state against the state in force: which settings the server may change, and which words are refused."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from edge_contract.canonical import as_float
from edge_contract.errors import ContractError
from edge_contract.messages import DesiredState

__all__ = ["SETTINGS", "Settings", "Twin", "apply_desired", "merge"]


@dataclass(frozen=True)
class Settings:
    """The settings in force.

    Attributes:
        source: Name of the declared source that feeds the runner; empty means none.
        window_inferences: A drift window closes after this many inferences,
        window_s: or after this many seconds, if it saw any.
        heartbeat_s: Seconds between two reports.
    """

    source: str = ""
    window_inferences: int = 200
    window_s: float = 3600.0
    heartbeat_s: float = 10.0

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "source": self.source,
            "window_inferences": self.window_inferences,
            "window_s": self.window_s,
            "heartbeat_s": self.heartbeat_s,
        }


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 10 <= value <= 10_000_000:
        raise ContractError(f"{value!r} is not a count from 10 to 10000000")
    return value


def _seconds(least: float, most: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        seconds = as_float(value)
        if not least <= seconds <= most:
            raise ContractError(f"{seconds:g} is not between {least:g} and {most:g} seconds")
        return seconds

    return read


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ContractError(f"{value!r} is not text")
    return value


SETTINGS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "source": _text,
    "window_inferences": _count,
    "window_s": _seconds(1.0, 30 * 86400.0),
    "heartbeat_s": _seconds(0.5, 86400.0),
}
"""Setting → what reads and checks it."""


@dataclass(frozen=True)
class Twin:
    """The last desired state that was taken over, and why parts of it were not."""

    version: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)


def merge(defaults: Settings, config: Mapping[str, Any], sources: frozenset[str]) -> tuple[Settings, dict[str, str]]:
    """Return the settings in force, and per refused word the reason.

    Example:
        >>> merge(Settings(), {"heartbeat_s": 5, "colour": "red"}, frozenset())[1]
        {'colour': 'unknown setting'}
    """
    accepted: dict[str, Any] = {}
    ignored: dict[str, str] = {}
    for name, value in config.items():
        read = SETTINGS.get(name)
        if read is None:
            ignored[name] = "unknown setting"
            continue
        try:
            accepted[name] = read(value)
        except ContractError as error:
            ignored[name] = error.what
    source = accepted.get("source", "")
    if source and source not in sources:
        declared = ", ".join(sorted(sources)) or "none"
        ignored["source"] = f"{source!r} is not declared in agent.toml (declared: {declared})"
        del accepted["source"]
    return replace(defaults, **accepted), ignored


def apply_desired(
    twin: Twin, desired: DesiredState, defaults: Settings, sources: frozenset[str]
) -> tuple[Twin, Settings] | None:
    """Return the new twin and settings, or None if this version was seen before or is older.

    Example:
        >>> seen = Twin(version=4)
        >>> apply_desired(seen, DesiredState(4, {}, {}), Settings(), frozenset()) is None
        True
    """
    if desired.version <= twin.version:
        return None
    settings, ignored = merge(defaults, desired.config, sources)
    return Twin(desired.version, dict(desired.config), ignored), settings
