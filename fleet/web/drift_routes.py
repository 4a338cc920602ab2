# SPDX-License-Identifier: Apache-2.0
"""Over HTTP: what devices have sent, cohorts, windows as rows, and the truth about it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from edge_contract.batches import CLASSES
from edge_contract.errors import UsageError
from fleet.adapters import fleet_query, tables, telemetry
from fleet.adapters.database import Connection
from fleet.adapters.drift_book import checked_grouping
from fleet.adapters.drift_export import window_rows
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

    def chosen(where: str) -> frozenset[str] | None:
        return frozenset(store.read(lambda db: fleet_query.matching(db, where, operations.clock()))) if where else None

    @router.get("/drift/cohorts")
    def cohorts(
        by: Annotated[str, Query(max_length=63)] = "bundle", where: Annotated[str, Query(max_length=2000)] = ""
    ) -> dict[str, Any]:
        found = operations.drift.cohorts(checked_grouping(by), chosen(where))
        return {"by": by, "left": operations.drift.left, "cohorts": [one.to_json() for one in found]}

    @router.get("/drift/cohorts/{bundle}")
    def cohort(
        bundle: str,
        by: Annotated[str, Query(max_length=63)] = "bundle",
        value: Annotated[str, Query(max_length=200)] = "",
    ) -> dict[str, Any]:
        found = operations.drift.detail(bundle, checked_grouping(by), value)
        if found is None:
            raise not_found(f"cohort {by} {value!r} of bundle {bundle[:64]!r}")
        return {**found.view.to_json(), "hours": [one.to_json() for one in found.hours]}

    @router.get("/drift/windows")
    def windows(
        after: Annotated[int, Query(ge=0, le=2**62)] = 0,
        limit: Annotated[int, Query(ge=1, le=2000)] = 500,
        since: Annotated[float, Query(ge=0, le=2**53)] = 0.0,
        where: Annotated[str, Query(max_length=2000)] = "",
    ) -> dict[str, Any]:
        found, last = store.read(lambda db: window_rows(db, after, limit, since, chosen(where)))
        return {"rows": found, "after": last}

    @router.get("/devices/{name}/drift")
    def drift(name: str) -> dict[str, Any]:
        return store.read(lambda db: views.drift_json(db, _record(db, name).device))

    @router.post("/labels")
    def labels(actor: Annotated[str, access.operator], document: Document) -> dict[str, int]:
        device_name, found = read_labels(document)
        return {"stored": operations.devices.add_labels(device_name, found, actor)}
