# SPDX-License-Identifier: Apache-2.0
"""Over HTTP: trust root, blobs and model versions."""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from edge_contract.errors import MessageError
from edge_contract.fields import Fields
from fleet.adapters import channels, version_views
from fleet.adapters.operations import Operations
from fleet.web.access import Access, Document
from fleet.web.faults import body, not_found

__all__ = ["model_routes"]


def _chunks(stream: AsyncIterator[bytes]) -> Iterator[bytes]:
    """The request's body in a worker thread, chunk by chunk: an upload never lies in memory as a whole."""

    async def following() -> bytes | None:
        return await anext(stream, None)

    while (chunk := anyio.from_thread.run(following)) is not None:
        yield chunk


def model_routes(router: APIRouter, operations: Operations, access: Access) -> None:
    """Trust root, blobs and model versions."""
    store = operations.store

    @router.put("/trust/root")
    async def root(actor: Annotated[str, access.operator], request: Request) -> dict[str, bool]:
        data = await body(request)
        await run_in_threadpool(operations.models.install_root, data, actor)
        return {"installed": True}

    @router.put("/trust/targets")
    async def targets(actor: Annotated[str, access.operator], request: Request) -> dict[str, Any]:
        data = await body(request)
        return await run_in_threadpool(operations.models.publish_targets, data, actor)

    @router.put("/blobs/{sha256}")
    async def blob(actor: Annotated[str, access.operator], sha256: str, request: Request) -> dict[str, int]:
        stream = aiter(request.stream())
        return {"size": await run_in_threadpool(operations.models.put_blob, sha256, _chunks(stream), actor)}

    @router.get("/blobs/{sha256}")
    def held(sha256: str) -> dict[str, int]:
        size = operations.blobs.size(sha256)
        if size is None:
            raise not_found(f"blob {sha256!r}")
        return {"size": size}

    @router.get("/models")
    def models() -> list[dict[str, Any]]:
        return store.read(version_views.models_json)

    @router.post("/models/check")
    def check_model(actor: Annotated[str, access.operator], document: Document) -> dict[str, Any]:
        f = Fields(document, "model", MessageError)
        return operations.models.check(f.text("manifest").encode(), f.text("targets").encode()).to_json()

    @router.post("/models")
    def add_model(actor: Annotated[str, access.operator], document: Document) -> dict[str, Any]:
        f = Fields(document, "model", MessageError)
        version = operations.models.register(f.digest("bundle"), f.text("targets").encode(), actor)
        held = store.read(lambda db: channels.channels_of(db, version.bundle))
        return {**version.to_json(), "channels": sorted(held)}
