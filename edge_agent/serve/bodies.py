# SPDX-License-Identifier: Apache-2.0
"""Read the body of a request, bounded in bytes and time: by its length, or in chunks (RFC 9112, sections 6 and 7)."""

import time
from collections.abc import Callable
from email.message import Message
from typing import Final, Protocol

__all__ = ["BodyError", "declared_length", "read_body"]

_PIECE: Final = 1 << 16
_LINE: Final = 256
_TRAILERS: Final = 16


class Stream(Protocol):
    """What a body is read from: a buffered reader."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self, size: int, /) -> bytes: ...


class BodyError(Exception):
    """A body that cannot be read: the status to answer with, and why. The connection must end after it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


def declared_length(headers: Message) -> int | None:
    """Return the declared length, None for a chunked body; a request that says both or neither is refused.

    Two answers to "where does it end" are how requests are smuggled past whoever else reads them.

    Raises:
        BodyError: No length, two of them, or none that is a number; or a coding other than ``chunked``.
    """
    codings, lengths = headers.get_all("Transfer-Encoding", []), headers.get_all("Content-Length", [])
    if codings:
        if lengths or len(codings) > 1:
            raise BodyError(400, "both Transfer-Encoding and Content-Length, or one of them twice")
        if codings[0].strip().lower() != "chunked":
            raise BodyError(501, f"transfer coding {codings[0][:40]!r}")
        return None
    if not lengths:
        raise BodyError(411, "no Content-Length")
    text = lengths[0].strip()
    if len(set(lengths)) > 1 or not (text.isascii() and text.isdigit()) or len(text) > 15:
        raise BodyError(400, "Content-Length is not one number")
    return int(text)


def read_body(
    stream: Stream, headers: Message, most: int, seconds: float, clock: Callable[[], float] = time.monotonic
) -> bytes:
    """Return a request's body.

    Args:
        stream: After the headers.
        headers: Of the request.
        most: Bytes that are accepted.
        seconds: Within which the whole body must come.
        clock: Monotonic seconds.

    Raises:
        BodyError: As ``declared_length``; too long, too slow, cut off, or malformed chunks.
    """
    length, deadline = declared_length(headers), clock() + seconds
    if length is None:
        return _chunked(stream, most, deadline, clock)
    if length > most:
        raise BodyError(413, f"{length} bytes, more than {most}")
    return _exactly(stream, length, deadline, clock)


def _exactly(stream: Stream, length: int, deadline: float, clock: Callable[[], float]) -> bytes:
    parts, left = [], length
    while left:
        if clock() > deadline:
            raise BodyError(408, "the body came too slowly")
        part = stream.read(min(left, _PIECE))
        if not part:
            raise BodyError(400, f"the body ended {left} bytes early")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _chunked(stream: Stream, most: int, deadline: float, clock: Callable[[], float]) -> bytes:
    parts, total = [], 0
    while size := _size(stream.readline(_LINE)):
        total += size
        if total > most:
            raise BodyError(413, f"more than {most} bytes")
        parts.append(_exactly(stream, size, deadline, clock))
        if stream.readline(_LINE) not in (b"\r\n", b"\n"):
            raise BodyError(400, "a chunk is longer than it says")
    for _ in range(_TRAILERS):
        if stream.readline(_LINE) in (b"\r\n", b"\n"):
            return b"".join(parts)
    raise BodyError(400, "the chunks have no end")


def _size(line: bytes) -> int:
    text = line.partition(b";")[0].strip()
    if not line.endswith(b"\n") or not 0 < len(text) <= 8 or set(text) - set(b"0123456789abcdefABCDEF"):
        raise BodyError(400, "a chunk without a size")
    return int(text, 16)
