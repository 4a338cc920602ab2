# SPDX-License-Identifier: Apache-2.0
"""Over HTTP: rollouts."""

from typing import Annotated, Any

from fastapi import APIRouter

from fleet.adapters import tables
from fleet.adapters.database import Connection
from fleet.adapters.operations import Operations
from fleet.core.rollout import Rollout
from fleet.web import views
from fleet.web.access import Access, Document
from fleet.web.faults import not_found

__all__ = ["rollout_routes"]


def _rollout(db: Connection, name: str) -> Rollout:
    rollout = tables.rollout(db, name)
    if rollout is None:
        raise not_found(f"rollout {name!r}")
    return rollout


def rollout_routes(router: APIRouter, operations: Operations, access: Access) -> None:
    """Rollouts."""
    store = operations.store

    @router.get("/rollouts")
    def rollouts() -> list[dict[str, Any]]:
        return store.read(lambda db: [views.rollout_json(db, rollout) for rollout in tables.rollouts(db)])

    @router.post("/rollouts", status_code=201)
    def start(actor: Annotated[str, access.operator], document: Document) -> dict[str, Any]:
        rollout = operations.rollouts.start(document, actor)
        return store.read(lambda db: views.rollout_json(db, _rollout(db, rollout.id)))

    @router.get("/rollouts/{name}")
    def rollout(name: str) -> dict[str, Any]:
        return store.read(lambda db: views.rollout_json(db, _rollout(db, name)))

    @router.post("/rollouts/{name}/{verb}")
    def change_rollout(actor: Annotated[str, access.operator], name: str, verb: str) -> dict[str, Any]:
        store.read(lambda db: _rollout(db, name))
        operations.rollouts.change(name, verb, actor)
        return store.read(lambda db: views.rollout_json(db, _rollout(db, name)))
