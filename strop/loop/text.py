# SPDX-License-Identifier: Apache-2.0
"""Runs of the loop as text for people."""

import time
from typing import Any

from fleet.commands.options import table
from strop.loop.journal import Run

__all__ = ["one_run", "table_of_runs"]


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds)) if seconds else "–"


def _span(step: dict[str, Any]) -> str:
    """Return how long a step took.

    Example:
        >>> _span({"started_at": 10.0, "ended_at": 85.0}), _span({})
        ('75 s', '')
    """
    if not step.get("ended_at") or not step.get("started_at"):
        return ""
    seconds = step["ended_at"] - step["started_at"]
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _stands(run: Run) -> str:
    at = next((one["name"] for one in run.document["steps"] if one["state"] in ("running", "asking", "failed")), "")
    return f"{run.state} at {at}" if at and run.state != "healed" else run.state


def table_of_runs(runs: list[Run]) -> str:
    """Return a line for each run."""
    if not runs:
        return "no run yet"
    rows = [["RUN", "SIGNAL", "MODEL", "STATE", "BEGUN", "WORDS"]]
    for run in runs:
        begun = _when(run.document["created_at"])
        words = str(run.document["reason"])[:80]
        rows.append([str(run.folder), str(run.number), run.model, _stands(run), begun, words])
    return table(rows)


def one_run(run: Run) -> str:
    """Return a run with its steps and its lineage."""
    rows = [["STEP", "STATE", "TOOK", "WORDS"]]
    for step in run.document["steps"]:
        asks = f"; answer: strop loop approve {run.folder} {step['name']}" if step["state"] == "asking" else ""
        rows.append([step["name"], step["state"], _span(step), f"{step.get('words', '')}{asks}"])
    lineage = [
        f"{name}: {', '.join(value) if isinstance(value, list) else value}" for name, value in run.lineage.items()
    ]
    head = f"{run.folder}: signal {run.number} of {run.model}, {_stands(run)}"
    reason = [str(run.document["reason"])] if run.document["reason"] else []
    left = [f"left behind: {words}" for words in run.document.get("left", [])]
    return "\n".join([head, *reason, *left, table(rows), *lineage])
