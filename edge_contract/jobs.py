# SPDX-License-Identifier: Apache-2.0
"""Orders to one device: the signed job document, the probation that it asks for, and the reports on it."""

from dataclasses import dataclass, field, replace
from typing import Any

from edge_contract import PROTOCOL_VERSION
from edge_contract.errors import MessageError
from edge_contract.fields import Fields
from edge_contract.messages import Message, load_message, open_message
from edge_contract.states import Phase, Status

__all__ = ["JobDocument", "JobStatus", "Probation", "Signed", "next_report"]


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
        min_s: Seconds that must pass before the model has proved itself, however many inferences it answered.
    """

    inferences: int = 100
    timeout_s: float = 600.0
    max_error_rate: float = 0.01
    max_latency_ratio: float = 5.0
    min_agreement: float = 0.8
    max_crashes: int = 1
    min_s: float = 0.0
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
            **({"min_s": self.min_s} if self.min_s else {}),
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
            f.number("min_s", default.min_s),
            f.rest(),
        )


@dataclass(frozen=True)
class JobDocument(Message):
    """An order to one device: bound to device, rollout and expiry; travels inside ``Signed``.

    ``job_id`` grows in time (its text sorts), so a device can ignore an order older than its last one.
    An empty ``kind == "none"`` document on ``job/next`` means: nothing to do. ``kind == "shadow"`` asks to run the
    bundle beside the active one for a time; only devices that announce ``SHADOW_TRIAL`` are asked.
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
        f = open_message(document, "job")
        return cls(
            f.text("job_id"),
            f.text("device"),
            f.text("rollout"),
            f.text("kind", among=("install", "shadow", "cancel", "none")),
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
        return cls.from_json(load_message(data, "job"))


@dataclass(frozen=True)
class Signed(Message):
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
        f = open_message(load_message(data, "envelope"), "envelope")
        return cls(f.text("payload").encode(), f.text("keyid"), f.text("signature"), f.rest())


@dataclass(frozen=True)
class JobStatus(Message):
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
        f = open_message(load_message(data, "job status"), "job status")
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


def next_report(status: JobStatus, /, *, time: float, **changes: Any) -> JobStatus:
    """Return the next report of the same order: ``seq`` one higher, other fields as given.

    Example:
        >>> first = JobStatus("j", "pi", Status.IN_PROGRESS, Phase.ACCEPTED, 0, "", {}, 1.0)
        >>> second = next_report(first, time=2.0, phase=Phase.DOWNLOADING)
        >>> second.seq, second.phase.value
        (1, 'downloading')
    """
    return replace(status, seq=status.seq + 1, time=time, **changes)
