# SPDX-License-Identifier: Apache-2.0
"""Who is on the other side of a TLS connection, and who may not be: what uvicorn does not tell its applications."""

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any

import uvicorn
from starlette.exceptions import HTTPException
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["Denials", "PeerProtocol", "peer_of"]

_PEER = "peer_der"


class PeerProtocol(H11Protocol):
    """HTTP/1.1 that puts the client's certificate (DER) into the state of each request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        secured = transport.get_extra_info("ssl_object")
        certificate = secured.getpeercert(binary_form=True) if secured else None
        if certificate:
            self.app_state: dict[str, Any] = {**self.app_state, _PEER: certificate}


def peer_of(request: Request) -> bytes:
    """Return the certificate that the client has proved to hold, DER.

    Raises:
        HTTPException: 403, the listener sees no certificate.
    """
    certificate = request.scope.get("state", {}).get(_PEER)
    if not certificate:
        raise HTTPException(403, "this listener sees no client certificate")
    return bytes(certificate)


class Denials:
    """The TLS contexts that ask the revocation list before they let anybody in."""

    def __init__(self) -> None:
        self._contexts: list[ssl.SSLContext] = []

    def guard(self, config: uvicorn.Config, revoked: Path) -> None:
        """Let a listener refuse the certificates of a list; the list must be there."""
        config.load()
        assert config.ssl is not None
        config.ssl.load_verify_locations(revoked)
        config.ssl.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
        self._contexts.append(config.ssl)

    def reload(self, revoked: Path) -> None:
        """Let every listener know a newer list; connections that stand end by their keep-alive."""
        for context in self._contexts:
            with contextlib.suppress(ssl.SSLError):  # the same list again
                context.load_verify_locations(revoked)
