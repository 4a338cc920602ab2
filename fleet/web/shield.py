# SPDX-License-Identifier: Apache-2.0
"""Around every answer of the operators' listener: security headers, and a bound on what is sent to it."""

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet.web.faults import MAX_DOCUMENT_BYTES

__all__ = ["Shield"]

_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_HSTS: Final = "max-age=31536000"
_STREAMED: Final = "/api/v1/blobs/"


class Shield:
    """The outermost application.

    Args:
        app: What is shielded.
        is_tls: Whether browsers are told to come by TLS only (RFC 6797).
    """

    def __init__(self, app: ASGIApp, *, is_tls: bool) -> None:
        self._app, self._is_tls = app, is_tls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._mark(MutableHeaders(scope=message))
            await send(message)

        await self._app(scope, _bounded(scope, receive), guarded)

    def _mark(self, headers: MutableHeaders) -> None:
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)
        if self._is_tls:
            headers.setdefault("strict-transport-security", _HSTS)


def _bounded(scope: Scope, receive: Receive) -> Receive:
    """Count what comes; files of bundles are streamed to the disk and have no bound here."""
    if scope["path"].startswith(_STREAMED):
        return receive
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_DOCUMENT_BYTES:
            raise HTTPException(413, f"more than {MAX_DOCUMENT_BYTES} bytes")
        return message

    return counted
