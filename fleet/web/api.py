# SPDX-License-Identifier: Apache-2.0
"""The operators' HTTP interface under ``/api/v1``. Reading is open on loopback; a change needs the operator's token."""

import hmac
import sqlite3
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Body, Depends, Header, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from edge_contract.batches import CLASSES
from edge_contract.errors import MessageError, UsageError
from edge_contract.fields import Fields
from fleet.adapters import tables, telemetry
from fleet.adapters.operations import Operations
from fleet.core.audit import first_broken
from fleet.core.enrolment import DEFAULT_TTL_S
from fleet.core.inventory import DeviceRecord
from fleet.core.labels import read_labels
from fleet.core.rollout import Rollout
from fleet.web import views
from fleet.web.capture_api import capture_routes
from fleet.web.faults import body, not_found
from fleet.web.trust_api import trust_routes

__all__ = ["api_router"]

Connection = sqlite3.Connection
Document = Annotated[Any, Body()]
ACTOR = "operator"


def _authorised(token: str) -> Any:
    def check(authorization: Annotated[str, Header()] = "") -> None:
        given = authorization.removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), token.encode()):
            headers = {"www-authenticate": "Bearer"}
            raise HTTPException(401, "the operator's token is missing or wrong; see operator.token", headers)

    return Depends(check)


def _record(db: Connection, name: str) -> DeviceRecord:
    record = tables.device(db, name)
    if record is None:
        raise not_found(f"device {name!r}")
    return record


def _rollout(db: Connection, name: str) -> Rollout:
    rollout = tables.rollout(db, name)
    if rollout is None:
        raise not_found(f"rollout {name!r}")
    return rollout


def _chunks(stream: AsyncIterator[bytes]) -> Iterator[bytes]:
    """The request's body in a worker thread, chunk by chunk: an upload never lies in memory as a whole."""

    async def following() -> bytes | None:
        return await anext(stream, None)

    while (chunk := anyio.from_thread.run(following)) is not None:
        yield chunk


def _devices(router: APIRouter, operations: Operations, change: Any) -> None:
    """Devices and their enrolment."""
    store = operations.store

    @router.post("/tokens", dependencies=[change])
    def new_token(document: Document = None) -> dict[str, str]:
        ttl_s = Fields(document or {}, "token", MessageError).number("ttl_s", DEFAULT_TTL_S)
        return {"token": operations.new_token(ttl_s, ACTOR)}

    @router.get("/devices")
    def devices() -> list[dict[str, Any]]:
        now = operations.clock()

        def read(db: Connection) -> list[dict[str, Any]]:
            shown = operations.identities.all_shown(db, now)
            return [views.device_json(db, one, now, shown.get(one.device)) for one in tables.devices(db)]

        return store.read(read)

    @router.get("/devices/{name}")
    def device(name: str) -> dict[str, Any]:
        def read(db: Connection) -> dict[str, Any]:
            now = operations.clock()
            shown = views.device_json(db, _record(db, name), now, operations.identities.shown(db, name, now))
            rows, results = telemetry.count_rows(db, name), telemetry.result_count(db, name)
            return {**shown, "rows": rows, "results": results, "events": views.plain(telemetry.events(db, name, 50))}

        return store.read(read)

    @router.post("/devices/{name}/revoke", dependencies=[change])
    def revoke(name: str, document: Document = None) -> dict[str, int]:
        reason = Fields(document or {}, "revocation", MessageError).text("reason", "")
        return {"revoked": operations.identities.revoke(name, reason, ACTOR)}

    @router.post("/devices/{name}/forgive", dependencies=[change])
    def forgive(name: str) -> dict[str, str]:
        operations.identities.forgive(name, ACTOR)
        return {"cleared": name}

    @router.delete("/devices/{name}", dependencies=[change])
    def remove(name: str) -> dict[str, str]:
        operations.remove_device(name, ACTOR)
        return {"removed": name}

    @router.put("/devices/{name}/config", dependencies=[change])
    def config(name: str, document: Document) -> dict[str, Any]:
        return dict(views.plain(operations.set_config(name, document, ACTOR).to_json()))


