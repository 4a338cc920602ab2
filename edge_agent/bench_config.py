# SPDX-License-Identifier: Apache-2.0
"""``[bench]`` of ``agent.toml``: whether the fleet may measure here. Only a person at the device can write it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent import toml_words as words
from edge_contract.errors import UsageError

__all__ = ["BenchRules", "read"]


@dataclass(frozen=True)
class BenchRules:
    """What a person at the device allows.

    Attributes:
        allow: Signed orders may measure models here.
        unregistered: Also files that no targets key has signed, such as candidates of a search.
        max_minutes: Longest time of one measurement.
        max_mb: Most megabytes on the disk for one.
    """

    allow: bool = False
    unregistered: bool = False
    max_minutes: int = 60
    max_mb: int = 500


def read(table: Mapping[str, Any], path: Path) -> BenchRules:
    """Return the rules of a table.

    Raises:
        UsageError: An unknown key, or a value that is not true or false, or no whole number above 0.

    Example:
        >>> read({"allow": True}, Path("agent.toml"))
        BenchRules(allow=True, unregistered=False, max_minutes=60, max_mb=500)
    """
    where = f"{path} [bench]"
    words.known(table, ("allow", "unregistered", "max_minutes", "max_mb"), where)
    flags = []
    for name in ("allow", "unregistered"):
        value = table.get(name, False)
        if not isinstance(value, bool):
            raise UsageError(f"{name} = {value!r} is not true or false", where=where)
        flags.append(value)
    minutes = words.whole(table, "max_minutes", BenchRules.max_minutes, 1, path)
    return BenchRules(flags[0], flags[1], minutes, words.whole(table, "max_mb", BenchRules.max_mb, 1, path))
