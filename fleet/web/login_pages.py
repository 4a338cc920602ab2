# SPDX-License-Identifier: Apache-2.0
"""Coming in and going out: the login page, one-time links, the way out, and one's own account."""

from typing import Annotated, Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from edge_contract.errors import UsageError
from fleet.adapters.doors import LoginRefused
from fleet.adapters.operations import Operations
from fleet.web.access import (
    Gate,
    address_of,
    cookie_of,
    is_from_here,
    person_of,
    posted,
    set_cookie,
)
from fleet.web.faults import AccessDenied
from fleet.web.rendering import Renderer, see

__all__ = ["PUBLIC", "login_pages"]

PUBLIC = frozenset({"/login", "/invite/{secret}"})
"""Paths of people who are nobody yet."""


def _next(wanted: str) -> str:
    r"""Return where to go after a login: a page of ours, or the first one.

    Example:
        >>> _next("/devices?q=board:rpi5"), _next("//elsewhere"), _next("https://elsewhere"), _next("/\\elsewhere")
        ('/devices?q=board:rpi5', '/', '/', '/')
    """
    is_ours = wanted.startswith("/") and not wanted.startswith("//") and "\\" not in wanted and wanted.isprintable()
    return wanted if is_ours else "/"


def _from_here(request: Request) -> None:
    if not is_from_here(request):
        raise AccessDenied(403, "this form came from another site")


def login_pages(operations: Operations, gate: Gate, renderer: Renderer) -> APIRouter:
    """Return the routes of people who are nobody yet, and of those who want to be nobody again."""
    router = APIRouter(include_in_schema=False)
    _login(router, operations, gate, renderer)
    _invitations(router, operations, gate, renderer)
    _own(router, operations, gate, renderer)
    return router


def _login(router: APIRouter, operations: Operations, gate: Gate, renderer: Renderer) -> None:
    def shown(request: Request, number: int = 200, **values: Any) -> Response:
        return renderer.page(request, "login.html", number, has_accounts=operations.accounts.exist(), **values)

    @router.get("/login")
    def login(request: Request, next: str = "/") -> Response:  # noqa: A002 - the parameter's name in the address
        return shown(request, next=_next(next))

    @router.post("/login")
    async def enter(request: Request, form: Annotated[dict[str, str], posted]) -> Response:
        _from_here(request)
        name, wanted = form.get("name", "").strip(), _next(form.get("next", "/"))
        where = address_of(request)
        try:
            secret = await run_in_threadpool(gate.doors.login, name, form.get("password", ""), where)
        except LoginRefused as refused:
            number = 429 if refused.wait_s else 403
            return await run_in_threadpool(shown, request, number, next=wanted, error=refused.words, name=name)
        answer = see(wanted)
        set_cookie(request, answer, secret, gate.doors.rules.absolute_s)
        return answer

    @router.post("/logout")
    async def leave(request: Request, actor: Annotated[str, gate.access.viewer]) -> Response:
        await run_in_threadpool(gate.doors.logout, cookie_of(request))
        answer = see("/login")
        set_cookie(request, answer, "", 0)
        return answer


def _invitations(router: APIRouter, operations: Operations, gate: Gate, renderer: Renderer) -> None:
    accounts = operations.accounts

    def shown(request: Request, secret: str, number: int = 200, **values: Any) -> Response:
        link = accounts.invited(secret)
        if link is None:
            error = "This link was used or has ended. An admin can make another."
            return renderer.page(request, "error.html", 404, title="The link is void", error=error)
        return renderer.page(request, "invite.html", number, link=link, **values)

    @router.get("/invite/{secret}")
    def invite(request: Request, secret: str) -> Response:
        return shown(request, secret)

    @router.post("/invite/{secret}")
    async def accept(request: Request, secret: str, form: Annotated[dict[str, str], posted]) -> Response:
        _from_here(request)
        name, password = form.get("name", "").strip(), form.get("password", "")
        try:
            if password != form.get("again", ""):
                raise UsageError("the two passwords differ")
            made = await run_in_threadpool(accounts.accept, secret, name, password)
            cookie = await run_in_threadpool(gate.doors.login, made.name, password, address_of(request))
        except (UsageError, LoginRefused) as error:
            return await run_in_threadpool(shown, request, secret, 400, error=str(error), name=name)
        answer = see("/")
        set_cookie(request, answer, cookie, gate.doors.rules.absolute_s)
        return answer


def _own(router: APIRouter, operations: Operations, gate: Gate, renderer: Renderer) -> None:
    viewer = gate.access.viewer

    @router.get("/me")
    def own(request: Request, actor: Annotated[str, viewer]) -> Response:
        person = person_of(request)
        if person is None or not person.csrf:
            raise AccessDenied(401, "log in first")
        return renderer.page(request, "me.html", page="me")

    @router.post("/me")
    async def change(
        request: Request, actor: Annotated[str, viewer], form: Annotated[dict[str, str], posted]
    ) -> Response:
        person = person_of(request)
        if person is None or not person.csrf:
            raise AccessDenied(401, "log in first")
        try:
            if form.get("password", "") != form.get("again", ""):
                raise UsageError("the two passwords differ")
            words = (form.get("old", ""), form.get("password", ""))
            await run_in_threadpool(operations.accounts.change_password, person, *words)
        except UsageError as error:
            return renderer.page(request, "me.html", 400, page="me", error=str(error))
        answer = see("/login")
        set_cookie(request, answer, "", 0)
        return answer
