# SPDX-License-Identifier: Apache-2.0
"""Over HTTP: what became of telemetry - hours, retention, and messages that could not be read."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from edge_contract.batches import CLASSES
from fleet.adapters.operations import Operations
from fleet.adapters.retention import known_class
from fleet.web import views
from fleet.web.access import Access

__all__ = ["ingest_routes"]

_MOST = 2**62


def ingest_routes(router: APIRouter, operations: Operations, access: Access) -> None:
    """What became of telemetry."""

    @router.get("/devices/{name}/hours")
    def hours(
        name: str,
        cls: Annotated[str, Query(alias="class")] = "metric",
        since: Annotated[float, Query(ge=0, le=1e12)] = 0.0,
        limit: Annotated[int, Query(ge=1, le=5000)] = 500,
    ) -> dict[str, Any]:
        found = operations.retention.hours(name, known_class(cls, CLASSES), since, limit)
        return {"hours": views.plain(found)}

    @router.delete("/devices/{name}/telemetry")
    def forget(name: str, actor: Annotated[str, access.admin]) -> dict[str, Any]:
        return {"deleted": operations.retention.forget(name, actor)}

    @router.get("/retention")
    def kept() -> dict[str, Any]:
        found: dict[str, Any] = views.plain(operations.retention.kept())
        return found

    @router.get("/dead-letters")
    def letters(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> dict[str, Any]:
        return {"letters": operations.letters.newest(limit)}

    @router.get("/dead-letters/{number}")
    def letter(number: Annotated[int, Path(ge=1, le=_MOST)]) -> dict[str, Any]:
        return operations.letters.show(number)

    @router.post("/dead-letters/{number}/requeue")
    def requeue(number: Annotated[int, Path(ge=1, le=_MOST)], actor: Annotated[str, access.operator]) -> dict[str, Any]:
        return operations.letters.requeue(number, actor)
