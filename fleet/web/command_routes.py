# SPDX-License-Identifier: Apache-2.0
"""Over HTTP: commands to devices, their answers, and the logs that they bring. Logs may tell much: an operator's."""

from typing import Annotated, Any

from fastapi import APIRouter
from starlette.responses import PlainTextResponse

from fleet.adapters.operations import Operations
from fleet.web import views
from fleet.web.access import Access, Document

__all__ = ["command_routes"]


def command_routes(router: APIRouter, operations: Operations, access: Access) -> None:
    """Commands."""
    commands = operations.commands

    @router.get("/devices/{name}/commands")
    def listed(actor: Annotated[str, access.operator], name: str) -> list[dict[str, Any]]:
        return [dict(views.plain(one)) for one in commands.listed(name)]

    @router.post("/devices/{name}/commands/{kind}", status_code=202)
    def ask(actor: Annotated[str, access.operator], name: str, kind: str, document: Document = None) -> dict[str, Any]:
        asked = commands.ask(name, kind, document, actor)
        return {"id": asked.id, "device": name, "kind": kind, "deadline": asked.deadline}

    @router.get("/devices/{name}/commands/{command}")
    def show(actor: Annotated[str, access.operator], name: str, command: str) -> dict[str, Any]:
        return dict(views.plain(commands.show(name, command)))

    @router.get("/devices/{name}/commands/{command}/text")
    def text(actor: Annotated[str, access.operator], name: str, command: str) -> PlainTextResponse:
        return PlainTextResponse(commands.text(name, command))
