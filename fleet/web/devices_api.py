# SPDX-License-Identifier: Apache-2.0
"""The listener for devices (HTTPS, client certificate required): TUF metadata and content-addressed files."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from fleet.adapters.blobs import BlobStore
from fleet.adapters.deltas import DeltaStore
from fleet.adapters.tuf_repo import TufRepository
from fleet.web.faults import HANDLERS, not_found

__all__ = ["devices_app"]


def devices_app(tuf: TufRepository, blobs: BlobStore, deltas: DeltaStore) -> Starlette:
    """Return the application; who may connect is decided by TLS before it."""

    def metadata(request: Request) -> Response:
        name = request.path_params["name"]
        data = tuf.file(name)
        if data is None:
            raise not_found(f"metadata file {name!r}")
        return Response(data, media_type="application/json", headers={"cache-control": "no-cache"})

    def blob(request: Request) -> Response:
        sha256 = request.path_params["sha256"]
        path = blobs.path(sha256)
        # Only what the signed targets name leaves the server: an upload is not yet a release.
        if path is None or not tuf.authorises(sha256):
            raise not_found(f"blob {sha256!r}")
        return _file(path, sha256)

    def offers(request: Request) -> Response:
        """Which patches lead to a file; of a file that is no release, nothing is said."""
        target = request.path_params["target"]
        if blobs.path(target) is None or not tuf.authorises(target):
            raise not_found(f"blob {target!r}")
        headers = {"cache-control": "no-cache"}
        return Response(deltas.index(target), media_type="application/json", headers=headers)

    def patch(request: Request) -> Response:
        sha256 = request.path_params["sha256"]
        path = deltas.path(sha256)
        if path is None:
            raise not_found(f"patch {sha256!r}")
        return _file(path, sha256)

    routes = [
        Route("/tuf/{name}", metadata),
        Route("/blobs/{sha256}", blob),
        Route("/deltas/blobs/{sha256}", patch),
        Route("/deltas/{target}", offers),
    ]
    return Starlette(routes=routes, exception_handlers=HANDLERS)


def _file(path: Path, sha256: str) -> Response:
    headers = {"etag": f'"{sha256}"', "cache-control": "public, max-age=31536000, immutable"}
    # FileResponse answers Range and If-Range (RFC 9110, section 14) against this ETag.
    return FileResponse(path, media_type="application/octet-stream", headers=headers)
