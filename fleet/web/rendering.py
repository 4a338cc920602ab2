# SPDX-License-Identifier: Apache-2.0
"""Templates into pages: what every page has (who looks, what they may, the time), and errors as pages."""

import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import jinja2
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from edge_contract.errors import StropError
from fleet.core.accounts import Person, Role
from fleet.web import words
from fleet.web.access import person_of
from fleet.web.charts import accuracy_bar
from fleet.web.faults import fault_of

__all__ = ["Renderer", "install_faults", "see"]

_LEVEL_WORDS: Final = {"alarm": "drift alarm", "warn": "unusual", "ok": "as usual", "insufficient": "collecting"}
_TITLES: Final = {
    400: "That does not work",
    401: "Log in first",
    403: "You may not do this",
    404: "Nothing here",
    405: "Not in this way",
    409: "Not in this state",
    413: "Too large",
    422: "Refused",
    503: "Not now",
}
_PROGRAMS: Final = ("/api/", "/metrics", "/healthz", "/readyz", "/static/")


class Renderer:
    """Renders templates.

    Args:
        clock: Seconds since 1970.
        viewing_is_open: Whether nobody in particular may look.
    """

    def __init__(self, clock: Callable[[], float], viewing_is_open: Callable[[], bool]) -> None:
        self._clock, self._viewing_is_open = clock, viewing_is_open
        loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
        self._environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
        filters = {name: getattr(words, name) for name in words.__all__}
        self._environment.filters.update(filters, short=lambda text: text[:8])
        self._environment.filters["ago"] = lambda then: words.ago(clock(), then)
        self._environment.globals.update(accuracy_bar=accuracy_bar, level_words=_LEVEL_WORDS)

    def page(self, request: Request, template: str, number: int = 200, **values: Any) -> HTMLResponse:
        """Return a page; ``me`` and ``may(role)`` tell the template who looks."""
        me = person_of(request)

        def may(role: str) -> bool:
            return me is not None and me.role >= Role.of(role)

        origin = str(request.base_url).rstrip("/")
        shown = {"me": me or Person("", Role.VIEWER), "may": may, "now": self._clock(), "origin": origin}
        text = self._environment.get_template(template).render(shown, open_viewing=self._viewing_is_open(), **values)
        return HTMLResponse(text, number, {"cache-control": "no-store"})


def see(path: str) -> RedirectResponse:
    """Return the answer to a form that was taken: look there (303, so that a reload sends nothing again)."""
    return RedirectResponse(path, 303)


def _invalid(error: RequestValidationError) -> tuple[int, dict[str, Any], dict[str, str]]:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return 400, {"error": f"{where}: {first['msg']}", "kind": "Request"}, {}


def install_faults(app: FastAPI, renderer: Renderer) -> None:
    """Let programs get JSON and browsers get pages; a browser that is nobody gets the login page."""

    def answer(request: Request, error: Exception) -> Response:
        fault = _invalid(error) if isinstance(error, RequestValidationError) else fault_of(error)
        number, document, headers = fault
        is_page = "text/html" in request.headers.get("accept", "") and not request.url.path.startswith(_PROGRAMS)
        if not is_page:
            return JSONResponse(document, number, headers=headers)
        if number == 401 and request.method == "GET":
            wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return see(f"/login?next={urllib.parse.quote(wanted, safe='')}")
        title = _TITLES.get(number, "The server failed")
        return renderer.page(request, "error.html", number, title=title, error=document["error"])

    for kind in (StropError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, answer)
