# SPDX-License-Identifier: Apache-2.0
"""Who may do what over HTTP: three roles as dependencies that give the actor's name to a route."""

import hmac
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Body, Depends, Header
from starlette.exceptions import HTTPException

__all__ = ["Access", "Document", "token_access"]

Document = Annotated[Any, Body()]


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


def token_access(token: str) -> Access:
    """Return the access of a server with one operator's token; looking is open."""

    def check(authorization: Annotated[str, Header()] = "") -> str:
        given = authorization.removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), token.encode()):
            headers = {"www-authenticate": "Bearer"}
            raise HTTPException(401, "the operator's token is missing or wrong; see operator.token", headers)
        return "operator"

    return Access(viewer=Depends(lambda: "viewer"), operator=Depends(check), admin=Depends(check))
