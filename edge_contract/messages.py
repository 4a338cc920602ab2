# SPDX-License-Identifier: Apache-2.0
"""The messages between device and server: frozen dataclasses with one JSON form each.

Every message carries ``v``, the protocol version; a peer understands N and N-1. Fields that a reader does
not know are kept in ``unrecognized`` and written back.
"""

import zlib
from dataclasses import dataclass, field, replace
from typing import Any, Final

from edge_contract import PROTOCOL_VERSION, canonical
from edge_contract.errors import ContractError, MessageError
from edge_contract.fields import Fields
from edge_contract.states import Phase, Status

__all__ = [
    "CLASSES",
    "MAX_BATCH_BYTES",
    "Birth",
    "Death",
    "DesiredState",
    "JobDocument",
    "JobStatus",
    "ModelState",
    "Probation",
    "ReportedState",
    "Signed",
    "TelemetryAck",
    "TelemetryBatch",
    "TelemetryRow",
    "decode_batch",
    "encode_batch",
    "next_report",
]

CLASSES: Final = ("metric", "drift", "result", "event", "alarm")
"""Telemetry classes, in the order in which a full outbox drops them: metrics first, alarms last."""

MAX_BATCH_BYTES: Final = 100_000
CODEC_PLAIN: Final = 0
CODEC_ZLIB: Final = 1
_MAX_INFLATED: Final = 4_000_000  # a bomb guard, 40 times the batch limit


def _open(document: Any, where: str) -> Fields:
    fields = Fields(document, where, MessageError)
    version = fields.integer("v", minimum=1)
    if not PROTOCOL_VERSION - 1 <= version <= PROTOCOL_VERSION:
        fix = "update the older side"
        raise MessageError(f"protocol version {version}, we speak {PROTOCOL_VERSION}", where=where, fix=fix)
    return fields


def _load(data: bytes, where: str) -> Any:
    try:
        return canonical.loads(data, where=where)
    except ContractError as error:
        raise MessageError(error.what, where=where) from error


class _Message:
    """Bytes on both sides of ``to_json`` and ``from_json``."""

    def to_json(self) -> dict[str, Any]:
        raise NotImplementedError  # pragma: no cover - each message says its own form

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return canonical.dumps(self.to_json())


@dataclass(frozen=True)
class Birth(_Message):
    """A device says hello: who it is, which boot and session this is, what it runs on.

    ``session`` counts connections within a boot; a Death with an older session is stale.
    """

    device: str
    boot: str
    session: int
    agent_version: str
    runtime: str
    runtime_version: str
    board: dict[str, Any]
    time: float
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.unrecognized,
            "v": PROTOCOL_VERSION,
            "device": self.device,
            "boot": self.boot,
            "session": self.session,
            "agent_version": self.agent_version,
            "runtime": self.runtime,
            "runtime_version": self.runtime_version,
            "board": self.board,
            "time": self.time,
        }

    @classmethod
    def from_bytes(cls, data: bytes) -> "Birth":
        f = _open(_load(data, "birth"), "birth")
        return cls(
            f.text("device"),
            f.text("boot"),
            f.integer("session", minimum=0),
            f.text("agent_version"),
            f.text("runtime"),
            f.text("runtime_version"),
            f.object("board", {}),
            f.number("time"),
            f.rest(),
        )


@dataclass(frozen=True)
class Death(_Message):
    """The broker says it for the device (the will), or the device itself on a clean stop."""

    device: str
    boot: str
    session: int
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.unrecognized,
            "v": PROTOCOL_VERSION,
            "device": self.device,
            "boot": self.boot,
            "session": self.session,
        }

    @classmethod
    def from_bytes(cls, data: bytes) -> "Death":
        f = _open(_load(data, "death"), "death")
        return cls(f.text("device"), f.text("boot"), f.integer("session", minimum=0), f.rest())


