# SPDX-License-Identifier: Apache-2.0
"""Telemetry in batches: rows of one class and boot, their compressed wire form, and the server's acknowledgement."""

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


@dataclass(frozen=True)
class TelemetryRow:
    """One row of the outbox: its sequence number within (boot, class), its time, what it says."""

    seq: int
    time: float
    body: dict[str, Any]


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
    if not data:
        raise MessageError("no bytes", where="batch")
    if data[0] == CODEC_PLAIN:
        plain = data[1:]
    elif data[0] == CODEC_ZLIB:
        inflater = zlib.decompressobj()
        try:
            plain = inflater.decompress(data[1:], _MAX_INFLATED)
        except zlib.error as error:
            raise MessageError(f"damaged: {error}", where="batch") from error
        if inflater.unused_data:
            raise MessageError(f"{len(inflater.unused_data)} bytes after the end", where="batch")
        if not inflater.eof:
            raise MessageError(f"cut short, or more than {_MAX_INFLATED} bytes", where="batch")
    else:
        raise MessageError(f"codec {data[0]} is unknown", where="batch", fix="update the server")
    return TelemetryBatch.from_json(load_message(plain, "batch"))


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
