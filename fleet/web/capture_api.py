# SPDX-License-Identifier: Apache-2.0
"""Captures over HTTP: devices ask for orders and send sealed samples; operators start, look, fetch and delete."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Body
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge_contract.capture import MAX_SAMPLE_BYTES
from fleet.adapters.captures import Captures
from fleet.adapters.identities import Identities
from fleet.adapters.operations import Operations
from fleet.core.capture import Refusal
from fleet.web.access import Access
from fleet.web.faults import body, not_found
from fleet.web.peer import peer_of

__all__ = ["capture_device_routes", "capture_routes"]


def capture_device_routes(captures: Captures, identities: Identities) -> list[Route]:
    """Return what devices ask on their own listener."""

    async def orders(request: Request) -> Response:
        who = await run_in_threadpool(identities.seen, peer_of(request))
        found = await run_in_threadpool(captures.orders, who.device)
        return JSONResponse({"orders": [one.decode() for one in found]})

    async def sample(request: Request) -> Response:
        who = await run_in_threadpool(identities.seen, peer_of(request))
        campaign, number = request.path_params["campaign"], request.path_params["number"]
        sealed = await body(request, MAX_SAMPLE_BYTES)
        taken = await run_in_threadpool(captures.take, campaign, who.device, number, sealed)
        if isinstance(taken, Refusal):
            return JSONResponse({"error": taken.why, "kind": "Capture"}, taken.status)
        return JSONResponse({"sha256": taken, "number": number})

    return [Route("/captures", orders), Route("/captures/{campaign}/{number:int}", sample, methods=["PUT"])]


def capture_routes(router: APIRouter, operations: Operations, access: Access) -> None:
    """Add the operators' routes. Samples are personal data perhaps, so even reading them asks for the token."""
    captures = operations.captures

    @router.get("/captures")
    def shown() -> list[dict[str, Any]]:
        return captures.shown()

    @router.post("/captures", status_code=201)
    def start(actor: Annotated[str, access.operator], document: Annotated[Any, Body()]) -> dict[str, Any]:
        return captures.start(document, actor).to_json()

    @router.get("/captures/{campaign}/samples")
    def samples(actor: Annotated[str, access.operator], campaign: str) -> list[dict[str, Any]]:
        return captures.samples(campaign)

    @router.get("/captures/{campaign}/samples/{device}/{number}")
    def sample(actor: Annotated[str, access.operator], campaign: str, device: str, number: int) -> Response:
        found = captures.sealed(campaign, device, number)
        if found is None:
            raise not_found(f"sample {device}/{number}")
        return Response(found, media_type="application/octet-stream")

    @router.post("/captures/{campaign}/collect")
    def collect(actor: Annotated[str, access.operator], campaign: str) -> dict[str, Any]:
        return captures.collect(campaign).to_json()

    @router.post("/captures/{campaign}/stop")
    def stop(actor: Annotated[str, access.operator], campaign: str) -> dict[str, Any]:
        return captures.stop(campaign, actor).to_json()

    @router.delete("/captures/{campaign}")
    def delete(actor: Annotated[str, access.operator], campaign: str) -> dict[str, Any]:
        return dict(json.loads(json.dumps(captures.delete(campaign, actor))))
