# SPDX-License-Identifier: Apache-2.0
"""A new device by form: a token, shown once, with the line to paste on the device."""

from typing import Annotated, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from edge_contract.errors import UsageError
from fleet.web.access import posted
from fleet.web.binder import Binder

__all__ = ["enrol_pages"]

_LIVES: Final = {"3600": "an hour", "86400": "a day", "604800": "a week"}


def enrol_pages(binder: Binder) -> None:
    """Add the form and its answer."""
    operations, operator = binder.operations, binder.access.operator

    @binder.router.get("/enrol")
    async def enrol(request: Request, actor: Annotated[str, operator]) -> Response:
        return await binder.show(request, "enrol.html", page="devices", lives=_LIVES)

    @binder.router.post("/enrol")
    async def new_token(
        request: Request, actor: Annotated[str, operator], form: Annotated[dict[str, str], posted]
    ) -> Response:
        life, name = form.get("life", "86400"), form.get("name", "").strip()
        if life not in _LIVES:
            raise UsageError(f"{life[:20]!r} is not a life that a token may have")
        token = await run_in_threadpool(operations.devices.new_token, float(life), actor)
        return await binder.show(
            request, "enrol.html", page="devices", lives=_LIVES, token=token, name=name, life=_LIVES[life],
            enrol_url=binder.site.enrol_url,
        )  # fmt: skip
