# SPDX-License-Identifier: Apache-2.0
"""Telemetry in batches: rows of one class and boot, their compressed wire form, and the server's acknowledgement."""

import json
import re
import sys
import zlib
from dataclasses import dataclass, field
from typing import Any, Final

from edge_contract import PROTOCOL_VERSION, canonical
from edge_contract.errors import ContractError, MessageError
from edge_contract.messages import Message, load_message, open_message

__all__ = [
    "CLASSES",
    "MAX_BATCH_BYTES",
    "TelemetryAck",
    "TelemetryBatch",
    "TelemetryRow",
    "decode_batch",
    "encode_batch",
]

CLASSES: Final = ("metric", "drift", "result", "event", "alarm")
"""Telemetry classes, in the order in which a full outbox drops them: metrics first, alarms last."""

MAX_BATCH_BYTES: Final = 100_000
CODEC_PLAIN: Final = 0
CODEC_ZLIB: Final = 1
_MAX_INFLATED: Final = 4_000_000  # a bomb guard, 40 times the batch limit

_TEXT: Final = r'"([^"\\\x00-\x1f]*)"'
_HEAD: Final = re.compile(
    rf'{{"after_seq":(0|[1-9][0-9]{{0,17}}),"boot":{_TEXT},"class":{_TEXT},"device":{_TEXT},"rows":\['
)
_ROW: Final = re.compile(r'\[([1-9][0-9]{0,17}),"(-?0x[01]\.[0-9a-f]{1,20}p[+-][0-9]{1,4})",(?={)')
_TAILS: Final = frozenset(f'],"v":{v}}}' for v in range(max(1, PROTOCOL_VERSION - 1), PROTOCOL_VERSION + 1))
_COUNTS: Final = sys.version_info >= (3, 12)
"""From there on Python's reader goes thousands of brackets deep."""


@dataclass(frozen=True)
class TelemetryRow:
    """One row of the outbox: its sequence number within (boot, class), its time, what it says.

    ``wire``: the body's JSON as it came, where it was read from the canonical form; else empty.
    """

    seq: int
    time: float
    body: dict[str, Any]
    wire: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True)
class TelemetryBatch:
    """Rows of one class and one boot, ascending in ``seq``.

    ``after_seq``: every row up to this number was acknowledged before, or dropped by policy. The server
    moves its high-water mark from there, so that a lost batch can never be acknowledged by a later one.
    """

    device: str
    boot: str
    cls: str
    after_seq: int
    rows: tuple[TelemetryRow, ...]
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.unrecognized,
            "v": PROTOCOL_VERSION,
            "device": self.device,
            "boot": self.boot,
            "class": self.cls,
            "after_seq": self.after_seq,
            "rows": [[row.seq, row.time, row.body] for row in self.rows],
        }

    @classmethod
    def from_json(cls, document: Any) -> "TelemetryBatch":
        f = open_message(document, "batch")
        after = f.integer("after_seq", minimum=0)
        rows, last = [], after
        for i, item in enumerate(f.items("rows")):
            where = f"batch.rows[{i}]"
            if not isinstance(item, list) or len(item) != 3 or not isinstance(item[2], dict):
                raise MessageError("expected [seq, time, object]", where=where)
            seq = item[0]
            if not isinstance(seq, int) or isinstance(seq, bool) or not last < seq < 1 << 63:
                raise MessageError(f"sequence {seq!r} does not follow {last}", where=where)
            last = seq
            try:
                rows.append(TelemetryRow(seq, canonical.as_float(item[1], where=where), item[2]))
            except ContractError as error:
                raise MessageError(error.what, where=where) from error
        return cls(f.text("device"), f.text("boot"), f.text("class", among=CLASSES), after, tuple(rows), f.rest())


def encode_batch(batch: TelemetryBatch) -> bytes:
    """Return the wire form: one codec byte (1 = zlib), then the canonical JSON.

    Raises:
        MessageError: More than 100 KB; the outbox must cut smaller batches.

    Example:
        >>> batch = TelemetryBatch("pi", "b1", "metric", 0, (TelemetryRow(1, 2.0, {"n": 3}),))
        >>> decode_batch(encode_batch(batch)) == batch
        True
    """
    plain = canonical.dumps(batch.to_json())
    packed = bytes([CODEC_ZLIB]) + zlib.compress(plain, 6)
    if len(packed) > MAX_BATCH_BYTES:
        raise MessageError(f"{len(packed)} bytes, more than {MAX_BATCH_BYTES}", where="batch", fix="send fewer rows")
    return packed


