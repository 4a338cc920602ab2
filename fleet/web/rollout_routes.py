# SPDX-License-Identifier: Apache-2.0
"""Over HTTP: rollouts."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query

from fleet.adapters import evidence, tables
from fleet.adapters.database import Connection
from fleet.adapters.operations import Operations
from fleet.core.rollout import Rollout
from fleet.web.access import Access, Document
from fleet.web.faults import not_found
from fleet.web.rollout_views import detail, summary
from fleet.web.views import plain

__all__ = ["rollout_routes"]

Note = Annotated[Any, Body()]
_MOST = 10_000


def _rollout(db: Connection, name: str) -> Rollout:
    rollout = tables.rollout(db, name)
    if rollout is None:
        raise not_found(f"rollout {name!r}")
    return rollout


def rollout_routes(router: APIRouter, operations: Operations, access: Access) -> None:
    """Rollouts."""
    store, verbs = operations.store, operations.rollouts

    @router.get("/rollouts")
    def rollouts() -> list[dict[str, Any]]:
        return store.read(lambda db: [summary(db, rollout) for rollout in tables.rollouts(db)])

    @router.post("/rollouts", status_code=201)
    def start(actor: Annotated[str, access.operator], document: Document) -> dict[str, Any]:
        rollout = verbs.start(document, actor)
        return store.read(lambda db: detail(db, _rollout(db, rollout.id)))

    @router.post("/rollouts/plan")
    def plan(actor: Annotated[str, access.operator], document: Document) -> dict[str, Any]:
        return verbs.plan(document, actor)

    @router.get("/rollouts/rules")
    def rules() -> dict[str, Any]:
        return verbs.rules().to_json()

    @router.get("/rollouts/{name}")
    def rollout(
        name: str,
        bucket: str = "",
        limit: Annotated[int, Query(ge=0, le=_MOST)] = 0,
        offset: Annotated[int, Query(ge=0, le=2**62)] = 0,
    ) -> dict[str, Any]:
        return store.read(lambda db: detail(db, _rollout(db, name), bucket=bucket, limit=limit, offset=offset))

    @router.get("/rollouts/{name}/evidence")
    def looks(name: str, wave: Annotated[int, Query(ge=0, le=10_000)] = 0) -> list[dict[str, Any]]:
        """Every look at a wave that was kept; waves count from 1, 0 gives all."""
        chosen = wave - 1 if wave else None
        found = store.read(lambda db: evidence.history(db, _rollout(db, name).number, chosen))
        return [plain({**one, "wave": one["wave"] + 1}) for one in found]

    @router.post("/rollouts/{name}/{verb}")
    def change_rollout(
        actor: Annotated[str, access.operator], name: str, verb: str, note: Note = None
    ) -> dict[str, Any]:
        store.read(lambda db: _rollout(db, name))
        reason = note.get("reason", "") if isinstance(note, dict) else ""
        changed = verbs.change(name, verb, actor, str(reason)[:300])
        return store.read(lambda db: detail(db, _rollout(db, changed.id)))
