# SPDX-License-Identifier: Apache-2.0
"""Questions to one device by form: a ping, its log, its diagnostics; and the text that came back."""

from typing import Annotated

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from edge_contract.errors import UsageError
from fleet.core.commands import KINDS
from fleet.web import views
from fleet.web.access import posted
from fleet.web.binder import Binder
from fleet.web.rendering import see

__all__ = ["log_pages"]


def log_pages(binder: Binder) -> None:
    """Add the pages. A log may tell much, so it takes an operator to read one."""
    commands, operator = binder.operations.commands, binder.access.operator

    @binder.router.get("/devices/{name}/logs")
    def asked(request: Request, actor: Annotated[str, operator], name: str) -> Response:
        listed = [views.plain(one) for one in commands.listed(name)]
        return binder.page(request, "logs.html", page="devices", name=name, commands=listed, kinds=list(KINDS))

    @binder.router.post("/devices/{name}/logs")
    async def ask(actor: Annotated[str, operator], name: str, form: Annotated[dict[str, str], posted]) -> Response:
        kind = form.get("kind", "")
        if kind not in KINDS:
            raise UsageError(f"unknown question {kind[:20]!r}", fix=f"use {', '.join(KINDS)}")
        await run_in_threadpool(commands.ask, name, kind, None, actor)
        return see(f"/devices/{name}/logs")

    @binder.router.get("/devices/{name}/logs/{command}")
    def text(request: Request, actor: Annotated[str, operator], name: str, command: str) -> Response:
        found = commands.text(name, command)
        return binder.page(request, "log.html", page="devices", name=name, command=command, text=found)
