# SPDX-License-Identifier: Apache-2.0
"""Rollouts in lines of text."""

from typing import Any

from fleet.commands.options import percent, table
from fleet.core.pace import pace_words

__all__ = ["line", "shown"]

_COUNTS = (
    ("succeeded", "done"),
    ("open", "at work"),
    ("retry", "again"),
    ("failed", "failed"),
    ("regressed", "went back"),
)


def line(one: dict[str, Any]) -> str:
    """Return a rollout in one line."""
    waves = " ".join(f"{i}:{wave['state']}" for i, wave in enumerate(one["waves"], 1))
    reason = f"  {one['reason']}" if one["reason"] else ""
    return f"{one['id']}  {one['model']} {one['version']}  {one['state']}  {waves}{reason}"


def shown(one: dict[str, Any]) -> str:
    """Return a rollout with its waves and devices."""
    waves = [["WAVE", "KIND", "NAME", "STATE", "DEVICES", "COUNTS", "REASON"]]
    for i, wave in enumerate(one["waves"], 1):
        words = [wave["name"] or "-", wave["state"], str(wave["size"]), _counts(wave), wave["reason"]]
        waves.append([str(i), wave["kind"], *words])
    rows = [["WAVE", "DEVICE", "STATUS", "PHASE", "TRY", "REASON"]]
    rows += [
        [str(e["wave"] + 1), e["device"], e["status"], e["phase"], str(e["attempt"]), e["reason"]]
        for e in one["executions"]
    ]
    parts = [line(one), *pace_words(one.get("limits", {})), table(waves), *_trials(one)]
    return "\n".join([*parts, table(rows)] if len(rows) > 1 else parts)


def _counts(wave: dict[str, Any]) -> str:
    counts = wave["counts"]
    found = [f"{counts[key]} {word}" for key, word in (*_COUNTS, ("excused", "excused")) if counts.get(key)]
    return ", ".join(found) or "none ordered"


def _trials(one: dict[str, Any]) -> list[str]:
    """What shadows said."""
    found = []
    for i, wave in enumerate(one["waves"], 1):
        trial = wave.get("trial")
        if trial and trial["compared"]:
            ratio = f", {trial['latency_ratio']:.2f} times the active latency" if trial["latency_ratio"] else ""
            found.append(f"wave {i}: {percent(trial['agreement'])} of {trial['compared']} inputs agree{ratio}")
    return found
