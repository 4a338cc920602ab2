# SPDX-License-Identifier: Apache-2.0
"""A new device by form: a token, shown once, with the line to paste on the device; and the tokens that are open."""

from pathlib import Path
from typing import Annotated, Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from edge_contract.errors import UsageError
from fleet.core.enrolment import Wishes, state_of_token
from fleet.web.access import posted
from fleet.web.binder import Binder
from fleet.web.rendering import see

__all__ = ["enrol_pages"]

_SHOWN: Final = 50
_MOST_SCRIPT: Final = 20_000
_LIVES: Final = {"3600": "an hour", "86400": "a day", "604800": "a week"}


def enrol_pages(binder: Binder) -> None:
    """Add the form, its answer, and the list of open tokens with a button for each."""
    operations, operator = binder.operations, binder.access.operator

    @binder.router.get("/enrol")
    async def enrol(request: Request, actor: Annotated[str, operator]) -> Response:
        found = await run_in_threadpool(_open_tokens, binder)
        return await binder.show(request, "enrol.html", page="devices", lives=_LIVES, **found)

    @binder.router.post("/enrol/{token}/revoke")
    async def revoke(actor: Annotated[str, operator], token: str, form: Annotated[dict[str, str], posted]) -> Response:
        await run_in_threadpool(operations.devices.revoke_tokens, token, actor)
        return see("/enrol")

    @binder.router.post("/enrol")
    async def new_token(
        request: Request, actor: Annotated[str, operator], form: Annotated[dict[str, str], posted]
    ) -> Response:
        life, name = form.get("life", "86400"), form.get("name", "").strip()
        if life not in _LIVES:
            raise UsageError(f"{life[:20]!r} is not a life that a token may have")
        made = await run_in_threadpool(operations.devices.new_tokens, 1, float(life), Wishes(name=name), actor)
        token = made[0][0]
        return await binder.show(
            request, "enrol.html", page="devices", lives=_LIVES, token=token, name=name, life=_LIVES[life],
            enrol_url=binder.site.enrol_url, script=await run_in_threadpool(_script, binder.site.data),
        )  # fmt: skip


def _script(data: Path | None) -> str:
    """Return what an operator put into ``install.sh`` beside the server's data; it holds no secret."""
    try:
        return (data / "install.sh").read_text()[:_MOST_SCRIPT] if data is not None else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _open_tokens(binder: Binder) -> dict[str, Any]:
    """Return the tokens that may still enrol a device, newest first, and how many there are beyond those shown."""
    now = binder.operations.clock()
    found = [one for one in binder.operations.devices.tokens() if state_of_token(one, now) == "open"]
    rows = [
        {
            "id": one.id,
            "created_at": one.created_at,
            "expires_at": one.expires_at,
            "name": one.wishes.name,
            "batch": one.wishes.batch,
        }
        for one in found[:_SHOWN]
    ]
    return {"open_tokens": rows, "more_tokens": len(found) - len(rows), "now": now}
