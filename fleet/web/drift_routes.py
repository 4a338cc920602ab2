# SPDX-License-Identifier: Apache-2.0
"""Over HTTP: what devices have sent, and the truth about it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from edge_contract.batches import CLASSES
from edge_contract.errors import UsageError
from fleet.adapters import tables, telemetry
from fleet.adapters.database import Connection
from fleet.adapters.operations import Operations
from fleet.core.inventory import DeviceRecord
from fleet.core.labels import read_labels
from fleet.web import views
from fleet.web.access import Access, Document
from fleet.web.faults import not_found

__all__ = ["drift_routes"]


def _record(db: Connection, name: str) -> DeviceRecord:
    record = tables.device(db, name)
    if record is None:
        raise not_found(f"device {name!r}")
    return record


def drift_routes(router: APIRouter, operations: Operations, access: Access) -> None:
    """What devices have sent, and the truth about it."""
    store = operations.store

    @router.get("/devices/{name}/telemetry")
    def rows(
        name: str,
        cls: Annotated[str, Query(alias="class")] = "result",
        after: Annotated[int, Query(ge=0, le=2**62)] = 0,
        limit: Annotated[int, Query(ge=1, le=5000)] = 500,
    ) -> dict[str, Any]:
        if cls not in CLASSES:
            raise UsageError(f"unknown class {cls[:40]!r}", fix=f"use one of {', '.join(CLASSES)}")
        found = store.read(lambda db: (_record(db, name), telemetry.rows(db, name, cls, after, limit))[1])
        return {"rows": views.plain(found), "after": found[-1]["id"] if found else after}

    @router.get("/devices/{name}/drift")
    def drift(name: str) -> dict[str, Any]:
        return store.read(lambda db: views.drift_json(db, _record(db, name).device))

    @router.post("/labels")
    def labels(actor: Annotated[str, access.operator], document: Document) -> dict[str, int]:
        device_name, found = read_labels(document)
        return {"stored": operations.devices.add_labels(device_name, found, actor)}
