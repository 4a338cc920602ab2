# SPDX-License-Identifier: Apache-2.0
"""Over HTTP: the audit log, a part of it or all of it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response, StreamingResponse

from fleet.adapters.audit_book import AuditBook
from fleet.adapters.operations import Operations
from fleet.web import views
from fleet.web.access import Access

__all__ = ["audit_routes"]


def audit_routes(router: APIRouter, operations: Operations, access: Access) -> None:
    """The audit log. Whoever may look may see who did what; nothing in it is a secret."""
    book = AuditBook(operations.store)

    @router.get("/audit")
    def audit(
        limit: Annotated[int, Query(ge=1, le=10_000)] = 200,
        before: Annotated[int, Query(ge=0, le=2**62)] = 0,
        q: Annotated[str, Query(max_length=200)] = "",
    ) -> dict[str, Any]:
        found = book.page(text=q, limit=limit, before=before)
        return {**book.chain().to_json(), "entries": [views.plain(entry.to_json()) for entry in found]}

    @router.get("/audit/export")
    def export() -> Response:
        return StreamingResponse(book.lines(), media_type="application/x-ndjson")
