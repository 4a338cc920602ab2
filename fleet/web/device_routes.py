# SPDX-License-Identifier: Apache-2.0
"""Over HTTP: devices and their enrolment."""

from typing import Annotated, Any

from fastapi import APIRouter

from edge_contract.errors import MessageError
from edge_contract.fields import Fields
from fleet.adapters import tables, telemetry
from fleet.adapters.database import Connection
from fleet.adapters.operations import Operations
from fleet.core.enrolment import DEFAULT_TTL_S
from fleet.core.inventory import DeviceRecord
from fleet.web import views
from fleet.web.access import Access, Document
from fleet.web.faults import not_found

__all__ = ["device_routes"]


def _record(db: Connection, name: str) -> DeviceRecord:
    record = tables.device(db, name)
    if record is None:
        raise not_found(f"device {name!r}")
    return record


def device_routes(router: APIRouter, operations: Operations, access: Access) -> None:
    """Devices and their enrolment."""
    store = operations.store

    @router.post("/tokens")
    def new_token(actor: Annotated[str, access.operator], document: Document = None) -> dict[str, str]:
        ttl_s = Fields(document or {}, "token", MessageError).number("ttl_s", DEFAULT_TTL_S)
        return {"token": operations.devices.new_token(ttl_s, actor)}

    @router.get("/devices")
    def devices() -> list[dict[str, Any]]:
        now = operations.clock()

        def read(db: Connection) -> list[dict[str, Any]]:
            shown = operations.identities.all_shown(db, now)
            return [views.device_json(db, one, now, shown.get(one.device)) for one in tables.devices(db)]

        return store.read(read)

    @router.get("/devices/{name}")
    def device(name: str) -> dict[str, Any]:
        def read(db: Connection) -> dict[str, Any]:
            now = operations.clock()
            shown = views.device_json(db, _record(db, name), now, operations.identities.shown(db, name, now))
            rows, results = telemetry.count_rows(db, name), telemetry.result_count(db, name)
            return {**shown, "rows": rows, "results": results, "events": views.plain(telemetry.events(db, name, 50))}

        return store.read(read)

    @router.post("/devices/{name}/revoke")
    def revoke(actor: Annotated[str, access.operator], name: str, document: Document = None) -> dict[str, int]:
        reason = Fields(document or {}, "revocation", MessageError).text("reason", "")
        return {"revoked": operations.identities.revoke(name, reason, actor)}

    @router.post("/devices/{name}/forgive")
    def forgive(actor: Annotated[str, access.operator], name: str) -> dict[str, str]:
        operations.identities.forgive(name, actor)
        return {"cleared": name}

    @router.delete("/devices/{name}")
    def remove(actor: Annotated[str, access.operator], name: str) -> dict[str, str]:
        operations.devices.remove(name, actor)
        return {"removed": name}

    @router.put("/devices/{name}/config")
    def config(actor: Annotated[str, access.operator], name: str, document: Document) -> dict[str, Any]:
        return dict(views.plain(operations.devices.set_config(name, document, actor).to_json()))
