# SPDX-License-Identifier: Apache-2.0
"""The pages: rendered here, read with the eyes first. What needs an operator stands at the top."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import jinja2
from fastapi import APIRouter
from starlette.responses import HTMLResponse

from edge_contract.states import RolloutState
from fleet.adapters import tables, telemetry
from fleet.adapters.database import Connection
from fleet.adapters.operations import Operations
from fleet.core.audit import first_broken
from fleet.core.inventory import DeviceRecord
from fleet.core.rollout import Rollout
from fleet.web import views
from fleet.web.charts import accuracy_bar, drift_chart
from fleet.web.faults import not_found

__all__ = ["pages_router"]

_LEVELS: Final = {"alarm": 0, "warn": 1, "ok": 2, "insufficient": 3}
_LEVEL_WORDS: Final = {"alarm": "drift alarm", "warn": "unusual", "ok": "as usual", "insufficient": "collecting"}
_STOPPED: Final = frozenset({RolloutState.ABORTED, RolloutState.PAUSED, RolloutState.ROLLED_BACK})
_SHOWN_STOPPED: Final = 3


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as a percentage.

    Example:
        >>> percent(0.9712), percent(None)
        ('97.1 %', '–')
    """
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def latency(us: float | None) -> str:
    """Return microseconds in a unit that can be read.

    Example:
        >>> latency(431.0), latency(12_345.0), latency(None)
        ('431 µs', '12.3 ms', '–')
    """
    if us is None:
        return "–"
    return f"{us:.0f} µs" if us < 1000 else f"{us / 1000:.3g} ms"


def size(count: float) -> str:
    """Return bytes in a unit that can be read.

    Example:
        >>> size(512), size(20_480)
        ('512 B', '20.5 kB')
    """
    for limit, unit in ((1e3, "B"), (1e6, "kB"), (1e9, "MB")):
        if count < limit:
            return f"{count * 1e3 / limit:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
    return f"{count / 1e9:.3g} GB"


def ago(now: float, then: float) -> str:
    """Return how long ago something was.

    Example:
        >>> ago(100.0, 97.0), ago(5000.0, 1000.0), ago(5.0, 0.0)
        ('3 s ago', '1 h ago', 'never')
    """
    if not then:
        return "never"
    gone = max(0.0, now - then)
    for limit, unit in ((60, "s"), (3600, "min"), (86_400, "h")):
        if gone < limit:
            return f"{gone / {'s': 1, 'min': 60, 'h': 3600}[unit]:.0f} {unit} ago"
    return f"{gone / 86_400:.0f} d ago"


def moment(seconds: float) -> str:
    """Return a time in UTC.

    Example:
        >>> moment(0.0)
        '1970-01-01 00:00:00'
    """
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")


def _environment(clock: Callable[[], float]) -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(percent=percent, latency=latency, size=size, moment=moment, short=lambda text: text[:8])
    environment.filters["ago"] = lambda then: ago(clock(), then)
    environment.globals.update(accuracy_bar=accuracy_bar, level_words=_LEVEL_WORDS)
    return environment


def _progress(db: Connection, rollout: Rollout) -> dict[str, Any]:
    """Return a rollout with, for each wave, how many devices are where."""
    shown = views.rollout_json(db, rollout)
    for i, wave in enumerate(shown["waves"]):
        mine = [e for e in shown["executions"] if e["wave"] == i]
        wave["done"] = sum(e["status"] == "SUCCEEDED" for e in mine)
        wave["failed"] = sum(e["status"] in ("FAILED", "TIMED_OUT", "REJECTED") for e in mine)
        wave["total"] = len(wave["devices"])
        wave["executions"] = mine
    return shown


def _shown(db: Connection, record: DeviceRecord, now: float) -> dict[str, Any]:
    """Return a device as a page shows it: its drift level in the style sheet's words."""
    shown = views.device_json(db, record, now)
    shown["drift"]["level"] = shown["drift"]["level"].lower()
    return shown


