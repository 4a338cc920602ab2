# SPDX-License-Identifier: Apache-2.0
"""Alerts over HTTP: the API's routes, and the page."""

from typing import Annotated, Any, Final

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from edge_contract.errors import MessageError, UsageError
from edge_contract.fields import Fields
from fleet.adapters.operations import Operations
from fleet.web.access import Access, Document, posted
from fleet.web.binder import Binder
from fleet.web.rendering import see

__all__ = ["alert_pages", "alert_routes"]

_HOUR_S: Final = 3600.0


def alert_routes(router: APIRouter, operations: Operations, access: Access) -> None:
    """What is wrong, mutes, and a test of the receivers."""
    alerts = operations.alerts

    @router.get("/alerts")
    def shown() -> dict[str, Any]:
        return alerts.shown()

    @router.post("/alerts/mutes", status_code=201)
    def mute(actor: Annotated[str, access.operator], document: Document) -> dict[str, Any]:
        f = Fields(document, "mute", MessageError)
        return alerts.mute(f.text("pattern"), f.number("seconds", _HOUR_S), f.text("reason", ""), actor).to_json()

    @router.delete("/alerts/mutes/{mute_id}")
    def unmute(actor: Annotated[str, access.operator], mute_id: str) -> dict[str, str]:
        alerts.unmute(mute_id, actor)
        return {"unmuted": mute_id}

    @router.post("/alerts/test")
    def test(actor: Annotated[str, access.operator]) -> dict[str, int]:
        return {"receivers": alerts.test(actor)}


def alert_pages(binder: Binder) -> None:
    """Add the page and its forms."""
    alerts, operator = binder.operations.alerts, binder.access.operator

    @binder.router.get("/alerts")
    def page(request: Request) -> Response:
        rules, receivers = alerts.settings()
        count = sum(len(listed) for listed in receivers.values())
        return binder.page(request, "alerts.html", page="alerts", rules=rules, receivers=count, **alerts.shown())

    @binder.router.post("/alerts")
    async def do(actor: Annotated[str, operator], form: Annotated[dict[str, str], posted]) -> Response:
        hours = form.get("hours", "1")
        if form.get("do") == "unmute":
            await run_in_threadpool(alerts.unmute, form.get("id", ""), actor)
        elif form.get("do") == "mute" and hours.isdigit():
            words = (form.get("pattern", "").strip(), float(hours) * _HOUR_S, form.get("reason", ""), actor)
            await run_in_threadpool(alerts.mute, *words)
        else:
            raise UsageError("this form cannot be read", fix="give whole hours")
        return see("/alerts")
