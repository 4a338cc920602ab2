# SPDX-License-Identifier: Apache-2.0
"""The operators' listener: API, pages, metrics and health in one application."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles

from fleet.adapters.doors import Doors
from fleet.adapters.operations import Operations
from fleet.adapters.roster import Roster
from fleet.web.access import Gate
from fleet.web.api import api_router
from fleet.web.health import health_routes
from fleet.web.login_pages import login_pages
from fleet.web.metrics import metrics_text
from fleet.web.pages import pages_router
from fleet.web.rendering import Renderer, install_faults
from fleet.web.shield import Shield
from fleet.web.site import Site

__all__ = ["operator_app"]


def operator_app(operations: Operations, site: Site) -> FastAPI:
    """Return the application."""
    accounts = operations.accounts
    doors = Doors(operations.desk, site.file_token, site.rules, accounts.cost)

    def viewing_is_open() -> bool:
        return site.is_local and (site.open_viewing or not accounts.exist())

    gate, renderer = Gate(doors, viewing_is_open), Renderer(operations.clock, viewing_is_open)
    app = FastAPI(
        title="Strop fleet",
        openapi_url=None,  # below: it asks for a viewer
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
    )
    app.state.doors = doors
    install_faults(app, renderer)
    app.add_middleware(Shield, is_tls=site.is_tls)
    app.include_router(api_router(operations, gate.access))
    app.include_router(login_pages(operations, gate, renderer))
    roster = operations.roster
    app.include_router(pages_router(operations, gate.access, renderer, roster, site))
    app.include_router(health_routes(operations, site))
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    _described(app, operations, gate, roster, of_devices=site.device_metrics)
    return app


def _described(app: FastAPI, operations: Operations, gate: Gate, roster: Roster, *, of_devices: bool) -> None:
    """Add the API's description and the metrics."""
    viewer = gate.access.viewer

    @app.get("/api/v1/openapi.json", include_in_schema=False)
    def openapi(actor: Annotated[str, viewer]) -> JSONResponse:
        document: dict[str, Any] = app.openapi()
        return JSONResponse(document)

    @app.get("/metrics", include_in_schema=False)
    def metrics(actor: Annotated[str, viewer]) -> Response:
        text = metrics_text(operations, roster, of_devices=of_devices)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")
