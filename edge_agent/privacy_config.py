# SPDX-License-Identifier: Apache-2.0
"""``[privacy]`` of ``agent.toml``: noise on what drift windows tell. Only a person at the device can write it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edge_agent import toml_words as words
from edge_agent.core.settings import Settings
from edge_contract.errors import UsageError

__all__ = ["read"]

_LEAST: Final = 0.01
_MOST: Final = 100.0


def read(table: Mapping[str, Any], settings: Settings, path: Path) -> Settings:
    """Return the settings with those of noise.

    Raises:
        UsageError: An unknown key, an ε outside 0.01 to 100, or a day's budget below one window's.

    Example:
        >>> found = read({"noise_epsilon": 2}, Settings(), Path("agent.toml"))
        >>> found.noise_epsilon, found.noise_daily
        (2.0, 48.0)
    """
    where = f"{path} [privacy]"
    words.known(table, ("noise_epsilon", "noise_daily"), where)
    epsilon = words.number(table, "noise_epsilon", Settings.noise_epsilon, path) or 0.0
    daily = words.number(table, "noise_daily", Settings.noise_daily, path) or 0.0
    if epsilon and not _LEAST <= epsilon <= _MOST:
        fix = f"give {_LEAST:g} to {_MOST:g}, or 0 for none"
        raise UsageError(f"noise_epsilon = {epsilon:g}", where=where, fix=fix)
    if epsilon and daily < epsilon:
        raise UsageError(f"noise_daily = {daily:g} is less than one window's {epsilon:g}", where=where)
    return replace(settings, noise_epsilon=epsilon, noise_daily=daily)
