# SPDX-License-Identifier: Apache-2.0
"""Benchmarks over HTTP: operators start, look, fetch and withdraw; devices fetch files and send what they measured."""

from typing import Annotated, Any, Final

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge_contract.bench_job import MAX_FILE_BYTES
from fleet.adapters.benchmarks import BenchVerbs
from fleet.adapters.blobs import Blobs
from fleet.adapters.identities import Identities
from fleet.adapters.operations import Operations
from fleet.core.capture import Refusal
from fleet.web import views
from fleet.web.access import Access, Document
from fleet.web.blob_response import blob_response
from fleet.web.faults import body, not_found
from fleet.web.peer import peer_of

__all__ = ["bench_device_routes", "bench_routes"]

_OUTCOME_BYTES: Final = 64_000


def bench_device_routes(benchmarks: BenchVerbs, identities: Identities, blobs: Blobs) -> list[Route]:
    """Return what devices ask on their own listener, each for itself alone."""

    async def who(request: Request) -> str:
        return (await run_in_threadpool(identities.seen, peer_of(request))).device

    async def blob(request: Request) -> Response:
        job, sha256 = request.path_params["job"], request.path_params["sha256"]
        device = await who(request)
        wanted = await run_in_threadpool(benchmarks.wants, job, device, sha256)
        found = await run_in_threadpool(blob_response, request, blobs, sha256) if wanted else None
        if found is None:
            raise not_found(f"file {sha256!r} of benchmark {job!r}")
        return found

    async def taken(request: Request) -> Response:
        job, name, device = request.path_params["job"], request.path_params["name"], await who(request)
        content = await body(request, MAX_FILE_BYTES)
        return _receipt(await run_in_threadpool(benchmarks.take, job, device, name, content))

    async def ended(request: Request) -> Response:
        job, device = request.path_params["job"], await who(request)
        content = await body(request, _OUTCOME_BYTES)
        return _receipt(await run_in_threadpool(benchmarks.end, job, device, content))

    return [
        Route("/benchmarks/{job}/blobs/{sha256}", blob),
        Route("/benchmarks/{job}/files/{name}", taken, methods=["PUT"]),
        Route("/benchmarks/{job}/outcome", ended, methods=["PUT"]),
    ]


def _receipt(answer: str | Refusal) -> JSONResponse:
    if isinstance(answer, Refusal):
        return JSONResponse({"error": answer.why, "kind": "Benchmark"}, answer.status)
    return JSONResponse({"sha256": answer})


def bench_routes(router: APIRouter, operations: Operations, access: Access) -> None:
    """Add the operators' routes; results are numbers, so a viewer may read them."""
    benchmarks = operations.benchmarks

    @router.get("/benchmarks")
    def listed() -> list[dict[str, Any]]:
        return [dict(views.plain(one)) for one in benchmarks.listed()]

    @router.post("/benchmarks", status_code=201)
    def start(actor: Annotated[str, access.operator], document: Document) -> dict[str, Any]:
        return dict(views.plain(benchmarks.start(document, actor)))

    @router.get("/benchmarks/{run}")
    def show(run: str) -> dict[str, Any]:
        return dict(views.plain(benchmarks.show(run)))

    @router.get("/benchmarks/{run}/results/{device}/{name}")
    def file(run: str, device: str, name: str) -> Response:
        return Response(benchmarks.file(run, device, name), media_type="application/octet-stream")

    @router.post("/benchmarks/{run}/cancel")
    def cancel(actor: Annotated[str, access.operator], run: str) -> dict[str, Any]:
        return dict(views.plain(benchmarks.cancel(run, actor)))
