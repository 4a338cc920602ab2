# SPDX-License-Identifier: Apache-2.0
"""``[updates]`` of ``agent.toml``: when a device lets itself be updated."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edge_agent import toml_words as words
from edge_agent.adapters.conditions import LOCKS, Watched
from edge_contract.errors import UsageError

__all__ = ["rules", "watched"]

_RULES: Final = {
    "windows": "update_windows",
    "clock": "update_clock",
    "metered": "metered",
    "metered_kbps": "metered_kbps",
    "min_battery_percent": "min_battery_percent",
    "max_temperature_c": "max_temperature_c",
    "swap": "swap",
}
"""Key here → setting, which the server may change."""
_FILES: Final = ("lock_file", "lock", "metered_file")


def rules(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the settings that the table names; raises UsageError at an unknown key."""
    words.known(table, (*_RULES, *_FILES), f"{path} [updates]")
    return {_RULES[key]: value for key, value in table.items() if key in _RULES}


def watched(table: Mapping[str, Any], path: Path) -> Watched:
    """Return the files to look at; a relative path begins at the data folder.

    Raises:
        UsageError: A value that does not fit.
    """
    lock = words.text(table, "lock", "flock", path)
    if lock not in LOCKS:
        raise UsageError(f"lock = {lock!r} is unknown", where=str(path), fix=f"use one of {', '.join(LOCKS)}")
    files = {key: words.text(table, key, "", path) for key in ("lock_file", "metered_file")}
    placed = {key: str(path.parent / value) if value else "" for key, value in files.items()}
    return Watched(placed["lock_file"], lock, placed["metered_file"])
