# SPDX-License-Identifier: Apache-2.0
"""Benchmarks on devices: what an operator may ask for, and what becomes of it on each device. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from edge_contract.bench_job import (
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_RESULT_BYTES,
    OF_THE_DEVICE,
    RESULT,
    STATES,
    BenchFile,
    BenchJob,
)
from edge_contract.errors import MessageError, UsageError
from edge_contract.fields import Fields

__all__ = [
    "ENDED",
    "ON_DEVICE",
    "OPEN",
    "BenchPart",
    "BenchRun",
    "Model",
    "ended",
    "has_ended",
    "heard",
    "job_for",
    "read_request",
    "why_too_large",
]

MAX_DEVICES: Final = 200
MAX_HOURS: Final = 24 * 7
MAX_SECONDS: Final = 3600.0 * 4
MAX_BYTES: Final = 2_000_000_000
GRACE_S: Final = 3600.0
"""What was measured before the end of an order may still come in so long after it."""

ON_DEVICE: Final = ("accepted", "waiting", "downloading", "measuring", "sending", "cancelling")
"""A device has the order in hand."""
OPEN: Final = ("queued", "sent", *ON_DEVICE)
"""``queued``: another benchmark of the device comes first. ``sent``: it was said, and not answered yet."""
ENDED: Final = ("done", "failed", "refused", "cancelled", "expired")


@dataclass(frozen=True)
class Model:
    """What is measured: a registered bundle by name, version and id, or plain files."""

    name: str = ""
    version: str = ""
    bundle: str = ""
    files: tuple[BenchFile, ...] = ()

    def to_json(self) -> dict[str, Any]:
        files = [one.to_json() for one in self.files]
        return {"name": self.name, "version": self.version, "bundle": self.bundle, "files": files}

    @classmethod
    def from_json(cls, document: Any, where: str = "benchmark.model") -> "Model":
        f = Fields(document, where, MessageError)
        bundle = f.digest("bundle") if f.text("bundle", "") else ""
        files = tuple(BenchFile.from_json(one, f"{where}.files[{i}]") for i, one in enumerate(f.items("files", [])))
        return cls(f.text("name", ""), f.text("version", ""), bundle, files)


@dataclass(frozen=True)
class BenchRun:
    """One benchmark; times in seconds since 1970.

    Attributes:
        query: Which devices, as it was asked.
        plan: ``BenchPlan`` as JSON, without what each device fills in: paths, hashes, its runtime.
        max_seconds, max_bytes: Bounds for each device.
    """

    id: str
    actor: str
    query: str
    model: Model
    plan: Mapping[str, Any]
    started_at: float
    expires_at: float
    max_seconds: float
    max_bytes: int

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "actor": self.actor,
            "query": self.query,
            "model": self.model.to_json(),
            "plan": dict(self.plan),
            "started_at": self.started_at,
            "expires_at": self.expires_at,
            "max_seconds": self.max_seconds,
            "max_bytes": self.max_bytes,
        }

    @classmethod
    def from_json(cls, document: Any) -> "BenchRun":
        f = Fields(document, "benchmark", MessageError)
        return cls(
            f.text("id"),
            f.text("actor"),
            f.text("query"),
            Model.from_json(f.object("model")),
            f.object("plan"),
            f.number("started_at"),
            f.number("expires_at"),
            f.number("max_seconds"),
            f.integer("max_bytes"),
        )


def read_request(document: Any, run_id: str, actor: str, now: float) -> BenchRun:
    """Return the benchmark that an operator's request asks for; the bundle of a name is looked up by the caller.

    Args:
        document: ``{"model": {"name", "version"} or {"bundle"} or {"files": [...]}, "query", "plan": {...}, "hours",
            "max_seconds", "max_bytes"}``.
        run_id: Its id.
        actor: Who asks.
        now: Seconds since 1970.

    Raises:
        UsageError: A bound that is missing or too large, or a plan that names what only a device knows.
        MessageError: Malformed.
    """
    f = Fields(document, "benchmark", MessageError)
    model, plan, query = Model.from_json(f.object("model")), f.object("plan", {}), f.text("query")
    if sum(map(bool, (model.name, model.bundle, model.files))) != 1:
        raise UsageError("name one model: a name, a bundle or files", where="benchmark.model")
    if not query.strip():
        raise UsageError("names no devices", where="benchmark.query", fix="such as 'board:rpi5 and tag:lab', or 'all'")
    if foreign := sorted(set(plan) & set(OF_THE_DEVICE)):
        fix = "leave it out: the device fills it in"
        raise UsageError(f"a plan for a fleet may not say '{foreign[0]}'", where="benchmark.plan", fix=fix)
    hours, seconds = f.number("hours", 2.0), f.number("max_seconds", 1800.0)
    size = f.integer("max_bytes", 200_000_000)
    for name, value, most in (("hours", hours, MAX_HOURS), ("max_seconds", seconds, MAX_SECONDS)):
        _within(name, value, most)
    _within("max_bytes", size, MAX_BYTES)
    if len(model.files) > MAX_FILES or sum(one.size for one in model.files) > size:
        raise UsageError("the files are too many, or larger than max_bytes", where="benchmark.model.files")
    return BenchRun(run_id, actor, query, model, plan, now, now + hours * 3600, seconds, size)


def _within(name: str, value: float, most: float) -> None:
    if not 0 < value <= most:
        raise UsageError(f"{name} = {value:g} is not above 0 and at most {most:g}", where="benchmark")


@dataclass(frozen=True)
class BenchPart:
    """One device's part of a benchmark.

    Attributes:
        id: Of its order.
        state: One of ``OPEN`` or ``ENDED``.
        why: In words: what it waits for, why it failed, what a reader must know of the result.
        said_at: When the order was last said, 0 for never.
        facts: What the agent saw, and the summary of the result.
    """

    id: str
    run: str
    device: str
    state: str
    why: str
    asked_at: float
    said_at: float
    changed_at: float
    expires_at: float
    facts: Mapping[str, Any]

    @property
    def is_open(self) -> bool:
        """True until it has ended."""
        return self.state in OPEN

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "facts": dict(self.facts)}


def job_for(run: BenchRun, part: BenchPart) -> BenchJob:
    """Return the order that a device of a benchmark gets."""
    model = run.model
    return BenchJob(
        part.id,
        run.id,
        part.device,
        model.name,
        model.bundle,
        model.files,
        run.plan,
        run.started_at,
        run.expires_at,
        run.max_seconds,
        run.max_bytes,
    )


def heard(part: BenchPart, answer: Mapping[str, Any], now: float) -> BenchPart:
    """Return a part after a device's word on ``cmd/bench/<id>/result``; a word on what has ended changes nothing.

    Example:
        >>> part = BenchPart("b1-0", "b1", "pi", "sent", "", 0.0, 1.0, 1.0, 99.0, {})
        >>> [heard(part, {"ok": True, "state": state}, 2.0).state for state in ("accepted", "busy", "measuring")]
        ['accepted', 'sent', 'measuring']
        >>> heard(part, {"ok": False, "error": "unknown command 'bench'; this agent knows ping"}, 2.0).state
        'refused'
    """
    if not part.is_open:
        return part
    if not answer.get("ok"):
        if part.state in ON_DEVICE and part.state != "cancelling":
            return part  # a second copy of the order was refused; the first one is in hand
        return ended(part, "refused", _refusal(answer), now)
    state = answer.get("state")
    if state == "cancelled":
        return ended(part, "cancelled", _text(answer.get("why")), now)
    if state not in STATES or part.state == "cancelling" or (state == "accepted" and part.state in ON_DEVICE):
        return part
    if state == "busy":
        return replace(part, why=_text(answer.get("why")) or "it is busy with another benchmark")
    return replace(part, state=str(state), why=_text(answer.get("why")), changed_at=now)


def _refusal(answer: Mapping[str, Any]) -> str:
    said = _text(answer.get("error")) or "the device gave no reason"
    older = "; its agent is of an older version" if said.startswith("unknown command") else ""
    return f"{said}{older}"


def _text(value: Any) -> str:
    return value[:500] if isinstance(value, str) else ""


def ended(part: BenchPart, state: str, why: str, now: float) -> BenchPart:
    """Return a part at its end."""
    return replace(part, state=state, why=why[:2000], changed_at=now)


def has_ended(part: BenchPart, now: float) -> BenchPart:
    """Return a part, ended if its time is over: at its end if nothing began, an hour later if something did."""
    late = part.expires_at + (GRACE_S if part.state in ON_DEVICE else 0.0)
    if not part.is_open or now < late:
        return part
    words = {
        "queued": "its turn never came",
        "sent": part.why or "the device never answered",
        "cancelling": "it was withdrawn, and the device never answered",
    }
    why = words.get(part.state, f"nothing came after '{part.state}'")
    return ended(part, "cancelled" if part.state == "cancelling" else "expired", why, now)


def why_too_large(name: str, size: int, held: int) -> str:
    """Return why a file of a result is not taken, empty if it is; ``held`` counts the other ones.

    Example:
        >>> why_too_large("result.json", 1_000, 0), why_too_large("result.json", 2_000_000, 0)
        ('', '2000000 bytes, more than 1000000')
    """
    most = MAX_RESULT_BYTES if name == RESULT else MAX_FILE_BYTES
    if size > most:
        return f"{size} bytes, more than {most}"
    return f"more than {MAX_FILES} files" if held >= MAX_FILES else ""
