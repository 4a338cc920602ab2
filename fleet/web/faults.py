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
from fleet.adapters.blobs import DiskFullError

__all__ = ["HANDLERS", "MAX_DOCUMENT_BYTES", "AccessDenied", "body", "fault_of", "not_found"]

MAX_DOCUMENT_BYTES: Final = 8 * 1024 * 1024

_NUMBERS: Final = (
    (EnrolmentError, 403),
    (SignatureError, 422),
    (RegistryError, 409),
    (RolloutError, 409),
    (BrokerError, 503),
    (DiskFullError, 507),
    (StoreError, 422),
    (StropError, 400),
)


class AccessDenied(HTTPException):
    """Nobody who may: 401 for nobody at all, 403 for somebody with a lower role."""

    def __init__(self, number: int, words: str) -> None:
        super().__init__(number, words, {"www-authenticate": "Bearer"} if number == 401 else None)


def fault_of(error: Exception) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Return an error as (number, document, headers).

    Example:
        >>> fault_of(RolloutError("r9 is not known"))
        (409, {'error': 'r9 is not known', 'kind': 'RolloutError', 'fix': ''}, {})
    """
    if isinstance(error, StropError):
        number = next(number for kind, number in _NUMBERS if isinstance(error, kind))
        return number, {"error": str(error), "kind": type(error).__name__, "fix": error.fix}, {}
    if isinstance(error, HTTPException):
        kind = "Access" if isinstance(error, AccessDenied) else "HTTP"
        return error.status_code, {"error": str(error.detail), "kind": kind}, dict(error.headers or {})
    what = f"the server failed: {type(error).__name__}; its log says more"
    return 500, {"error": what, "kind": "Internal"}, {}


def _as_json(_request: Request, error: Exception) -> JSONResponse:
    number, document, headers = fault_of(error)
    return JSONResponse(document, number, headers=headers)


HANDLERS: Final[dict[Any, Any]] = {StropError: _as_json, HTTPException: _as_json, Exception: _as_json}


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
