# SPDX-License-Identifier: Apache-2.0
"""The listener for devices (HTTPS, client certificate required): TUF metadata and content-addressed files."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fleet.adapters.blobs import Blobs
from fleet.adapters.deltas import DeltaStore
from fleet.adapters.tuf_repo import TufRepository
from fleet.web.blob_response import blob_response
from fleet.web.faults import HANDLERS, not_found

__all__ = ["devices_app"]


def devices_app(tuf: TufRepository, blobs: Blobs, deltas: DeltaStore) -> Starlette:
    """Return the application; who may connect is decided by TLS before it."""

    def metadata(request: Request) -> Response:
        name = request.path_params["name"]
        data = tuf.file(name)
        if data is None:
            raise not_found(f"metadata file {name!r}")
        return Response(data, media_type="application/json", headers={"cache-control": "no-cache"})

    def blob(request: Request) -> Response:
        sha256 = request.path_params["sha256"]
        # Only what the signed targets name leaves the server: an upload is not yet a release.
        found = blob_response(request, blobs, sha256) if tuf.authorises(sha256) else None
        if found is None:
            raise not_found(f"blob {sha256!r}")
        return found

    def offers(request: Request) -> Response:
        """Which patches lead to a file; of a file that is no release, nothing is said."""
        target = request.path_params["target"]
        if not tuf.authorises(target) or blobs.size(target) is None:
            raise not_found(f"blob {target!r}")
        headers = {"cache-control": "no-cache"}
        return Response(deltas.index(target), media_type="application/json", headers=headers)

    def patch(request: Request) -> Response:
        sha256 = request.path_params["sha256"]
        found = blob_response(request, deltas.patches, sha256)
        if found is None:
            raise not_found(f"patch {sha256!r}")
        return found

    routes = [
        Route("/tuf/{name}", metadata),
        Route("/blobs/{sha256}", blob),
        Route("/deltas/blobs/{sha256}", patch),
        Route("/deltas/{target}", offers),
    ]
    return Starlette(routes=routes, exception_handlers=HANDLERS)
