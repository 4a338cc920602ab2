# SPDX-License-Identifier: Apache-2.0
"""Errors over HTTP: one line of JSON, ``{"error": …, "kind": …, "fix": …}``, with the right number."""

from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from edge_contract.errors import (
    BrokerError,
    EnrolmentError,
    RegistryError,
    RolloutError,
    SignatureError,
    StoreError,
    StropError,
)

__all__ = ["HANDLERS", "MAX_DOCUMENT_BYTES", "body", "not_found"]

MAX_DOCUMENT_BYTES: Final = 8 * 1024 * 1024

_NUMBERS: Final = (
    (EnrolmentError, 403),
    (SignatureError, 422),
    (RegistryError, 409),
    (RolloutError, 409),
    (BrokerError, 503),
    (StoreError, 422),
    (StropError, 400),
)


def _refused(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StropError)
    number = next(number for kind, number in _NUMBERS if isinstance(error, kind))
    return JSONResponse({"error": str(error), "kind": type(error).__name__, "fix": error.fix}, number)


def _http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail), "kind": "HTTP"}, error.status_code, headers=error.headers)


def _unforeseen(_request: Request, error: Exception) -> JSONResponse:
    what = f"the server failed: {type(error).__name__}; its log says more"
    return JSONResponse({"error": what, "kind": "Internal"}, 500)


HANDLERS: Final[dict[Any, Any]] = {StropError: _refused, HTTPException: _http, Exception: _unforeseen}


def not_found(what: str) -> HTTPException:
    """Return the error for a name that nobody knows."""
    return HTTPException(404, f"{what[:120]} is not known")


async def body(request: Request, limit: int = MAX_DOCUMENT_BYTES) -> bytes:
    """Return the request's bytes; refuses more than ``limit`` as soon as they come."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise HTTPException(413, f"more than {limit} bytes")
    return bytes(data)
