# SPDX-License-Identifier: Apache-2.0
"""Over HTTP: groups of devices and the settings that they give."""

from typing import Annotated, Any

from fastapi import APIRouter

from edge_contract.errors import MessageError
from edge_contract.fields import Fields
from fleet.adapters.group_verbs import group_json, known_group
from fleet.adapters.operations import Operations
from fleet.web import views
from fleet.web.access import Access, Document

__all__ = ["group_routes"]


def _fields(document: Any) -> Fields:
    return Fields(document or {}, "group", MessageError)


def group_routes(router: APIRouter, operations: Operations, access: Access) -> None:
    """Groups."""
    groups = operations.groups

    @router.get("/groups")
    def listed() -> list[dict[str, Any]]:
        return [dict(views.plain(one)) for one in groups.shown()]

    @router.get("/groups/{name}")
    def show(name: str) -> dict[str, Any]:
        return dict(views.plain(groups.show(name)))

    @router.put("/groups/{name}")
    def put(actor: Annotated[str, access.operator], name: str, document: Document) -> dict[str, Any]:
        f = _fields(document)
        priority = f.integer("priority", 0, minimum=-1000)
        groups.new(name, f.text("query", ""), f.texts("devices", ()), min(priority, 1000), actor)
        return dict(views.plain(groups.show(name)))

    @router.post("/groups/{name}/devices")
    def members(actor: Annotated[str, access.operator], name: str, document: Document) -> dict[str, Any]:
        f = _fields(document)
        groups.change_members(name, f.texts("add", ()), f.texts("drop", ()), actor)
        return dict(views.plain(groups.show(name)))

    @router.put("/groups/{name}/config")
    def config(actor: Annotated[str, access.operator], name: str, document: Document) -> dict[str, Any]:
        return dict(views.plain(group_json(groups.set_config(name, document, actor))))

    @router.delete("/groups/{name}")
    def delete(actor: Annotated[str, access.operator], name: str) -> dict[str, str]:
        operations.store.read(lambda db: known_group(db, name))
        groups.delete(name, actor)
        return {"deleted": name}
