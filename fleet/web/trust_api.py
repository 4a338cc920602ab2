# SPDX-License-Identifier: Apache-2.0
"""The operators' view of the TUF repository: what is published, when it ends, and the next online key."""

from typing import Annotated, Any

from fastapi import APIRouter, Body

from edge_contract.errors import MessageError
from edge_contract.fields import Fields
from fleet.adapters.operations import Operations
from fleet.web.access import Access

__all__ = ["trust_routes"]


def trust_routes(router: APIRouter, operations: Operations, access: Access) -> None:
    """Add the routes; ``change`` is the dependency that asks for the operator's token."""
    tuf = operations.trust.tuf

    @router.get("/trust")
    def shown() -> dict[str, Any]:
        return tuf.shown()

    @router.post("/trust/online-key")
    def next_key(actor: Annotated[str, access.operator], document: Annotated[Any, Body()] = None) -> dict[str, str]:
        anew = Fields(document or {}, "online key", MessageError).flag("anew", False)
        return {"public": operations.models.next_online_key(actor, anew=anew).decode()}
