# SPDX-License-Identifier: Apache-2.0
"""Drift windows as flat rows: what pandas, Evidently or a spreadsheet read."""

import json
from contextlib import suppress
from typing import Any, Final

from edge_contract.counts import Counters, latency_quantile_us
from edge_contract.errors import StropError
from edge_contract.findings import Verdict
from edge_contract.summary import DriftSummary, decode
from fleet.adapters import tables
from fleet.adapters.database import Connection

__all__ = ["window_rows"]

_NAMES: Final = {"class×confidence": "class_confidence", "max-prob": "max_prob"}
"""Channels whose names are no names of columns."""


def window_rows(
    db: Connection, after: int, limit: int, since: float = 0.0, devices: frozenset[str] | None = None
) -> tuple[list[dict[str, Any]], int]:
    """Return rows with ids above ``after``, and the last id that was looked at.

    Args:
        db: A connection.
        after: Id of the last row that was given.
        limit: Most rows.
        since: Seconds since 1970; older windows are left out.
        devices: Only these; None for all.
    """
    versions = {one.bundle: (one.model, one.version) for one in tables.models(db)}
    statement = "SELECT * FROM windows WHERE id > ? AND time >= ? ORDER BY id LIMIT ?"
    found, last = [], after
    for row in db.execute(statement, (after, since, limit)).fetchall():
        last = int(row["id"])
        if devices is not None and row["device"] not in devices:
            continue
        with suppress(StropError, ValueError):  # of a newer server
            found.append(_flat(row, *versions.get(row["bundle"], ("", ""))))
    return found, last


def _flat(row: Any, model: str, version: str) -> dict[str, Any]:
    told = json.loads(bytes(row["verdict"]))
    summary, verdict = decode(bytes(row["summary"])), Verdict.from_json(told)
    flat: dict[str, Any] = {
        "device": row["device"],
        "model": model,
        "version": version,
        "bundle": row["bundle"],
        "profile": f"{summary.profile_crc:08x}",
        "window": summary.window,
        "start": summary.start_ms / 1000,
        "duration": summary.duration_ms / 1000,
        "n": verdict.n,
        "n_eff": verdict.n_eff,
        "level": row["level"],
        "p_family": verdict.p_family,
        "reason": verdict.reason,
        "inputs": str((told.get("inputs") or {}).get("against", "")),
        "reference_accuracy": verdict.reference_accuracy,
        "estimated_accuracy": verdict.estimated_accuracy,
        "estimated_low": verdict.low,
        "estimated_high": verdict.high,
        "estimated_valid": verdict.valid,
    }
    for one in verdict.channels:
        name = _NAMES.get(one.name, one.name)
        flat |= {f"{name}_p": one.p, f"{name}_effect": one.effect, f"{name}_cusum": one.cusum}
    return flat | _board(summary) | _counters(summary.counters)


def _board(summary: DriftSummary) -> dict[str, Any]:
    warm = summary.health.temperature_c
    return {
        "latency_p50_us": latency_quantile_us(summary.counters.latency, 0.5),
        "latency_p95_us": latency_quantile_us(summary.counters.latency, 0.95),
        "temperature_c": warm[1] if warm else None,
        "throttled": summary.health.throttled,
    }


def _counters(c: Counters) -> dict[str, Any]:
    """The counters themselves: whoever wants another test makes it from these."""
    lists = ("cells", "confidence", "energy", "brightness", "contrast", "sharpness", "latency")
    return {
        "n_infer": c.n_infer,
        "n_err": c.n_err,
        "n_drop": c.n_drop,
        "classes": list(c.classes),
        **{f"{name}_counts": list(getattr(c, name)) for name in lists},
    }
