# SPDX-License-Identifier: Apache-2.0
"""The facts of a device that a query may ask for, from its record and from what else the server knows. Pure."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edge_contract.canonical import as_float
from edge_contract.errors import ContractError
from fleet.core.inventory import DeviceRecord, is_online, sync_of

__all__ = ["FIELDS", "RESERVED", "Known", "board_names", "facts_of", "number"]

FIELDS: Final[Mapping[str, str]] = {
    "accelerator": "word",
    "agent": "version",
    "board": "word",
    "boot": "word",
    "channel": "word",
    "clone": "flag",
    "cores": "number",
    "device": "word",
    "disk_free_mb": "number",
    "drift": "level",
    "enrolled": "days",
    "errors": "number",
    "group": "word",
    "in_sync": "flag",
    "inferences": "number",
    "kernel": "word",
    "last_seen": "days",
    "latency_p95_ms": "number",
    "machine": "word",
    "model": "word",
    "online": "flag",
    "outbox_rows": "number",
    "python": "version",
    "quarantined": "flag",
    "rejected": "word",
    "rss_mb": "number",
    "runtime": "word",
    "runtime_version": "version",
    "tag": "word",
    "temperature": "number",
    "uptime_h": "number",
}
"""Fact → what it is: a word, a number, a version, days since something, a flag, or a level with its number."""

RESERVED: Final = frozenset(FIELDS) | {"all", "and", "or", "not", "in", "label", "name"}
"""Names that no label may have."""

_BOARDS: Final = (
    (re.compile(r"raspberry pi zero 2", re.IGNORECASE), "zero2"),
    (re.compile(r"raspberry pi (?:compute module )?(\d)", re.IGNORECASE), "rpi{}"),
    (re.compile(r"phanbell|coral dev", re.IGNORECASE), "coral-devboard"),
)
_ACCELERATORS: Final = ("edgetpu", "tensorrt", "cuda", "openvino", "hailo", "rknn")


def number(value: Any) -> float | None:
    """Return a number that a device told, None if it is none."""
    try:
        return as_float(value)
    except ContractError:
        return None


def board_names(board: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names by which a board is found: its target's, what it says of itself, and its kind of processor.

    Example:
        >>> board_names({"model": "Raspberry Pi 5 Model B Rev 1.0", "machine": "aarch64"})
        ('rpi5', 'Raspberry Pi 5 Model B Rev 1.0', 'aarch64')
        >>> board_names({"machine": "x86_64"})
        ('generic-x86', 'x86_64')
    """
    model, machine = _text(board.get("model")), _text(board.get("machine"))
    names = [name.format(*found.groups()) for form, name in _BOARDS if (found := form.search(model))][:1]
    if not model and machine in ("x86_64", "AMD64"):
        names.append("generic-x86")
    return tuple(one for one in (*names, model, machine) if one)


@dataclass(frozen=True)
class Known(Mapping[str, Any]):
    """The facts of one device, each worked out when it is asked for: of ten thousand most are never.

    Attributes:
        record: What it told.
        now: Seconds since 1970.
        tags: Label → its value; a tag has none, "".
        groups: Names of the groups that it is in.
        drift: Level of its newest judged window, and the estimated loss of accuracy as a share.
        latency_p95_us: Of its newest window of metrics.
        quarantined, cloned: What the server thinks of it.
        channels: Channels whose bundle it runs.
    """

    record: DeviceRecord
    now: float
    tags: Mapping[str, str] = field(default_factory=dict)
    groups: Iterable[str] = ()
    drift: tuple[str, float | None] | None = None
    latency_p95_us: float | None = None
    quarantined: bool = False
    cloned: bool = False
    channels: Iterable[str] = ()

    def __getitem__(self, name: str) -> Any:
        known = _FACTS.get(name)
        if known is not None:
            return known(self)
        if name.startswith("model:"):
            state = self.record.model(name.removeprefix("model:"))
            return (state.version, state.running) if state else None
        return self.tags.get(name) or None

    def __iter__(self) -> Iterator[str]:
        models = self.record.reported.models if self.record.reported else {}
        return iter(
            {*_FACTS, *(f"model:{name}" for name in models), *(name for name, value in self.tags.items() if value)}
        )

    def __len__(self) -> int:
        return len(list(iter(self)))

    def health(self, name: str) -> float | None:
        """Return a number of its last heartbeat, None if it told none."""
        return number(self.record.reported.health.get(name)) if self.record.reported else None


