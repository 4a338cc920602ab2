# SPDX-License-Identifier: Apache-2.0
"""What a device says on ``log/<id>``: one text in numbered pieces, compressed, each below 100 KB."""

import base64
import zlib
from collections.abc import Sequence
from typing import Final

from edge_contract import canonical
from edge_contract.errors import MessageError
from edge_contract.messages import load_message, open_message

__all__ = ["MAX_TEXT", "join", "place", "split"]

MAX_TEXT: Final = 4_000_000
"""Most bytes of a text; whoever joins pieces unpacks no more."""
_PIECE: Final = 72_000


def split(kind: str, text: bytes) -> list[bytes]:
    """Return the payloads for a text; ``kind`` says what it is, such as ``logs``.

    Example:
        >>> pieces = split("logs", b"a line")
        >>> len(pieces), join(pieces)
        (1, b'a line')
    """
    packed = zlib.compress(text[:MAX_TEXT], 6)
    pieces = [packed[at : at + _PIECE] for at in range(0, len(packed), _PIECE)]
    head = {"v": 1, "kind": kind, "of": len(pieces), "form": "zlib"}
    return [
        canonical.dumps({**head, "part": n, "data": base64.b64encode(piece).decode()})
        for n, piece in enumerate(pieces, 1)
    ]


def join(payloads: Sequence[bytes]) -> bytes:
    """Return the text of all its pieces, in any order.

    Raises:
        MessageError: One is missing, twice there or of another text, or they unpack to nonsense or too much.
    """
    found: dict[int, bytes] = {}
    wanted = 0
    for payload in payloads:
        f = open_message(load_message(payload, "log"), "log")
        wanted = f.integer("of", minimum=1)
        try:
            found[f.integer("part", minimum=1)] = base64.b64decode(f.text("data"), validate=True)
        except ValueError as error:  # also a letter that is no ASCII
            raise MessageError(f"data is not base64: {error}", where="log") from error
    if sorted(found) != list(range(1, wanted + 1)) or len(payloads) != wanted:
        raise MessageError(f"{len(payloads)} pieces are not the {wanted} of one text", where="log")
    opened = zlib.decompressobj()
    try:
        text = opened.decompress(b"".join(found[n] for n in sorted(found)), MAX_TEXT)
    except zlib.error as error:
        raise MessageError(f"the pieces cannot be unpacked: {error}", where="log") from error
    if not opened.eof:
        raise MessageError("the pieces are cut off, or unpack to too much", where="log")
    return text


def place(payload: bytes) -> tuple[int, int]:
    """Return which piece a payload is, and of how many.

    Raises:
        MessageError: It is none.

    Example:
        >>> place(split("logs", b"a line")[0])
        (1, 1)
    """
    f = open_message(load_message(payload, "log"), "log")
    part, of = f.integer("part", minimum=1), f.integer("of", minimum=1)
    if part > of or not f.text("data"):
        raise MessageError(f"piece {part} of {of}", where="log")
    return part, of
