# SPDX-License-Identifier: Apache-2.0
"""Over HTTP: enrolment tokens. Their text is told once, when they are made."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from edge_contract.errors import MessageError
from edge_contract.fields import Fields
from fleet.adapters.operations import Operations
from fleet.core.enrolment import DEFAULT_TTL_S, TokenRecord, Wishes, state_of_token
from fleet.core.groups import check_labels
from fleet.web.access import Access, Document

__all__ = ["token_routes"]


def token_routes(router: APIRouter, operations: Operations, access: Access) -> None:
    """Tokens."""
    devices = operations.devices

    @router.post("/tokens")
    def new_token(actor: Annotated[str, access.operator], document: Document = None) -> dict[str, Any]:
        f = Fields(document or {}, "token", MessageError)
        ttl_s, count = f.number("ttl_s", DEFAULT_TTL_S), f.integer("count", 1, minimum=1)
        wishes = Wishes(f.text("batch", ""), f.text("name", ""), check_labels(f.object("labels", {})))
        made = devices.new_tokens(count, ttl_s, wishes, actor)
        tokens = [{"token": text, **_shown(record, operations.clock())} for text, record in made]
        return {"token": made[0][0], "tokens": tokens}

    @router.get("/tokens")
    def tokens(
        actor: Annotated[str, access.operator], batch: Annotated[str, Query(max_length=100)] = ""
    ) -> list[dict[str, Any]]:
        now = operations.clock()
        return [_shown(record, now) for record in devices.tokens(batch)]

    @router.delete("/tokens/{name}")
    def revoke(actor: Annotated[str, access.operator], name: str) -> dict[str, int]:
        return {"revoked": devices.revoke_tokens(name, actor)}


def _shown(record: TokenRecord, now: float) -> dict[str, Any]:
    return {
        "id": record.id,
        "state": state_of_token(record, now),
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "used_at": record.used_at,
        "device": record.device,
        "batch": record.wishes.batch,
        "name": record.wishes.name,
        "labels": dict(record.wishes.labels),
    }