def facts_of(record: DeviceRecord, *, now: float, **known: Any) -> dict[str, Any]:
    """Return all facts of one device; arguments as of ``Known``.

    Example:
        >>> record = DeviceRecord("pi", 0.0, boot="b", session=1, last_seen=86_400.0, board={"machine": "x86_64"})
        >>> found = facts_of(record, now=3 * 86_400.0, tags={"site": "a", "lab": ""})
        >>> found["site"], found["tag"], found["last_seen"], found["online"], found["board"]
        ('a', ('lab',), 2.0, False, ('generic-x86', 'x86_64'))
    """
    return dict(Known(record, now, **known))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _scaled(value: float | None, by: float) -> float | None:
    return None if value is None else value / by


def _rejected(known: Known) -> tuple[str, ...]:
    ignored = known.record.reported.config.get("ignored") if known.record.reported else None
    return tuple(map(str, ignored)) if isinstance(ignored, Mapping) else ()


def _days_since(known: Known, then: float) -> float | None:
    return max(0.0, known.now - then) / 86_400 if then else None


def _board(name: str, read: Callable[[Any], Any]) -> Callable[[Known], Any]:
    return lambda known: read(known.record.board.get(name))


_FACTS: Final[Mapping[str, Callable[[Known], Any]]] = {
    "accelerator": lambda known: _accelerators(known.record),
    "agent": lambda known: known.record.agent_version,
    "board": lambda known: board_names(known.record.board),
    "boot": lambda known: known.record.boot,
    "channel": lambda known: tuple(known.channels),
    "clone": lambda known: known.cloned,
    "cores": _board("cores", number),
    "device": lambda known: known.record.device,
    "disk_free_mb": lambda known: known.health("disk_free_mb"),
    "drift": lambda known: known.drift,
    "enrolled": lambda known: _days_since(known, known.record.enrolled_at),
    "errors": lambda known: known.health("errors"),
    "group": lambda known: tuple(known.groups),
    "in_sync": lambda known: sync_of(known.record).ok,
    "inferences": lambda known: known.health("inferences"),
    "kernel": _board("kernel", _text),
    "last_seen": lambda known: _days_since(known, known.record.last_seen),
    "latency_p95_ms": lambda known: _scaled(known.latency_p95_us, 1000),
    "machine": _board("machine", _text),
    "model": lambda known: tuple(known.record.reported.models) if known.record.reported else (),
    "online": lambda known: is_online(known.record, known.now),
    "outbox_rows": lambda known: number(known.record.reported.outbox.get("rows")) if known.record.reported else None,
    "python": _board("python", _text),
    "quarantined": lambda known: known.quarantined,
    "rejected": _rejected,
    "rss_mb": lambda known: _scaled(known.health("rss_kb"), 1000),
    "runtime": lambda known: known.record.runtime,
    "runtime_version": lambda known: known.record.runtime_version,
    "tag": lambda known: tuple(name for name, value in known.tags.items() if not value),
    "temperature": lambda known: known.health("temperature_c"),
    "uptime_h": lambda known: _scaled(known.health("uptime_s"), 3600),
}


def _accelerators(record: DeviceRecord) -> tuple[str, ...]:
    told = record.board.get("accelerators")
    found = [str(one) for one in told] if isinstance(told, list) else []
    models = record.reported.models if record.reported else {}
    used = {record.runtime, *(_text(state.unrecognized.get("runtime")) for state in models.values())}
    found += [name for name in _ACCELERATORS if any(name in runtime.lower() for runtime in used)]
    if any(state.unrecognized.get("accelerator") == "failed" for state in models.values()):
        found.append("failed")
    return tuple(dict.fromkeys(found))
