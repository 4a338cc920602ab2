# SPDX-License-Identifier: Apache-2.0
"""What a device asks on its own listener about itself; who it is, the connection's certificate has proved."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fleet.adapters.identities import Identities
from fleet.web.peer import peer_of

__all__ = ["identity_routes"]


def identity_routes(identities: Identities) -> list[Route]:
    """Return the routes; ``/identity`` is the proof that a renewed certificate works."""

    async def identity(request: Request) -> Response:
        seen = await run_in_threadpool(identities.seen, peer_of(request))
        return JSONResponse({"device": seen.device, "serial": seen.serial, "not_after": seen.not_after})

    return [Route("/identity", identity)]
