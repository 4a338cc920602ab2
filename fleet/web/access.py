# SPDX-License-Identifier: Apache-2.0
"""Who may do what over HTTP: each route names a role, and gets the name of the person who asks.

A program shows a token (``Authorization: Bearer …``). A browser shows its session's cookie; whatever it changes must
carry the session's CSRF token, in the header ``x-csrf-token`` or the form's field ``csrf``, and come from a page of
this server: the cookie is SameSite=Strict already, and each of the three is enough alone.
"""

import hmac
import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Body, Depends
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from fleet.adapters.doors import Doors
from fleet.core.accounts import Person, Role
from fleet.web.faults import AccessDenied, body

__all__ = [
    "Access",
    "Document",
    "Gate",
    "Needs",
    "address_of",
    "cookie_of",
    "form_of",
    "is_from_here",
    "person_of",
    "posted",
    "set_cookie",
]

Document = Annotated[Any, Body()]

_COOKIE: Final = "strop_session"
_SECURE_COOKIE: Final = "__Host-strop_session"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FORM: Final = "application/x-www-form-urlencoded"
_MAX_FORM_BYTES: Final = 64 * 1024
_LOOPBACK_HOST: Final = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?")


@dataclass(frozen=True)
class Access:
    """What routes ask for: ``actor: Annotated[str, access.operator]``.

    Attributes:
        viewer: May look.
        operator: May change devices, models and rollouts.
        admin: May change who may do what, and keys.
    """

    viewer: Any
    operator: Any
    admin: Any


class Gate:
    """Finds out who asks.

    Args:
        doors: Sessions and tokens.
        viewing_is_open: Whether those who show nothing may look; asked each time.
    """

    def __init__(self, doors: Doors, viewing_is_open: Callable[[], bool]) -> None:
        self.doors, self._viewing_is_open = doors, viewing_is_open

    @property
    def access(self) -> Access:
        """The three roles as dependencies."""
        return Access(*(Depends(Needs(self, role)) for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN)))

    def who(self, request: Request) -> Person | None:
        """Return who asks, None for nobody.

        Raises:
            AccessDenied: 401, a token that is wrong or has ended: better told than taken for nobody.
        """
        if authorization := request.headers.get("authorization", ""):
            scheme, _, text = authorization.partition(" ")
            person = self.doors.of_token(text.strip()) if scheme.lower() == "bearer" else None
            if person is None:
                self.doors.denied("anonymous", "token.denied", address_of(request), {"path": request.url.path[:80]})
                raise AccessDenied(401, "the operator's token is missing or wrong; see operator.token")
            return person
        if secret := cookie_of(request):
            is_doing = "x-strop-live" not in request.headers
            person = self.doors.of_session(secret, is_doing=is_doing)
            if person is not None:
                return person
        return self._anonymous(request)

    def _anonymous(self, request: Request) -> Person | None:
        # A page elsewhere may let its own name point to this machine (DNS rebinding): that name is no loopback's.
        is_here = _LOOPBACK_HOST.fullmatch(request.headers.get("host", "")) is not None
        return Person("", Role.VIEWER) if is_here and self._viewing_is_open() else None


class Needs:
    """The dependency of a route: somebody with at least a role; gives the name for the audit log."""

    def __init__(self, gate: Gate, role: Role) -> None:
        self.gate, self.role = gate, role

    async def __call__(self, request: Request) -> str:
        """Return the actor's name.

        Raises:
            AccessDenied: 401 nobody, 403 a lower role, or a change that did not come from a page of ours.
        """
        person = person_of(request)
        if person is None:
            person = await run_in_threadpool(self.gate.who, request)
            request.state.person = person
        if person is None or (person.name == "" and self.role > person.role):
            raise AccessDenied(401, "log in first, or send a token: Authorization: Bearer …")
        if person.role < self.role:
            self.gate.doors.denied(person.name, "access.denied", request.url.path[:80], {"method": request.method})
            raise AccessDenied(403, f"this needs the role {self.role.word}; {person.name} is {person.role.word}")
        if person.csrf and request.method not in _SAFE:
            await _check_origin(request, person)
        return person.name or person.role.word


def person_of(request: Request) -> Person | None:
    """Return who asks, where a route's dependency has found it out."""
    found = getattr(request.state, "person", None)
    return found if isinstance(found, Person) else None


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a posted form, the last value of each; read once.

    Raises:
        HTTPException: 413, too large; 400, not a form's bytes.
    """
    known = getattr(request.state, "form", None)
    if isinstance(known, dict):
        return known
    data = await body(request, _MAX_FORM_BYTES)
    try:
        pairs = urllib.parse.parse_qsl(
            data.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=200
        )
    except ValueError as error:
        raise HTTPException(400, "the form cannot be read") from error
    fields = dict(pairs)
    request.state.form = fields
    return fields


posted = Depends(form_of)
"""``form: Annotated[dict[str, str], posted]``."""


def is_from_here(request: Request) -> bool:
    """False if a browser says that another site's page sent this."""
    origin = request.headers.get("origin")
    if origin is not None:
        return urllib.parse.urlsplit(origin).netloc == request.headers.get("host", "")
    return request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")


async def _check_origin(request: Request, person: Person) -> None:
    given = request.headers.get("x-csrf-token", "")
    if not given and request.headers.get("content-type", "").startswith(_FORM):
        given = (await form_of(request)).get("csrf", "")
    if not is_from_here(request) or not hmac.compare_digest(given.encode(), person.csrf.encode()):
        raise AccessDenied(403, "this change did not come from a page of this server; load the page again")


def address_of(request: Request) -> str:
    """Return the address that asks."""
    return request.client.host if request.client else "unknown"


def cookie_of(request: Request) -> str:
    """Return the session's secret, empty without one."""
    name = _SECURE_COOKIE if request.url.scheme == "https" else _COOKIE
    return request.cookies.get(name, "")


def set_cookie(request: Request, response: Response, secret: str, seconds: float) -> None:
    """Let the browser keep a session's secret; an empty one is taken away."""
    is_secure = request.url.scheme == "https"
    name = _SECURE_COOKIE if is_secure else _COOKIE
    age = int(seconds) if secret else 0
    response.set_cookie(name, secret, max_age=age, path="/", secure=is_secure, httponly=True, samesite="strict")