@dataclass(frozen=True)
class DesiredState(_Message):
    """What the server wants of a device: retained, versioned; a lower version is ignored.

    Attributes:
        version: Grows by at least 1 with each change.
        models: Model name to bundle id; the way there is a job.
        config: Settings that the device takes from the server: ``source`` (name of a declared source),
            ``window_inferences``, ``heartbeat_s``, …
    """

    version: int
    models: dict[str, str]
    config: dict[str, Any]
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.unrecognized,
            "v": PROTOCOL_VERSION,
            "version": self.version,
            "models": self.models,
            "config": self.config,
        }

    @classmethod
    def from_bytes(cls, data: bytes) -> "DesiredState":
        f = _open(_load(data, "desired"), "desired")
        return cls(f.integer("version", minimum=0), f.object("models"), f.object("config"), f.rest())


@dataclass(frozen=True)
class ModelState:
    """The slots of one model on a device: bundle ids, empty where a slot is empty.

    ``running`` is what the runner really holds, by its own word after the golden self-test; the server
    believes it and no result message.
    """

    running: str
    active: str
    standby: str
    factory: str
    version: str
    phase: str = ""
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.unrecognized,
            "running": self.running,
            "active": self.active,
            "standby": self.standby,
            "factory": self.factory,
            "version": self.version,
            "phase": self.phase,
        }

    @classmethod
    def from_json(cls, document: Any, where: str) -> "ModelState":
        f = Fields(document, where, MessageError)
        return cls(
            f.text("running"),
            f.text("active"),
            f.text("standby"),
            f.text("factory"),
            f.text("version"),
            f.text("phase", ""),
            f.rest(),
        )


@dataclass(frozen=True)
class ReportedState(_Message):
    """What a device is: retained, sent on change and as the heartbeat.

    Attributes:
        desired_version: The last DesiredState version that was taken over.
        models: Model name to its slots.
        config: Settings in force.
        outbox: ``{"rows": …, "bytes": …, "dropped": {class: rows}}``.
        health: ``{"inferences": …, "errors": …, "rss_kb": …, "temperature_c": …, "uptime_s": …}``.
        time: Device's wall clock, seconds since 1970.
    """

    device: str
    boot: str
    desired_version: int
    models: dict[str, ModelState]
    config: dict[str, Any]
    outbox: dict[str, Any]
    health: dict[str, Any]
    time: float
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.unrecognized,
            "v": PROTOCOL_VERSION,
            "device": self.device,
            "boot": self.boot,
            "desired_version": self.desired_version,
            "models": {name: state.to_json() for name, state in self.models.items()},
            "config": self.config,
            "outbox": self.outbox,
            "health": self.health,
            "time": self.time,
        }

    @classmethod
    def from_bytes(cls, data: bytes) -> "ReportedState":
        f = _open(_load(data, "reported"), "reported")
        models = f.object("models")
        return cls(
            f.text("device"),
            f.text("boot"),
            f.integer("desired_version", minimum=0),
            {name: ModelState.from_json(models[name], f"reported.models.{name}") for name in models},
            f.object("config"),
            f.object("outbox", {}),
            f.object("health", {}),
            f.number("time"),
            f.rest(),
        )


@dataclass(frozen=True)
class Probation:
    """When a newly activated model has proved itself, on real inferences.

    Attributes:
        inferences: How many must pass.
        timeout_s: Longest wait for them; then the model is rolled back.
        max_error_rate: Share of failed or non-finite inferences.
        max_latency_ratio: New median latency over the old model's.
        min_agreement: Share of inputs on which new and old model choose the same class; 0 switches it off.
        max_crashes: Runner crashes that are forgiven.
    """

    inferences: int = 100
    timeout_s: float = 600.0
    max_error_rate: float = 0.01
    max_latency_ratio: float = 5.0
    min_agreement: float = 0.8
    max_crashes: int = 1
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.unrecognized,
            "inferences": self.inferences,
            "timeout_s": self.timeout_s,
            "max_error_rate": self.max_error_rate,
            "max_latency_ratio": self.max_latency_ratio,
            "min_agreement": self.min_agreement,
            "max_crashes": self.max_crashes,
        }

    @classmethod
    def from_json(cls, document: Any, where: str = "probation") -> "Probation":
        f = Fields(document, where, MessageError)
        default = cls()
        return cls(
            f.integer("inferences", default.inferences, minimum=1),
            f.number("timeout_s", default.timeout_s),
            f.number("max_error_rate", default.max_error_rate),
            f.number("max_latency_ratio", default.max_latency_ratio),
            f.number("min_agreement", default.min_agreement),
            f.integer("max_crashes", default.max_crashes, minimum=0),
            f.rest(),
        )


