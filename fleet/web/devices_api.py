# SPDX-License-Identifier: Apache-2.0
"""The listener for devices (HTTPS, client certificate required): TUF metadata and content-addressed files."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from fleet.adapters.blobs import BlobStore
from fleet.adapters.tuf_repo import TufRepository
from fleet.web.faults import HANDLERS, not_found

__all__ = ["devices_app"]


def devices_app(tuf: TufRepository, blobs: BlobStore) -> Starlette:
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
        headers = {"etag": f'"{sha256}"', "cache-control": "public, max-age=31536000, immutable"}
        # FileResponse answers Range and If-Range (RFC 9110, section 14) against this ETag.
        return FileResponse(path, media_type="application/octet-stream", headers=headers)

    routes = [Route("/tuf/{name}", metadata), Route("/blobs/{sha256}", blob)]
    return Starlette(routes=routes, exception_handlers=HANDLERS)
