# SPDX-License-Identifier: Apache-2.0
"""The listener for machines that want to become devices (HTTPS, server certificate only)."""

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge_contract.enrolment import EnrolmentRequest
from edge_contract.renewal import RenewalRequest
from fleet.adapters import ca
from fleet.adapters.operations import Operations
from fleet.web.faults import HANDLERS, body

__all__ = ["enrol_app"]

_MAX_REQUEST_BYTES = 64 * 1024


def enrol_app(operations: Operations) -> Starlette:
    """Return the application: the CA's certificate for everybody, a device certificate for a token or a proof."""

    def ca_pem(_request: Request) -> Response:
        return Response(ca.ca_pem(operations.trust.ca), media_type="application/x-pem-file")

    async def enrol(request: Request) -> JSONResponse:
        asked = EnrolmentRequest.from_bytes(await body(request, _MAX_REQUEST_BYTES))
        answer = await run_in_threadpool(operations.devices.enrol, asked)
        return JSONResponse(answer.to_json())

    async def renew(request: Request) -> JSONResponse:
        asked = RenewalRequest.from_bytes(await body(request, _MAX_REQUEST_BYTES))
        answer = await run_in_threadpool(operations.identities.renew, asked)
        return JSONResponse(answer.to_json())

    routes = [
        Route("/ca.pem", ca_pem),
        Route("/enrol", enrol, methods=["POST"]),
        Route("/renew", renew, methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers=HANDLERS)
