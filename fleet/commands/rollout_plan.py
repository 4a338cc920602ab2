# SPDX-License-Identifier: Apache-2.0
"""Plans of rollouts as TOML files: read, put into the words of the API, and shown as waves."""

import datetime as dt
import tomllib
from pathlib import Path
from typing import Any, Final

from edge_contract.errors import UsageError
from fleet.commands.options import table
from fleet.core.pace import pace_words

__all__ = ["moment", "plan_text", "read_plan_file"]

_TABLES: Final = ("probation", "shadow", "rate", "offline", "schedule", "gates")
_KEYS: Final = frozenset(
    {
        *(
            "model",
            "version",
            "wave",
            "dynamic",
            "channel",
            "needs_approval",
            "draft",
            "soak_s",
            "timeout_s",
            "grace_s",
        ),
        *("max_failures", "max_failed_share", "min_finished", "max_wave_failed_share", "min_wave_finished"),
        *("finished_share", "retries", "retry_wait_s", "cancel_s", "on_failure", "gate_timeout_s"),
        *_TABLES,
    }
)
_WAVE_KEYS: Final = frozenset({"devices", "count", "percent", "query", "rest", "kind", "name", "soak_s"})


def read_plan_file(path: Path) -> dict[str, Any]:
    """Return a plan in the API's words; ``version`` still has to become a bundle.

    Raises:
        UsageError: The file cannot be read, is no TOML, or has a key that no plan has; file and key are named.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"no TOML: {error}", where=str(path)) from error
    _known(document, _KEYS, str(path))
    waves = document.pop("wave", [])
    if not isinstance(waves, list) or not all(isinstance(wave, dict) for wave in waves):
        raise UsageError("expected tables", where=f"{path}: wave", fix="write [[wave]]")
    for i, wave in enumerate(waves):
        _known(wave, _WAVE_KEYS, f"{path}: wave[{i}]")
    for key in _TABLES:
        if key in document and not isinstance(document[key], dict):
            raise UsageError("expected a table", where=f"{path}: {key}", fix=f"write [{key}]")
    _times(document, path)
    return {**document, **({"waves": waves} if waves else {})}


def _known(table_: dict[str, Any], keys: frozenset[str], where: str) -> None:
    if unknown := sorted(set(table_) - keys):
        raise UsageError(f"unknown key '{unknown[0]}'", where=where, fix=f"use {', '.join(sorted(keys))}")


def _times(document: dict[str, Any], path: Path) -> None:
    schedule = document.get("schedule", {})
    for key in ("start_at", "end_at"):
        if key in schedule:
            schedule[key] = moment(schedule[key], f"{path}: schedule.{key}")


def moment(value: Any, where: str) -> float:
    """Return a time as seconds since 1970: a number, a TOML date with its offset, or such a text.

    Raises:
        UsageError: None of these, or it does not say in which offset from UTC.

    Example:
        >>> moment("2026-11-27T22:00:00+01:00", "start_at")
        1795813200.0
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    fix = "write 2026-11-27T22:00:00+01:00, or …Z for UTC"
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError as error:
            raise UsageError(f"{value!r} is not a time", where=where, fix=fix) from error
    if not isinstance(value, dt.datetime):
        raise UsageError(f"{value!r} is not a time", where=where, fix=fix)
    if value.tzinfo is None:
        raise UsageError(f"{value.isoformat()} does not say its offset from UTC", where=where, fix=fix)
    return value.timestamp()


def plan_text(plan: dict[str, Any]) -> str:
    """Return what a plan would do, for people."""
    rows = [["WAVE", "KIND", "NAME", "DEVICES", "SOAK"]]
    for i, wave in enumerate(plan["waves"], 1):
        soak = plan["limits"]["soak_s"] if wave["soak_s"] is None else wave["soak_s"]
        names = ", ".join(wave["devices"][:4]) + (" …" if len(wave["devices"]) > 4 else "")
        shown = f"{len(wave['devices'])}: {names}" if wave["devices"] else "none"
        rows.append([str(i), wave["kind"], wave["name"] or "-", shown, f"{soak:g} s"])
    lines = [f"{plan['model']} {plan['version']} to {plan['devices']} devices", table(rows)]
    lines += pace_words(plan["limits"])
    if plan["absent"]:
        lines.append(f"{len(plan['absent'])} of them get no order:")
        lines += [f"  {device}: {why}" for device, why in list(plan["absent"].items())[:10]]
    if plan["channel"]:
        lines.append(f"then {plan['model']} {plan['version']} stands in '{plan['channel']}'")
    if plan.get("refused"):
        lines.append(f"  if its rules are met by then; now they are not: {plan['refused']}")
    if plan["needs_approval"]:
        lines.append("somebody else has to approve it: strop fleet rollout approve ID")
    return "\n".join(lines)
