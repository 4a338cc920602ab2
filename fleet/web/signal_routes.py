# SPDX-License-Identifier: Apache-2.0
"""Over HTTP: signals to train a model again, who works on one, and how it was closed."""

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.responses import Response

from edge_contract.errors import MessageError
from edge_contract.fields import Fields
from fleet.adapters.operations import Operations
from fleet.web.access import Access, Document

__all__ = ["signal_routes"]

Number = Annotated[int, Path(ge=1, le=2**62)]


def signal_routes(router: APIRouter, operations: Operations, access: Access) -> None:
    """Drift signals: list, show, take, leave, close."""
    signals = operations.signals

    @router.get("/drift/signals")
    def listed(every: bool = False) -> list[dict[str, Any]]:  # noqa: FBT001, FBT002 - a query parameter
        return signals.listed(every=every)

    @router.get("/drift/signals/{number}")
    def show(number: Number) -> dict[str, Any]:
        return signals.show(number)

    @router.get("/drift/signals/{number}/profile")
    def profile(number: Number) -> Response:
        return Response(signals.profile(number), media_type="application/json")

    @router.get("/drift/signals/{number}/windows")
    def windows(number: Number) -> dict[str, list[str]]:
        return {"summaries": [base64.b64encode(one).decode() for one in signals.windows(number)]}

    @router.post("/drift/signals/{number}/take")
    def take(actor: Annotated[str, access.operator], number: Number, document: Document) -> dict[str, Any]:
        f = Fields(document, "take", MessageError)
        return signals.take(number, f.text("holder"), f.number("seconds", 600.0), actor)

    @router.post("/drift/signals/{number}/leave")
    def leave(actor: Annotated[str, access.operator], number: Number, document: Document) -> dict[str, Any]:
        f = Fields(document, "leave", MessageError)
        return signals.leave(number, f.text("holder"), f.text("reason"), actor)

    @router.post("/drift/signals/{number}/close")
    def close(actor: Annotated[str, access.operator], number: Number, document: Document) -> dict[str, Any]:
        f = Fields(document, "close", MessageError)
        outcome, reason, holder = f.text("outcome"), f.text("reason"), f.text("holder", "")
        return signals.close(number, outcome, reason, actor, holder=holder)
