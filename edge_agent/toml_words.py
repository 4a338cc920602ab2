# SPDX-License-Identifier: Apache-2.0
"""Read ``agent.toml`` word by word: each fault names the key, the file and the fix."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_contract.errors import UsageError
from edge_contract.topics import is_name

__all__ = ["known", "name", "number", "table", "text", "whole"]


def known(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    """Raise UsageError at the first key of a table that is not among those that we know."""
    for key in table:
        if key not in keys:
            raise UsageError(f"unknown key '{key}'", where=where, fix=f"use one of {', '.join(keys)}")


def table(document: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    """Return a table below a key, empty if it is missing; raises UsageError if it is something else."""
    found = document.get(key, {})
    if not isinstance(found, dict):
        raise UsageError(f"'{key}' is not a table", where=str(path), fix=f"write [{key}]")
    return found


def text(table: Mapping[str, Any], key: str, default: str, path: Path) -> str:
    """Return a text; raises UsageError if it is none."""
    value = table.get(key, default)
    if not isinstance(value, str):
        raise UsageError(f"{key} = {value!r} is not text", where=str(path), fix=f'write {key} = "…"')
    return value


def name(table: Mapping[str, Any], key: str, default: str, path: Path, *, may_be_empty: bool = False) -> str:
    """Return a text that may stand in a topic and a path; raises UsageError if it may not."""
    value = text(table, key, default, path)
    if not (is_name(value) or (may_be_empty and not value)):
        fix = "use letters, digits, '.', '_' and '-', at most 63"
        raise UsageError(f"{key} = {value!r} is no name", where=str(path), fix=fix)
    return value


def whole(table: Mapping[str, Any], key: str, default: int, least: int, path: Path) -> int:
    """Return a whole number; raises UsageError if it is none, or too small."""
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{key} = {value!r} is not a whole number from {least}", where=str(path))
    return value


def number(table: Mapping[str, Any], key: str, default: float | None, path: Path) -> float | None:
    """Return a number from 0, the default if it is missing; raises UsageError if it is none."""
    value = table.get(key, default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise UsageError(f"{key} = {value!r} is not a number from 0", where=str(path))
    return float(value)