def decode_batch(data: bytes) -> TelemetryBatch:
    """Return the batch in its wire form.

    Raises:
        MessageError: An unknown codec, damaged or too large data, or a malformed batch.
    """
    plain = _inflated(data)
    return _canonical(plain) or TelemetryBatch.from_json(load_message(plain, "batch"))


def _inflated(data: bytes) -> bytes:
    if not data:
        raise MessageError("no bytes", where="batch")
    if data[0] == CODEC_PLAIN:
        return data[1:]
    if data[0] != CODEC_ZLIB:
        raise MessageError(f"codec {data[0]} is unknown", where="batch", fix="update the server")
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(data[1:], _MAX_INFLATED)
    except zlib.error as error:
        raise MessageError(f"damaged: {error}", where="batch") from error
    if inflater.unused_data:
        raise MessageError(f"{len(inflater.unused_data)} bytes after the end", where="batch")
    if not inflater.eof:
        raise MessageError(f"cut short, or more than {_MAX_INFLATED} bytes", where="batch")
    return plain


class _OtherwiseError(ValueError):
    """Not the plain canonical form: the general reader says what it is."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _OtherwiseError
    return found


def _constant(_text: str) -> Any:
    raise _OtherwiseError


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def _canonical(plain: bytes) -> TelemetryBatch | None:
    """Return the batch in canonical bytes, read in one pass; None for any other, good or bad.

    Nine of ten messages of a server are batches, and all of ours are canonical: the envelope is found by its form,
    each body is read once and keeps its bytes. Whatever looks different goes to the reader that names faults.
    """
    try:
        text = plain.decode()
        head = _HEAD.match(text)
        if head is None or head[3] not in CLASSES or "\\u" in text:  # half a surrogate pair hides in an escape
            return None
        after = int(head[1])
        rows = _rows(text, plain if text.isascii() else None, head.end(), after)
    except (ValueError, OverflowError, RecursionError):  # Unicode's and JSON's errors are ValueErrors
        return None
    return None if rows is None else TelemetryBatch(head[4], head[2], head[3], after, rows)


def _rows(text: str, ascii_bytes: bytes | None, at: int, last: int) -> tuple[TelemetryRow, ...] | None:
    rows: list[TelemetryRow] = []
    while (row := _ROW.match(text, at)) is not None:
        start, seq = row.end(), int(row[1])
        body, end = _DECODER.raw_decode(text, start)
        wire = text[start:end].encode() if ascii_bytes is None else ascii_bytes[start:end]
        if seq <= last or text[end : end + 1] != "]" or (_COUNTS and _is_deep(wire)):
            return None
        last, at = seq, end + 1
        rows.append(TelemetryRow(seq, float.fromhex(row[2]), body, wire))
        if text[at : at + 1] != ",":
            break
        at += 1
        if text[at : at + 1] == "]":
            return None
    return tuple(rows) if text[at:] in _TAILS else None


def _is_deep(data: bytes) -> bool:
    """Return whether brackets may be nested too deeply; the general reader looks closely."""
    return data.count(b"[") + data.count(b"{") > canonical.MAX_DEPTH


@dataclass(frozen=True)
class TelemetryAck(Message):
    """The server has committed every row of (boot, class) up to and with ``up_to_seq``."""

    boot: str
    cls: str
    up_to_seq: int
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        known = {"v": PROTOCOL_VERSION, "boot": self.boot, "class": self.cls, "up_to_seq": self.up_to_seq}
        return {**self.unrecognized, **known}

    @classmethod
    def from_bytes(cls, data: bytes) -> "TelemetryAck":
        f = open_message(load_message(data, "ack"), "ack")
        return cls(f.text("boot"), f.text("class", among=CLASSES), f.integer("up_to_seq", minimum=0), f.rest())
