# SPDX-License-Identifier: Apache-2.0
"""What the API shows of rollouts: a list by counts, and one with its devices, page by page."""

from typing import Any

from fleet.adapters import rollout_tables, tables
from fleet.adapters.database import Connection
from fleet.core.execution import Execution
from fleet.core.rollout import Rollout
from fleet.core.tally import bucket_of, tally
from fleet.web import views

__all__ = ["detail", "summary"]

_HIDDEN = ("number", "rollout", "past")


def summary(db: Connection, rollout: Rollout) -> dict[str, Any]:
    """Return a rollout without its devices: each wave with its size and how many are where."""
    counts = rollout_tables.tallies(db, rollout.number)
    shown: dict[str, Any] = views.plain(rollout.to_json())
    for i, wave in enumerate(shown["waves"]):
        wave["size"] = len(wave.pop("devices"))
        wave["counts"] = vars(counts[i]) if i in counts else {}
    return shown


def detail(db: Connection, rollout: Rollout, *, bucket: str = "", limit: int = 0, offset: int = 0) -> dict[str, Any]:
    """Return a rollout with its executions.

    Args:
        db: A connection.
        rollout: The rollout.
        bucket: Only those that lie in it, such as ``failed``; empty for all.
        limit: Most executions, 0 for all.
        offset: Leave out so many.
    """
    every = sorted(tables.executions(db, rollout.number).values(), key=lambda e: (e.wave, e.device))
    chosen = [e for e in every if not bucket or bucket_of(e) == bucket][offset:]
    counts, past = tally(every, {}), rollout_tables.history(db, rollout.number)
    shown: dict[str, Any] = views.plain(rollout.to_json())
    for i, wave in enumerate(shown["waves"]):
        wave["size"], wave["counts"] = len(wave["devices"]), vars(counts[i]) if i in counts else {}
        if wave["kind"] == "shadow":
            wave["trial"] = _trial([e for e in [*every, *past] if e.wave == i])
    return {
        **shown,
        "executions": [_execution(e) for e in (chosen[:limit] if limit else chosen)],
        "past": [_execution(e) for e in past],
    }


def _execution(execution: Execution) -> dict[str, Any]:
    shown = views.plain(execution.to_json())
    return {**{key: value for key, value in shown.items() if key not in _HIDDEN}, "bucket": bucket_of(execution)}


def _trial(executions: list[Execution]) -> dict[str, Any]:
    """What a wave's shadows said of the candidate, over all its devices: inputs, agreement, latency ratio."""

    def told(execution: Execution, key: str) -> float:
        value = views.number(execution.details.get(key))
        return 0.0 if value is None else value

    compared = sum(told(e, "compared") for e in executions)
    if not compared:
        return {"compared": 0, "agreement": None, "latency_ratio": None}
    weights = [(told(e, "compared"), e) for e in executions]
    timed = [(n, told(e, "latency_ratio")) for n, e in weights if told(e, "latency_ratio") > 0]
    return {
        "compared": int(compared),
        "agreement": sum(n * told(e, "agreement") for n, e in weights) / compared,
        "latency_ratio": sum(n * r for n, r in timed) / sum(n for n, _ in timed) if timed else None,
    }
