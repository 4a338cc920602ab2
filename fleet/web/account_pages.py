# SPDX-License-Identifier: Apache-2.0
"""The page of accounts and tokens, for admins."""

from collections.abc import Callable
from typing import Annotated, Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from edge_contract.errors import StropError, UsageError
from fleet.core.accounts import Person, read_role
from fleet.web.access import person_of, posted
from fleet.web.binder import Binder

__all__ = ["account_pages"]

_DAY_S: Final = 86_400.0
_ASKED: Final = {
    "remove": ("Remove the account {name}", "Its sessions end and its tokens are refused.", "Remove the account"),
    "revoke": ("Revoke the token {name}", "Whatever uses it is refused from now on.", "Revoke the token"),
}


def account_pages(binder: Binder) -> None:
    """Add the page and its forms."""
    accounts, admin = binder.operations.accounts, binder.access.admin

    def shown(request: Request, number: int = 200, **values: Any) -> Response:
        people, tokens = accounts.all(), accounts.tokens()
        return binder.page(request, "accounts.html", number, page="accounts", people=people, tokens=tokens, **values)

    @binder.router.get("/accounts")
    async def page(request: Request, actor: Annotated[str, admin]) -> Response:
        return await run_in_threadpool(shown, request)

    @binder.router.post("/accounts")
    async def do(request: Request, actor: Annotated[str, admin], form: Annotated[dict[str, str], posted]) -> Response:
        person = person_of(request)
        assert person is not None

        def act() -> Response:
            if form.get("do") in _ASKED and not form.get("sure"):
                return _sure(binder, request, form)
            try:
                told = _done(binder, person, form)
            except StropError as error:
                return shown(request, 400, error=str(error))
            return shown(request, 200, **told)

        return await run_in_threadpool(act)


def _sure(binder: Binder, request: Request, form: dict[str, str]) -> Response:
    """Ask once more before somebody is locked out."""
    name = form.get("name", "")[:64]
    title, text, button = (part.format(name=name) for part in _ASKED[form["do"]])
    fields = {"do": form["do"], "name": name, "sure": "yes"}
    return binder.page(
        request, "confirm.html", page="accounts", title=title, text=text, button=button, danger=True,
        action="/accounts", back="/accounts", fields=fields,
    )  # fmt: skip


def _done(binder: Binder, person: Person, form: dict[str, str]) -> dict[str, str]:
    """Do what a form of the page asks for; return what is shown once."""
    accounts, name, actor = binder.operations.accounts, form.get("name", "").strip(), person.name

    def add() -> dict[str, str]:
        return {"link": accounts.add(name, read_role(form.get("role", "viewer")), actor), "of": name}

    def new_token() -> dict[str, str]:
        days = form.get("days", "90")
        if not days.isdigit():
            raise UsageError(f"{days[:20]!r} is not a number of days")
        text = accounts.new_token(name, read_role(form.get("role", "viewer")), float(days) * _DAY_S, person)
        return {"token": text, "of": name}

    def role() -> dict[str, str]:
        accounts.set_role(name, read_role(form.get("role", "")), actor)
        return {"said": f"{name} is {form['role']} now"}

    def remove() -> dict[str, str]:
        accounts.remove(name, actor)
        return {"said": f"the account {name} is gone"}

    def revoke() -> dict[str, str]:
        accounts.revoke_token(name, actor)
        return {"said": f"the token {name} is refused from now on"}

    verbs: dict[str, Callable[[], dict[str, str]]] = {
        "add": add,
        "link": lambda: {"link": accounts.reset(name, actor), "of": name},
        "role": role,
        "remove": remove,
        "new-token": new_token,
        "revoke": revoke,
    }
    if form.get("do") not in verbs:
        raise UsageError(f"unknown form {form.get('do', '')[:20]!r}")
    return verbs[form["do"]]()
