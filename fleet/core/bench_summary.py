# SPDX-License-Identifier: Apache-2.0
"""What a table shows of a result in the form ``edgebench/1``, read with care: it comes from a device. Pure."""

import math
from collections.abc import Mapping
from typing import Any

from edge_contract.errors import MessageError
from edge_contract.fields import Fields

__all__ = ["as_number", "summary"]


def as_number(value: Any) -> float | None:
    """Return a finite number of a foreign document, None if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < math.inf:
        return None
    return float(value)


def summary(document: Any) -> dict[str, Any]:
    """Return what a table shows of a result in the form ``edgebench/1``; what is missing there is missing here.

    Times are milliseconds: the median of a run with its 95 % interval, and the bound of p90 and p99 where the
    result dares to give one.

    Raises:
        MessageError: It is no such result.

    Example:
        >>> total = {"p50": 2500.0, "p50_ci95": [2400.0, 2600.0]}
        >>> found = summary({"schema": "edgebench/1", "status": "valid", "latency_us": {"total": total}})
        >>> found["status"], found["p50_ms"], found["p50_ci95_ms"]
        ('valid', 2.5, [2.4, 2.6])
    """
    f = Fields(document, "result", MessageError)
    f.text("schema", among=("edgebench/1",))
    stages = f.object("latency_us", {})
    stage = next((name for name in _stages(document) if isinstance(stages.get(name), dict)), "")
    times: Mapping[str, Any] = stages.get(stage, {})
    found: dict[str, Any] = {"status": f.text("status", ""), "stage": stage, "reasons": _reasons(document)}
    for name, key in (("p50_ms", "p50"), ("p90_ub99_ms", "p90_ub99"), ("p99_ub99_ms", "p99_ub99")):
        if (value := as_number(times.get(key))) is not None:
            found[name] = value / 1000
    interval = times.get("p50_ci95")
    if isinstance(interval, list) and len(interval) == 2 and all(as_number(one) is not None for one in interval):
        found["p50_ci95_ms"] = [float(one) / 1000 for one in interval]
    found.update(_named(document))
    return found


def _stages(document: Mapping[str, Any]) -> tuple[str, str]:
    """Return which stage stands for a result: the model alone where it ran bare, else the whole way."""
    scenario = document.get("scenario")
    words = scenario if isinstance(scenario, dict) else {}
    is_whole = words.get("mode") != "bare" or words.get("name") == "paced"
    return ("total", "invoke") if is_whole else ("invoke", "total")


def _reasons(document: Mapping[str, Any]) -> list[str]:
    given = document.get("reasons")
    words = [one.get("words", one.get("kind", "")) if isinstance(one, dict) else one for one in given or ()]
    return [str(one)[:300] for one in words][:8] if isinstance(given, list) else []


def _named(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return board, runtime, runs and accuracy as the result calls them."""
    places = {
        "board": ("device", "board"),
        "runtime": ("runtime", "name"),
        "runtime_version": ("runtime", "version"),
        "threads": ("runtime", "threads"),
        "artefact": ("artifact", "sha256"),
        "launches": ("counts", "launches"),
        "runs": ("counts", "measured"),
        "metric": ("quality", "metric"),
        "quality": ("quality", "value"),
    }
    found = {}
    for name, (table, key) in places.items():
        inside = document.get(table)
        value = inside.get(key) if isinstance(inside, dict) else None
        if isinstance(value, str) or as_number(value) is not None:
            found[name] = value[:200] if isinstance(value, str) else value
    return found
