# SPDX-License-Identifier: Apache-2.0
"""What every group of pages needs: the verbs, who may call them, the templates and the devices' lines."""

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from fleet.adapters.operations import Operations
from fleet.adapters.roster import Roster
from fleet.web.access import Access
from fleet.web.rendering import Renderer
from fleet.web.site import Site

__all__ = ["Binder"]


@dataclass(frozen=True)
class Binder:
    """Handed to each group of pages.

    Attributes:
        router: Takes the routes; each of them asks for a viewer at least.
    """

    router: APIRouter
    operations: Operations
    access: Access
    renderer: Renderer
    roster: Roster
    site: Site

    def page(self, request: Request, template: str, number: int = 200, **values: Any) -> Response:
        """Return a rendered page."""
        return self.renderer.page(request, template, number, **values)

    async def show(self, request: Request, template: str, number: int = 200, **values: Any) -> Response:
        """Return a rendered page from a route that waits."""
        return await run_in_threadpool(self.renderer.page, request, template, number, **values)

    async def ask(self, request: Request, **values: Any) -> Response:
        """Return the page that asks once more before something is done.

        Args:
            request: The request.
            **values: ``title``, ``text``, ``verb`` for the button, ``action`` and ``back`` as addresses, and
                ``fields`` that the form carries on.
        """
        return await self.show(request, "confirm.html", **values)
