# SPDX-License-Identifier: Apache-2.0
"""The pages: rendered here, read with the eyes first. What needs an operator stands at the top."""

from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from edge_contract.states import RolloutState
from fleet.adapters import progress, tables
from fleet.adapters.database import Connection
from fleet.adapters.operations import Operations
from fleet.adapters.roster import Line, Roster
from fleet.adapters.search import SORTS
from fleet.core.rollout import UNDER_WAY, Rollout
from fleet.web import views
from fleet.web.access import Access
from fleet.web.account_pages import account_pages
from fleet.web.alert_routes import alert_pages
from fleet.web.audit_pages import audit_pages
from fleet.web.binder import Binder
from fleet.web.device_pages import device_pages, shown_device
from fleet.web.drift_pages import drift_pages
from fleet.web.enrol_pages import enrol_pages
from fleet.web.log_pages import log_pages
from fleet.web.model_pages import model_pages
from fleet.web.rendering import Renderer
from fleet.web.rollout_pages import rollout_pages, summary
from fleet.web.rollout_start import rollout_start
from fleet.web.site import Site

__all__ = ["pages_router"]

_STOPPED: Final = frozenset({RolloutState.ABORTED, RolloutState.PAUSED, RolloutState.ROLLED_BACK})
_WAITING: Final = frozenset({RolloutState.PENDING_APPROVAL})
_SHOWN_ROLLOUTS: Final = 8
_LOOKED_AT_ROLLOUTS: Final = 40
_SHOWN_DEVICES: Final = 25
_SHOWN_TROUBLES: Final = 6


def _latest(rollouts: list[Rollout]) -> list[Rollout]:
    """A stopped rollout wants attention until a newer one of its model has gone through."""
    latest = {rollout.model: rollout for rollout in reversed(rollouts)}
    return [r for r in latest.values() if r.state in _STOPPED] + [r for r in rollouts if r.state in _WAITING]


def _overview(db: Connection, lines: list[Line], now: float) -> dict[str, Any]:
    by_drift = SORTS["drift"]
    ordered = sorted(lines, key=lambda line: (by_drift(line, now), line.is_online(now), line.device))
    drifting = [line for line in ordered if line.level in ("ALARM", "WARN")]
    rollouts = progress.newest(db, _LOOKED_AT_ROLLOUTS)
    troubles = [shown_device(db, line.device, now) for line in drifting[:_SHOWN_TROUBLES]]
    shown = [one for one in (shown_device(db, line.device, now) for line in ordered[:_SHOWN_DEVICES]) if one]
    return {
        "devices": shown,
        "troubles": [one for one in troubles if one],
        "held": sorted((line for line in lines if line.held), key=lambda line: line.device),
        "count": len(lines),
        "online": sum(line.is_online(now) for line in lines),
        "in_sync": sum(line.in_sync for line in lines),
        "alarms": sum(line.level == "ALARM" for line in lines),
        "drifting": len(drifting),
        "rollouts": [summary(db, rollout) for rollout in rollouts[:_SHOWN_ROLLOUTS]],
        "stopped": [summary(db, rollout) for rollout in _latest(rollouts)[:_SHOWN_TROUBLES]],
        "running": sum(r.state in UNDER_WAY for r in rollouts),
        "versions": versions(db),
    }


def versions(db: Connection) -> dict[str, str]:
    """Return bundle → version."""
    return {version.bundle: version.version for version in tables.models(db)}


def pages_router(operations: Operations, access: Access, renderer: Renderer, roster: Roster, site: Site) -> APIRouter:
    """Return the pages' routes."""
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, dependencies=[access.viewer])
    binder = Binder(router, operations, access, renderer, roster, site)

    @router.get("/")
    def overview(request: Request) -> Response:
        lines, now = binder.roster.lines(), operations.clock()
        found = operations.store.read(lambda db: _overview(db, lines, now))
        # Drift and rollouts have a place of their own above.
        firing = [one for one in operations.alerts.shown()["alerts"] if one["state"] != "pending" and not one["muted"]]
        found["firing"] = [one for one in firing if one["rule"] not in ("drift", "rollout", "quarantine")]
        return binder.page(request, "overview.html", page="fleet", **views.plain(found))

    for group in (
        log_pages,
        device_pages,
        enrol_pages,
        rollout_start,
        rollout_pages,
        model_pages,
        drift_pages,
        audit_pages,
        account_pages,
        alert_pages,
    ):
        group(binder)
    return router
