# SPDX-License-Identifier: Apache-2.0
"""A blob as an HTTP answer, whole or one range of it, from this machine's disk or from an object store.

Reference: RFC 9110, sections 13.1.5 (If-Range) and 14 (Range).
"""

import re
from collections.abc import Iterator
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from fleet.adapters.blobs import Blobs

__all__ = ["blob_response", "range_of"]

_RANGE: Final = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
_TYPE: Final = "application/octet-stream"


def range_of(header: str, size: int) -> tuple[int, int] | None:
    """Return the one range [start, end) that a header asks for, None for the whole; several ranges are the whole.

    Raises:
        ValueError: The range begins behind the end.

    Example:
        >>> range_of("bytes=2-4", 10), range_of("bytes=-3", 10), range_of("", 10), range_of("bytes=1-2,4-5", 10)
        ((2, 5), (7, 10), None, None)
    """
    found = _RANGE.fullmatch(header.replace(" ", ""))
    if found is None or found[0] == "bytes=-":
        return None
    first, last = found[1], found[2]
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < start:
            return None  # no range at all by the grammar: ignored
    if start >= size or start >= end:
        raise ValueError(header)
    return start, end


def blob_response(request: Request, blobs: Blobs, sha256: str) -> Response | None:
    """Return the answer to a request for a blob, None if it is not held."""
    headers = {"etag": f'"{sha256}"', "cache-control": "public, max-age=31536000, immutable"}
    if (path := blobs.path(sha256)) is not None:
        # FileResponse answers Range and If-Range against this ETag.
        return FileResponse(path, media_type=_TYPE, headers=headers)
    size = blobs.size(sha256)
    if size is None:
        return None
    headers["accept-ranges"] = "bytes"
    asked = request.headers.get("range", "")
    if request.headers.get("if-range", headers["etag"]) != headers["etag"]:
        asked = ""
    try:
        span = range_of(asked, size)
    except ValueError:
        return Response(status_code=416, headers={**headers, "content-range": f"bytes */{size}"})
    start, end = span or (0, size)
    headers["content-length"] = str(end - start)
    if span:
        headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
    status = 206 if span else 200
    if request.method == "HEAD" or start == end:
        return Response(status_code=status, headers=headers, media_type=_TYPE)
    return StreamingResponse(_bytes(blobs, sha256, start, end), status, headers, _TYPE)


def _bytes(blobs: Blobs, sha256: str, start: int, end: int) -> Iterator[bytes]:
    yield from blobs.part(sha256, start, end)