def _drift(router: APIRouter, operations: Operations, change: Any) -> None:
    """What devices have sent, the truth about it, and the audit log."""
    store = operations.store

    @router.get("/devices/{name}/telemetry")
    def rows(
        name: str,
        cls: Annotated[str, Query(alias="class")] = "result",
        after: Annotated[int, Query(ge=0, le=2**62)] = 0,
        limit: Annotated[int, Query(ge=1, le=5000)] = 500,
    ) -> dict[str, Any]:
        if cls not in CLASSES:
            raise UsageError(f"unknown class {cls[:40]!r}", fix=f"use one of {', '.join(CLASSES)}")
        found = store.read(lambda db: (_record(db, name), telemetry.rows(db, name, cls, after, limit))[1])
        return {"rows": views.plain(found), "after": found[-1]["id"] if found else after}

    @router.get("/devices/{name}/drift")
    def drift(name: str) -> dict[str, Any]:
        return store.read(lambda db: views.drift_json(db, _record(db, name).device))

    @router.post("/labels", dependencies=[change])
    def labels(document: Document) -> dict[str, int]:
        device_name, found = read_labels(document)
        return {"stored": operations.add_labels(device_name, found, ACTOR)}

    @router.get("/audit")
    def audit(limit: Annotated[int, Query(ge=1, le=10_000)] = 200) -> dict[str, Any]:
        entries = store.read(tables.all_audit)
        broken = first_broken(reversed(entries))
        return {"broken_at": broken, "entries": [views.plain(entry.to_json()) for entry in entries[:limit]]}


def _models(router: APIRouter, operations: Operations, change: Any) -> None:
    """Trust root, blobs and model versions."""
    store = operations.store

    @router.put("/trust/root", dependencies=[change])
    async def root(request: Request) -> dict[str, bool]:
        data = await body(request)
        await run_in_threadpool(operations.install_root, data, ACTOR)
        return {"installed": True}

    @router.put("/blobs/{sha256}", dependencies=[change])
    async def blob(sha256: str, request: Request) -> dict[str, int]:
        stream = aiter(request.stream())
        return {"size": await run_in_threadpool(operations.put_blob, sha256, _chunks(stream), ACTOR)}

    @router.get("/blobs/{sha256}")
    def held(sha256: str) -> dict[str, int]:
        size = operations.blobs.size(sha256)
        if size is None:
            raise not_found(f"blob {sha256!r}")
        return {"size": size}

    @router.get("/models")
    def models() -> list[dict[str, Any]]:
        def read(db: Connection) -> list[dict[str, Any]]:
            records = tables.devices(db)
            return [views.model_json(version, records) for version in tables.models(db)]

        return store.read(read)

    @router.post("/models/check", dependencies=[change])
    def check_model(document: Document) -> dict[str, Any]:
        f = Fields(document, "model", MessageError)
        return operations.check_model(f.text("manifest").encode(), f.text("targets").encode()).to_json()

    @router.post("/models", dependencies=[change])
    def add_model(document: Document) -> dict[str, Any]:
        f = Fields(document, "model", MessageError)
        version = operations.register_model(f.digest("bundle"), f.text("targets").encode(), ACTOR)
        return version.to_json()


def _rollouts(router: APIRouter, operations: Operations, change: Any) -> None:
    """Rollouts."""
    store = operations.store

    @router.get("/rollouts")
    def rollouts() -> list[dict[str, Any]]:
        return store.read(lambda db: [views.rollout_json(db, rollout) for rollout in tables.rollouts(db)])

    @router.post("/rollouts", dependencies=[change], status_code=201)
    def start(document: Document) -> dict[str, Any]:
        rollout = operations.start_rollout(document, ACTOR)
        return store.read(lambda db: views.rollout_json(db, _rollout(db, rollout.id)))

    @router.get("/rollouts/{name}")
    def rollout(name: str) -> dict[str, Any]:
        return store.read(lambda db: views.rollout_json(db, _rollout(db, name)))

    @router.post("/rollouts/{name}/{verb}", dependencies=[change])
    def change_rollout(name: str, verb: str) -> dict[str, Any]:
        store.read(lambda db: _rollout(db, name))
        operations.change_rollout(name, verb, ACTOR)
        return store.read(lambda db: views.rollout_json(db, _rollout(db, name)))


def api_router(operations: Operations, token: str) -> APIRouter:
    """Return the routes; ``token`` is the operator's."""
    router = APIRouter(prefix="/api/v1")
    for group in (_devices, _drift, _models, _rollouts, trust_routes, capture_routes):
        group(router, operations, _authorised(token))
    return router