@dataclass(frozen=True)
class JobDocument(_Message):
    """An order to one device: bound to device, rollout and expiry; travels inside ``Signed``.

    ``job_id`` grows in time (its text sorts), so a device can ignore an order older than its last one.
    An empty ``kind == "none"`` document on ``job/next`` means: nothing to do.
    """

    job_id: str
    device: str
    rollout: str
    kind: str
    model: str
    version: str
    bundle: str
    issued_at: float
    expires_at: float
    timeout_s: float
    probation: Probation
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.unrecognized,
            "v": PROTOCOL_VERSION,
            "job_id": self.job_id,
            "device": self.device,
            "rollout": self.rollout,
            "kind": self.kind,
            "model": self.model,
            "version": self.version,
            "bundle": self.bundle,
            "issued_at": self.issued_at,
            "expires_at": self.expires_at,
            "timeout_s": self.timeout_s,
            "probation": self.probation.to_json(),
        }

    @classmethod
    def from_json(cls, document: Any) -> "JobDocument":
        f = _open(document, "job")
        return cls(
            f.text("job_id"),
            f.text("device"),
            f.text("rollout"),
            f.text("kind", among=("install", "cancel", "none")),
            f.text("model"),
            f.text("version"),
            f.text("bundle"),
            f.number("issued_at"),
            f.number("expires_at"),
            f.number("timeout_s"),
            Probation.from_json(f.object("probation"), "job.probation"),
            f.rest(),
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "JobDocument":
        return cls.from_json(_load(data, "job"))


@dataclass(frozen=True)
class Signed(_Message):
    """An envelope: canonical payload bytes, the key's id and an ed25519 signature over the bytes, both in hex.

    The payload is kept as text so that the bytes that were signed are the bytes that are checked.
    """

    payload: bytes
    keyid: str
    signature: str
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.unrecognized,
            "v": PROTOCOL_VERSION,
            "payload": self.payload.decode(),
            "keyid": self.keyid,
            "signature": self.signature,
        }

    @classmethod
    def from_bytes(cls, data: bytes) -> "Signed":
        f = _open(_load(data, "envelope"), "envelope")
        return cls(f.text("payload").encode(), f.text("keyid"), f.text("signature"), f.rest())


@dataclass(frozen=True)
class JobStatus(_Message):
    """How an order stands: ``seq`` grows with each report, so late and double reports are harmless."""

    job_id: str
    device: str
    status: Status
    phase: Phase
    seq: int
    reason: str
    details: dict[str, Any]
    time: float
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.unrecognized,
            "v": PROTOCOL_VERSION,
            "job_id": self.job_id,
            "device": self.device,
            "status": self.status.value,
            "phase": self.phase.value,
            "seq": self.seq,
            "reason": self.reason,
            "details": self.details,
            "time": self.time,
        }

    @classmethod
    def from_bytes(cls, data: bytes) -> "JobStatus":
        f = _open(_load(data, "job status"), "job status")
        return cls(
            f.text("job_id"),
            f.text("device"),
            Status(f.text("status", among=tuple(Status))),
            Phase(f.text("phase", among=tuple(Phase))),
            f.integer("seq", minimum=0),
            f.text("reason", ""),
            f.object("details", {}),
            f.number("time"),
            f.rest(),
        )


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
        f = _open(document, "batch")
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
    return TelemetryBatch.from_json(_load(plain, "batch"))


@dataclass(frozen=True)
class TelemetryAck(_Message):
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
        f = _open(_load(data, "ack"), "ack")
        return cls(f.text("boot"), f.text("class", among=CLASSES), f.integer("up_to_seq", minimum=0), f.rest())


def next_report(status: JobStatus, /, *, time: float, **changes: Any) -> JobStatus:
    """Return the next report of the same order: ``seq`` one higher, other fields as given.

    Example:
        >>> first = JobStatus("j", "pi", Status.IN_PROGRESS, Phase.ACCEPTED, 0, "", {}, 1.0)
        >>> second = next_report(first, time=2.0, phase=Phase.DOWNLOADING)
        >>> second.seq, second.phase.value
        (1, 'downloading')
    """
    return replace(status, seq=status.seq + 1, time=time, **changes)