def _versions(db: Connection) -> dict[str, str]:
    return {version.bundle: version.version for version in tables.models(db)}


def _overview(db: Connection, now: float) -> dict[str, Any]:
    devices = [_shown(db, record, now) for record in tables.devices(db)]
    devices.sort(key=lambda d: (_LEVELS.get(d["drift"]["level"], 9), d["online"], d["device"]))
    rollouts = [_progress(db, rollout) for rollout in tables.rollouts(db)]
    # A stopped rollout wants attention until a newer one of its model has gone through.
    latest = {rollout["model"]: rollout for rollout in reversed(rollouts)}
    stopped = [r for r in latest.values() if r["state"] in _STOPPED][:_SHOWN_STOPPED]
    drifting = [d for d in devices if d["drift"]["level"] in ("alarm", "warn")]
    return {
        "devices": devices,
        "rollouts": rollouts[:8],
        "stopped": stopped,
        "drifting": drifting,
        "offline": [d for d in devices if not d["online"]],
        "versions": _versions(db),
        "running": sum(r["state"] == "RUNNING" for r in rollouts),
    }


def _device_page(db: Connection, name: str, now: float) -> dict[str, Any] | None:
    record = tables.device(db, name)
    if record is None:
        return None
    shown = _shown(db, record, now)
    points = views.drift_points(db, name)
    return {
        "device": shown,
        "rows": telemetry.count_rows(db, name),
        "results": telemetry.result_count(db, name),
        "events": [_event(row) for row in views.plain(telemetry.events(db, name, 30))],
        "chart": drift_chart(points, shown["drift"]["reference_accuracy"]) if points else "",
        "windows": len(points),
        "versions": _versions(db),
    }


def _event(row: dict[str, Any]) -> dict[str, Any]:
    """Return an event in words: its kind, and the rest as ``key value``; what is long or nested stays out."""
    body = dict(row["body"])
    verdict = body.get("verdict")
    reason = body.pop("reason", "") or (verdict.get("reason", "") if isinstance(verdict, dict) else "")
    kind = str(body.pop("kind", row["class"]))
    words = [f"{key} {str(value)[:12]}" for key, value in body.items() if isinstance(value, (str, int)) and value != ""]
    return {"class": row["class"], "time": row["time"], "kind": kind, "words": words, "reason": str(reason)}


def pages_router(operations: Operations) -> APIRouter:
    """Return the pages' routes."""
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    store, clock = operations.store, operations.clock
    environment = _environment(clock)

    def render(template: str, **values: Any) -> HTMLResponse:
        return HTMLResponse(environment.get_template(template).render(now=clock(), **values))

    @router.get("/")
    def overview() -> HTMLResponse:
        return render("overview.html", page="fleet", **store.read(lambda db: _overview(db, clock())))

    @router.get("/devices/{name}")
    def device(name: str) -> HTMLResponse:
        found = store.read(lambda db: _device_page(db, name, clock()))
        if found is None:
            raise not_found(f"device {name!r}")
        return render("device.html", page="fleet", **found)

    @router.get("/rollouts/{name}")
    def rollout(name: str) -> HTMLResponse:
        def read(db: Connection) -> dict[str, Any] | None:
            known = tables.rollout(db, name)
            return _progress(db, known) if known else None

        found = store.read(read)
        if found is None:
            raise not_found(f"rollout {name!r}")
        return render("rollout.html", page="fleet", rollout=found)

    @router.get("/models")
    def models() -> HTMLResponse:
        def read(db: Connection) -> list[dict[str, Any]]:
            records = tables.devices(db)
            return [views.plain(views.model_json(version, records)) for version in tables.models(db)]

        return render("models.html", page="models", models=store.read(read))

    @router.get("/audit")
    def audit() -> HTMLResponse:
        entries = store.read(tables.all_audit)
        broken = first_broken(reversed(entries))
        shown = [views.plain(entry.to_json()) for entry in entries[:200]]
        return render("audit.html", page="audit", entries=shown, broken=broken, total=len(entries))

    return router
