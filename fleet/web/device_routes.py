# SPDX-License-Identifier: Apache-2.0
"""Over HTTP: devices, their labels, settings and standing."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from edge_contract.errors import MessageError, UsageError
from edge_contract.fields import Fields
from fleet.adapters import fleet_query, labels, tables, telemetry
from fleet.adapters.database import Connection
from fleet.adapters.operations import Operations
from fleet.core.facts import Known, board_names
from fleet.core.inventory import DeviceRecord
from fleet.core.paging import MAX_LIMIT
from fleet.core.query import parse
from fleet.web import views
from fleet.web.access import Access, Document
from fleet.web.command_routes import command_routes
from fleet.web.faults import not_found
from fleet.web.group_routes import group_routes
from fleet.web.token_routes import token_routes

__all__ = ["device_routes"]

Text = Annotated[str, Query(max_length=2000)]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]
_FEW = 200


def device_routes(router: APIRouter, operations: Operations, access: Access) -> None:
    """Devices and all that belongs to them."""
    _looking(router, operations)
    _labels(router, operations, access)
    _settings(router, operations, access)
    _standing(router, operations, access)
    for group in (token_routes, group_routes, command_routes):
        group(router, operations, access)


def _record(db: Connection, name: str) -> DeviceRecord:
    record = tables.device(db, name)
    if record is None:
        raise not_found(f"device {name!r}")
    return record


def _fields(document: Any, where: str) -> Fields:
    return Fields(document or {}, where, MessageError)


def _looking(router: APIRouter, operations: Operations) -> None:
    store = operations.store

    @router.get("/devices")
    def devices(
        response: Response, q: Text = "", sort: Text = "", limit: Limit = MAX_LIMIT, cursor: Text = ""
    ) -> list[dict[str, Any]]:
        """Devices that fit a query, in pages: the headers x-total-count and x-next-cursor lead on."""
        now, query = operations.clock(), parse(q) if q.strip() else None

        def read(db: Connection) -> tuple[list[dict[str, Any]], dict[str, str]]:
            page = fleet_query.page(db, query, now, sort=sort, limit=limit, cursor=cursor)
            return _rows(db, operations, page.rows, now), page.headers

        rows, headers = store.read(read)
        response.headers.update(headers)
        return rows

    @router.get("/devices/{name}")
    def device(name: str) -> dict[str, Any]:
        def read(db: Connection) -> dict[str, Any]:
            now = operations.clock()
            record = _record(db, name)
            known = next(fleet_query.load(db, None, now, ("group", "tag"), only=name))
            shown = views.device_json(db, record, now, operations.identities.shown(db, name, now))
            rows, results = telemetry.count_rows(db, name), telemetry.result_count(db, name)
            events = views.plain(telemetry.events(db, name, 50))
            more = {**_beside(known), **operations.standings.shown(db, name)}
            return {**shown, **more, "rows": rows, "results": results, "events": events}

        return store.read(read)


def _rows(db: Connection, operations: Operations, page: list[Known], now: float) -> list[dict[str, Any]]:
    every = operations.identities.all_shown(db, now) if len(page) > _FEW else {}
    held = operations.standings.all_shown(db)
    rows = []
    for known in page:
        name = known.record.device
        identity = every.get(name) if every else operations.identities.shown(db, name, now)
        shown = views.device_json(db, known.record, now, identity)
        rows.append({**shown, **_beside(known), **held.get(name, {})})
    return rows


def _beside(known: Known) -> dict[str, Any]:
    names = board_names(known.record.board)
    return {
        "labels": dict(known.tags),
        "groups": list(known.groups),
        "board_name": names[0] if names else "",
        "accelerators": list(known["accelerator"]),
    }


def _labels(router: APIRouter, operations: Operations, access: Access) -> None:
    @router.get("/device-labels")
    def counts() -> dict[str, int]:
        """Labels and tags, with how many devices have each."""
        return operations.store.read(labels.label_counts)

    @router.post("/devices/labels")
    def label(actor: Annotated[str, access.operator], document: Document) -> dict[str, int]:
        f = _fields(document, "labels")
        where, names = f.text("where", ""), f.texts("devices", ())
        put, drop = f.object("put", {}), f.texts("drop", ())
        if bool(where) == bool(names):
            raise UsageError("name devices, or say where", where="labels")
        if where:
            return {"devices": operations.groups.label_where(where, put, drop, actor)}
        return {"devices": operations.groups.label(names, put, drop, actor)}


def _settings(router: APIRouter, operations: Operations, access: Access) -> None:
    @router.get("/devices/{name}/config")
    def explain(name: str) -> dict[str, Any]:
        operations.store.read(lambda db: _record(db, name))
        return dict(views.plain(operations.twin.explain(name)))

    @router.put("/devices/{name}/config")
    def config(actor: Annotated[str, access.operator], name: str, document: Document) -> dict[str, Any]:
        return dict(views.plain(operations.devices.set_config(name, document, actor).to_json()))

    @router.post("/devices/config")
    def config_where(actor: Annotated[str, access.operator], document: Document) -> dict[str, Any]:
        f = _fields(document, "config")
        names = operations.twin.set_where(f.text("where"), f.object("set"), actor)
        return {"devices": len(names), "names": names[:1000]}


def _standing(router: APIRouter, operations: Operations, access: Access) -> None:
    standings = operations.standings

    @router.post("/devices/{name}/revoke")
    def revoke(actor: Annotated[str, access.operator], name: str, document: Document = None) -> dict[str, int]:
        reason = _fields(document, "revocation").text("reason", "")
        return {"revoked": operations.identities.revoke(name, reason, actor)}

    @router.post("/devices/{name}/forgive")
    def forgive(actor: Annotated[str, access.operator], name: str) -> dict[str, str]:
        operations.identities.forgive(name, actor)
        return {"cleared": name}

    @router.post("/devices/{name}/quarantine")
    def quarantine(actor: Annotated[str, access.operator], name: str, document: Document = None) -> dict[str, Any]:
        reason = _fields(document, "quarantine").text("reason", "")
        return {"device": name, **standings.quarantine(name, reason, actor).to_json()}

    @router.post("/devices/{name}/release")
    def release(actor: Annotated[str, access.operator], name: str, document: Document = None) -> dict[str, Any]:
        accept = _fields(document, "release").flag("accept", False)
        return standings.release(name, actor, accept=accept)

    @router.post("/devices/{name}/decommission")
    def decommission(actor: Annotated[str, access.operator], name: str, document: Document = None) -> dict[str, Any]:
        delete = _fields(document, "decommission").flag("delete", False)
        return standings.decommission(name, actor, delete=delete)

    @router.delete("/devices/{name}")
    def remove(actor: Annotated[str, access.operator], name: str) -> dict[str, str]:
        operations.devices.remove(name, actor)
        return {"removed": name}
