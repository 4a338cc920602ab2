# SPDX-License-Identifier: Apache-2.0
"""``/healthz``: the process answers. ``/readyz``: it can do its work: database, broker, room on the disk."""

import shutil
from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import JSONResponse

from edge_contract.errors import StropError
from fleet.adapters.operations import Operations
from fleet.web.site import Site

__all__ = ["MIN_FREE_BYTES", "health_routes", "readiness"]

MIN_FREE_BYTES: Final = 64 * 1024 * 1024


def readiness(operations: Operations, site: Site) -> dict[str, Any]:
    """Return what works, and ``ok`` for all of it."""
    try:
        operations.store.read(lambda db: db.execute("SELECT 1 AS one").fetchone())
        database = True
    except StropError:
        database = False
    free = shutil.disk_usage(site.data).free if site.data else MIN_FREE_BYTES
    found = {"broker": site.broker_is_up(), "database": database, "disk": free >= MIN_FREE_BYTES}
    return {"ok": all(found.values()), **found}


def health_routes(operations: Operations, site: Site) -> APIRouter:
    """Return both routes; they say nothing about the fleet and ask for nobody."""
    router = APIRouter(include_in_schema=False)

    @router.get("/healthz")
    def healthz() -> JSONResponse:
        found = readiness(operations, site)
        return JSONResponse({"ok": True, "broker": found["broker"], "database": found["database"]})

    @router.get("/readyz")
    def readyz() -> JSONResponse:
        found = readiness(operations, site)
        return JSONResponse(found, 200 if found["ok"] else 503)

    return router
