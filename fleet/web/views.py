# SPDX-License-Identifier: Apache-2.0
"""What is shown of devices and rollouts: one reading of the database, for the API and the pages alike."""

import contextlib
import datetime as dt
import re
from typing import Any, Final

from edge_contract.canonical import as_float
from edge_contract.errors import StropError
from edge_contract.findings import Level, Verdict
from edge_contract.summary import decode
from fleet.adapters import telemetry
from fleet.adapters.database import Connection
from fleet.core.drift import DeviceDrift, DeviceView, Window, view
from fleet.core.inventory import DeviceRecord, is_online, sync_of
from fleet.core.labels import TrueAccuracy, true_accuracy
from fleet.web.charts import Point

__all__ = [
    "device_json",
    "drift_json",
    "drift_of",
    "drift_points",
    "drift_windows",
    "number",
    "plain",
    "truth_of",
]

_SHOWN_WINDOWS: Final = 96
_HEX_FLOAT: Final = re.compile(r"-?0x[01]\.[0-9a-f]+p[+-][0-9]+")
CHART_WINDOWS: Final = 48
MAX_CHART_RESULTS: Final = 20_000
RECENT_RESULTS: Final = 200
"""Results over which the true accuracy is taken where no drift window says how many."""


def number(value: Any) -> float | None:
    """Return a number that may be stored as hex text, None if it is none."""
    try:
        return as_float(value)
    except Exception:
        return None


def plain(value: Any) -> Any:
    """Return a JSON value with canonical hex floats as numbers.

    Example:
        >>> plain({"heartbeat_s": "0x1.4000000000000p+3", "source": "0xdeer"})
        {'heartbeat_s': 10.0, 'source': '0xdeer'}
    """
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, str) and _HEX_FLOAT.fullmatch(value):
        return float.fromhex(value)
    return value


def drift_windows(db: Connection, device: str, limit: int) -> tuple[Window, ...]:
    """Return a device's newest windows, oldest first; one that a newer server wrote is left out."""
    found = []
    for stored in telemetry.windows(db, device, limit):
        with contextlib.suppress(StropError):
            found.append(Window(decode(stored.summary), Verdict.from_json(stored.verdict)))
    return tuple(found)


def drift_of(db: Connection, device: str, limit: int = _SHOWN_WINDOWS) -> tuple[DeviceView, TrueAccuracy | None]:
    """Return what is shown of a device's drift, and the true accuracy over as many results as the window judged."""
    every = drift_windows(db, device, limit)
    # Windows of an earlier model say nothing about this one.
    windows = tuple(w for w in every if w.summary.bundle == every[-1].summary.bundle)
    judged = [w.verdict.n for w in windows if w.verdict.level is not Level.INSUFFICIENT]
    bundle = telemetry.newest_bundle(db, device)
    truth = truth_of(db, device, bundle, judged[-1] if judged else RECENT_RESULTS)
    return view(DeviceDrift(device, windows, truth.value if truth else None)), truth


def truth_of(db: Connection, device: str, bundle: str, recent: int) -> TrueAccuracy | None:
    """Return the true accuracy over a device's newest results of a bundle, None without labels."""
    results = telemetry.results(db, device, limit=max(recent, 1), bundle=bundle)
    return true_accuracy(results, telemetry.labels(db, device, sorted({ref for ref, _ in results})))


def device_json(
    db: Connection, record: DeviceRecord, now: float, identity: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return one device as the API shows it; ``identity`` is its certificate and what speaks for a clone."""
    reported, sync = record.reported, sync_of(record)
    drift, truth = drift_of(db, record.device)
    metric = telemetry.latest(db, record.device, "metric") or {}
    return {
        "device": record.device,
        "online": is_online(record, now),
        "last_seen": record.last_seen,
        "enrolled_at": record.enrolled_at,
        "agent_version": record.agent_version,
        "runtime": record.runtime,
        "runtime_version": record.runtime_version,
        "board": plain(record.board),
        "boot": record.boot,
        "session": record.session,
        "models": {name: state.to_json() for name, state in reported.models.items()} if reported else {},
        "desired": {
            "version": record.desired.version,
            "models": record.desired.models,
            "config": plain(record.desired.config),
        },
        "in_sync": sync.ok,
        "why": sync.why,
        "config": plain(reported.config) if reported else {},
        "desired_version": reported.desired_version if reported else 0,
        "outbox": plain(reported.outbox) if reported else {},
        "health": plain(reported.health) if reported else {},
        "inferences": int(reported.health.get("inferences", 0)) if reported else 0,
        "latency_p50_us": number(metric.get("p50_us")) or drift.latency_p50_us,
        "latency_p95_us": number(metric.get("p95_us")) or drift.latency_p95_us,
        "drift": drift.to_json(),
        "true_accuracy": truth.to_json() if truth else None,
        **(identity or {}),
    }


def drift_json(db: Connection, device: str) -> dict[str, Any]:
    """Return a device's drift with each window's verdict, oldest first."""
    shown, truth = drift_of(db, device)
    windows = [w.verdict.to_json() for w in drift_windows(db, device, _SHOWN_WINDOWS)]
    return {
        **shown.to_json(),
        "windows": telemetry.window_count(db, device),
        "true": truth.to_json() if truth else None,
        "history": windows,
    }


def drift_points(db: Connection, device: str) -> list[Point]:
    """Return a device's windows as points of its chart, oldest first, with the truth of the same span of time."""
    windows = drift_windows(db, device, CHART_WINDOWS)
    if not windows:
        return []
    since = windows[0].summary.start_ms / 1000
    timed = telemetry.timed_results(db, device, since, MAX_CHART_RESULTS)
    known = telemetry.labels(db, device, sorted({ref for _, ref, _ in timed}))
    points = []
    for window in windows:
        start = window.summary.start_ms / 1000
        end = start + window.summary.duration_ms / 1000
        truth = true_accuracy([(ref, cls) for time, ref, cls in timed if start <= time < end], known) if known else None
        v = window.verdict
        accuracies = (v.estimated_accuracy, v.low, v.high, truth.value if truth else None)
        when = dt.datetime.fromtimestamp(end, dt.UTC).strftime("%H:%M:%S")
        points.append(Point(v.level.value.lower(), *accuracies, valid=v.valid, when=f"window {v.window}, {when}"))
    return points
