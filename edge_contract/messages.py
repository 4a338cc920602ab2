# SPDX-License-Identifier: Apache-2.0
"""The messages between device and server: frozen dataclasses with one JSON form each.

Here are what all messages share, a device's birth and death, and its state as desired and as reported; orders
are in ``jobs``, telemetry is in ``batches``.

Every message carries ``v``, the protocol version; a peer understands N and N-1. Fields that a reader does
not know are kept in ``unrecognized`` and written back.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from edge_contract import PROTOCOL_VERSION, canonical
from edge_contract.errors import ContractError, MessageError
from edge_contract.fields import Fields

__all__ = [
    "CAPTURES",
    "JOB_PER_MODEL",
    "SELF_UPDATE",
    "SHADOW_TRIAL",
    "SOFTWARE",
    "SOFTWARE_ORDERS",
    "Birth",
    "Death",
    "DesiredState",
    "Message",
    "ModelState",
    "ReportedState",
    "load_message",
    "open_message",
]


JOB_PER_MODEL: Final = "job-per-model"
"""The device listens on ``job/next/<model>`` and can carry out an order for each of its models at once."""
SELF_UPDATE: Final = "self-update"
"""The device listens on ``SOFTWARE_ORDERS`` and can update its own software (``edge_contract.software``)."""
CAPTURES: Final = "captures"
"""A feature: the person at this device allows captures. Orders of a campaign are asked for by these devices alone."""

SHADOW_TRIAL: Final = "shadow-trial"
"""The device takes orders of kind ``shadow``: it runs a model beside the active one, and reports how they compare."""
SOFTWARE: Final = "strop-agent"
"""Stands where a model's name stands, for the agent's own software: in orders, reports and on the disk."""
SOFTWARE_ORDERS: Final = "job/software"
"""The channel of its orders: an agent from before does not listen there, and cannot take them for a model's."""


def open_message(document: Any, where: str) -> Fields:
    """Return the fields of a decoded message whose protocol version we understand.

    Raises:
        MessageError: Not an object, no version, or one that is neither ours nor the one before.
    """
    fields = Fields(document, where, MessageError)
    version = fields.integer("v", minimum=1)
    if not PROTOCOL_VERSION - 1 <= version <= PROTOCOL_VERSION:
        fix = "update the older side"
        raise MessageError(f"protocol version {version}, we speak {PROTOCOL_VERSION}", where=where, fix=fix)
    return fields


def load_message(data: bytes, where: str) -> Any:
    """Return the JSON value in a message's bytes.

    Raises:
        MessageError: Bytes that are not JSON, or not of the kind that the contract allows.
    """
    try:
        return canonical.loads(data, where=where)
    except ContractError as error:
        raise MessageError(error.what, where=where) from error


class Message:
    """Bytes on both sides of ``to_json`` and ``from_json``."""

    def to_json(self) -> dict[str, Any]:
        raise NotImplementedError  # pragma: no cover - each message says its own form

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return canonical.dumps(self.to_json())


@dataclass(frozen=True)
class Birth(Message):
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
        f = open_message(load_message(data, "birth"), "birth")
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
class Death(Message):
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
        f = open_message(load_message(data, "death"), "death")
        return cls(f.text("device"), f.text("boot"), f.integer("session", minimum=0), f.rest())


@dataclass(frozen=True)
class DesiredState(Message):
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
        f = open_message(load_message(data, "desired"), "desired")
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
class ReportedState(Message):
    """What a device is: retained, sent on change and as the heartbeat.

    Attributes:
        desired_version: The last DesiredState version that was taken over.
        models: Model name to its slots.
        config: Settings in force.
        outbox: ``{"rows": …, "bytes": …, "dropped": {class: rows}}``.
        health: ``{"inferences": …, "errors": …, "rss_kb": …, "temperature_c": …, "uptime_s": …}``.
        time: Device's wall clock, seconds since 1970.
        features: What the device can do that not every device of this protocol can, such as ``JOB_PER_MODEL``.
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
    features: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            **self.unrecognized,
            **({"features": list(self.features)} if self.features else {}),
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
        f = open_message(load_message(data, "reported"), "reported")
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
            features=f.texts("features", []),
            unrecognized=f.rest(),
        )
