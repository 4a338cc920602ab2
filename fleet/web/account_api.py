# SPDX-License-Identifier: Apache-2.0
"""Over HTTP: accounts, tokens, and who one is. Secrets are in the answer that makes them, and never again."""

from typing import Annotated, Any

from fastapi import APIRouter, Request

from edge_contract.errors import MessageError
from edge_contract.fields import Fields
from fleet.adapters.operations import Operations
from fleet.core.accounts import Person, Role, read_role
from fleet.web.access import Access, Document, person_of

__all__ = ["DEFAULT_TOKEN_S", "account_routes"]

DEFAULT_TOKEN_S = 90 * 86_400.0


def account_routes(router: APIRouter, operations: Operations, access: Access) -> None:
    """Accounts, tokens, and who one is."""
    _accounts(router, operations, access)
    _tokens(router, operations, access)


def _accounts(router: APIRouter, operations: Operations, access: Access) -> None:
    accounts = operations.accounts

    @router.get("/me")
    def me(request: Request) -> dict[str, str]:
        person = person_of(request) or Person("", Role.VIEWER)
        return {"name": person.name, "role": person.role.word}

    @router.get("/accounts")
    def shown(actor: Annotated[str, access.admin]) -> list[dict[str, Any]]:
        return [one.to_json() for one in accounts.all()]

    @router.post("/accounts", status_code=201)
    def add(actor: Annotated[str, access.admin], document: Document) -> dict[str, str]:
        f = Fields(document, "account", MessageError)
        name, role = f.text("name"), read_role(f.text("role", "viewer"))
        return {"name": name, "role": role.word, "link": f"/invite/{accounts.add(name, role, actor)}"}

    @router.post("/accounts/{name}/role")
    def role(actor: Annotated[str, access.admin], name: str, document: Document) -> dict[str, Any]:
        wanted = read_role(Fields(document, "account", MessageError).text("role"))
        return accounts.set_role(name, wanted, actor).to_json()

    @router.post("/accounts/{name}/link")
    def link(actor: Annotated[str, access.admin], name: str) -> dict[str, str]:
        return {"name": name, "link": f"/invite/{accounts.reset(name, actor)}"}

    @router.post("/first-admin-link")
    def first_link(actor: Annotated[str, access.admin]) -> dict[str, str]:
        secret = accounts.first_link()
        return {"link": f"/invite/{secret}" if secret else ""}

    @router.delete("/accounts/{name}")
    def remove(actor: Annotated[str, access.admin], name: str) -> dict[str, str]:
        accounts.remove(name, actor)
        return {"removed": name}


def _tokens(router: APIRouter, operations: Operations, access: Access) -> None:
    accounts = operations.accounts

    @router.get("/api-tokens")
    def tokens(actor: Annotated[str, access.admin]) -> list[dict[str, Any]]:
        return [one.to_json() for one in accounts.tokens()]

    @router.post("/api-tokens", status_code=201)
    def new_token(actor: Annotated[str, access.admin], request: Request, document: Document) -> dict[str, str]:
        f = Fields(document, "token", MessageError)
        person = person_of(request)
        assert person is not None
        name, role = f.text("name"), read_role(f.text("role", "viewer"))
        text = accounts.new_token(name, role, f.number("ttl_s", DEFAULT_TOKEN_S), person)
        return {"name": name, "role": role.word, "token": text}

    @router.delete("/api-tokens/{name}")
    def revoke(actor: Annotated[str, access.admin], name: str) -> dict[str, str]:
        accounts.revoke_token(name, actor)
        return {"revoked": name}
