# SPDX-License-Identifier: Apache-2.0
"""The page of the audit log: who did what, and whether the chain of digests holds."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from fleet.adapters.audit_book import AuditBook
from fleet.web import views
from fleet.web.binder import Binder

__all__ = ["audit_pages"]

_SHOWN: Final = 100


def audit_pages(binder: Binder) -> None:
    """Add the page."""
    book = AuditBook(binder.operations.store)

    @binder.router.get("/audit")
    def audit(request: Request, q: str = "", before: int = 0) -> Response:
        chain = book.chain()
        found = book.page(text=q.strip()[:200], limit=_SHOWN + 1, before=max(0, min(before, 2**62)))
        shown = [views.plain(entry.to_json()) for entry in found[:_SHOWN]]
        older = found[_SHOWN - 1].number if len(found) > _SHOWN else 0
        return binder.page(
            request, "audit.html", page="audit", entries=shown, chain=chain, q=q, older=older, before=before
        )
