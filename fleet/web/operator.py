# SPDX-License-Identifier: Apache-2.0
"""The operators' listener: API, pages, metrics and health in one application."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles

from fleet.adapters.operations import Operations
from fleet.web.access import token_access
from fleet.web.api import api_router
from fleet.web.faults import HANDLERS
from fleet.web.metrics import metrics_text
from fleet.web.pages import pages_router

__all__ = ["operator_app"]

_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return JSONResponse({"error": f"{where}: {first['msg']}", "kind": "Request"}, 400)


async def _guarded(request: Request, call_next: RequestResponseEndpoint) -> Response:
    response = await call_next(request)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def operator_app(operations: Operations, token: str, *, broker_is_up: Callable[[], bool]) -> FastAPI:
    """Return the application; ``token`` is the operator's."""
    handlers = {**HANDLERS, RequestValidationError: _invalid}
    app = FastAPI(
        title="Strop fleet",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        exception_handlers=handlers,
    )
    app.add_middleware(BaseHTTPMiddleware, dispatch=_guarded)
    app.include_router(api_router(operations, token_access(token)))
    app.include_router(pages_router(operations))
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))

    @app.get("/healthz", include_in_schema=False)
    def healthz() -> JSONResponse:
        broker = broker_is_up()
        operations.store.read(lambda db: db.execute("SELECT 1").fetchone())
        return JSONResponse({"ok": broker, "broker": broker, "database": True}, 200 if broker else 503)

    @app.get("/metrics", include_in_schema=False)
    def metrics() -> PlainTextResponse:
        return PlainTextResponse(metrics_text(operations), media_type="text/plain; version=0.0.4")

    return app
