# SPDX-License-Identifier: Apache-2.0
"""The words of a benchmark: the signed order for one device, and what the device says of how it goes.

A benchmark's order travels in the body of ``cmd/bench/<id>`` as ``{"order": Signed}``, signed by the server's job key
like jobs and captures. It names its device and its end, so a captured one is worth nothing elsewhere or later; a
device carries an id out once. What is measured is a registered bundle, which the targets key has signed too, or files
that nobody but the server vouches for: those need the word of the person at the device (``[bench] unregistered``).

The device answers on ``cmd/bench/<id>/result``: ``{"ok": true, "state": …, "why": …}``, or ``"ok": false`` with
``error``. The last word and the files come by HTTPS, each with a receipt.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from edge_contract import PROTOCOL_VERSION
from edge_contract.errors import MessageError
from edge_contract.fields import Fields
from edge_contract.messages import Message, load_message, open_message
from edge_contract.topics import is_name

__all__ = [
    "MAX_FILES",
    "MAX_FILE_BYTES",
    "MAX_RESULT_BYTES",
    "OF_THE_DEVICE",
    "RESULT",
    "STATES",
    "SUFFIXES",
    "BenchFile",
    "BenchJob",
    "BenchOutcome",
    "file_for",
]

STATES: Final = ("accepted", "busy", "waiting", "downloading", "measuring", "sending")
"""What a device says of a benchmark that it has taken; ``busy``: it has another one in hand, ask again."""

RESULT: Final = "result.json"
"""The file of a result in the form ``edgebench/1``; others are raw samples."""
MAX_RESULT_BYTES: Final = 1_000_000
MAX_FILE_BYTES: Final = 16_000_000
MAX_FILES: Final = 16
"""Bounds of what a device sends: of the result, of every other file, and how many there are."""

OF_THE_DEVICE: Final = (
    "artefact", "sha256", "format", "bundle", "bundle_digest", "runtime", "delegate", "data", "energy",
)  # fmt: skip
"""Fields of a plan that a device fills in itself; a plan that travels has none of them, and they are not believed."""

SUFFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "litert": (".tflite",),
    "tflite-runtime": (".tflite",),
    "edgetpu": (".tflite",),
    "onnxruntime": (".onnx",),
}
"""Runtime of a device → files that it can run."""


@dataclass(frozen=True)
class BenchFile:
    """One file that is no part of a registered bundle: its name, its SHA-256 and its size in bytes."""

    name: str
    sha256: str
    size: int

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": self.sha256, "size": self.size}

    @classmethod
    def from_json(cls, document: Any, where: str = "file") -> "BenchFile":
        f = Fields(document, where, MessageError)
        found = cls(f.text("name"), f.digest("sha256"), f.integer("size", minimum=1))
        if not is_name(found.name):  # it becomes a path
            raise MessageError(f"{found.name[:70]!r} is not a name", where=f"{where}.name")
        return found


def file_for(files: tuple[BenchFile, ...], runtime: str) -> BenchFile | None:
    """Return the file that a runtime can run, None if there is none.

    Example:
        >>> files = (BenchFile("m.onnx", "0" * 64, 1), BenchFile("m.tflite", "1" * 64, 1))
        >>> [file_for(files, name).name for name in ("litert", "onnxruntime")]
        ['m.tflite', 'm.onnx']
    """
    wanted = SUFFIXES.get(runtime, ())
    return next((one for one in files if PurePosixPath(one.name).suffix in wanted), None)


@dataclass(frozen=True)
class BenchJob(Message):
    """An order to one device; travels inside ``Signed``.

    Attributes:
        id: Its name in the topic; a device carries it out once.
        run: The benchmark of which this is one device's part.
        device: Who is to measure.
        model: Name of the registered model, empty for plain files.
        bundle: Its bundle, empty for plain files.
        files: The plain files, one for each runtime that may be asked; empty for a bundle.
        plan: How to measure: ``benchmarks.plan.BenchPlan`` as JSON, without the paths.
        issued_at, expires_at: Seconds since 1970; what has not begun by then is not begun.
        max_seconds: Longest time of the measurement itself.
        max_bytes: Most bytes on the device's disk: files, results and what lies beside them.
    """

    id: str
    run: str
    device: str
    model: str
    bundle: str
    files: tuple[BenchFile, ...]
    plan: Mapping[str, Any]
    issued_at: float
    expires_at: float
    max_seconds: float
    max_bytes: int
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def is_registered(self) -> bool:
        """True for a bundle that the targets key has signed."""
        return bool(self.bundle)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.unrecognized,
            "v": PROTOCOL_VERSION,
            "kind": "benchmark",  # the job key signs other documents, too: none can pass for another
            "id": self.id,
            "run": self.run,
            "device": self.device,
            "model": self.model,
            "bundle": self.bundle,
            "files": [one.to_json() for one in self.files],
            "plan": dict(self.plan),
            "issued_at": self.issued_at,
            "expires_at": self.expires_at,
            "max_seconds": self.max_seconds,
            "max_bytes": self.max_bytes,
        }

    @classmethod
    def from_json(cls, document: Any) -> "BenchJob":
        """Read an order.

        Raises:
            MessageError: Malformed, another kind of order, or it names neither a bundle nor files, or both.
        """
        f = open_message(document, "benchmark")
        f.text("kind", among=("benchmark",))
        files = f.items("files", [])
        made = cls(
            f.text("id"),
            f.text("run"),
            f.text("device"),
            f.text("model", ""),
            f.digest("bundle") if f.text("bundle", "") else "",
            tuple(BenchFile.from_json(one, f"benchmark.files[{i}]") for i, one in enumerate(files)),
            f.object("plan"),
            f.number("issued_at"),
            f.number("expires_at"),
            f.number("max_seconds"),
            f.integer("max_bytes", minimum=1),
            f.rest(),
        )
        made.check()
        return made

    def check(self) -> None:
        """Raise MessageError unless ids are names, and either a bundle or files are to be measured."""
        for what, name in (("id", self.id), ("run", self.run)):
            if not is_name(name):  # it becomes the name of a folder
                raise MessageError(f"{name[:70]!r} is not a name", where=f"benchmark.{what}")
        if bool(self.files) == bool(self.bundle) or len(self.files) > MAX_FILES:
            raise MessageError("names neither a bundle nor files, or both", where="benchmark")
        if len({one.name for one in self.files}) != len(self.files):
            raise MessageError("two files have one name", where="benchmark.files")
        if not self.max_seconds > 0:
            raise MessageError(f"max_seconds = {self.max_seconds:g}", where="benchmark")

    @classmethod
    def from_bytes(cls, data: bytes) -> "BenchJob":
        return cls.from_json(load_message(data, "benchmark"))


@dataclass(frozen=True)
class BenchOutcome(Message):
    """A device's last word on a benchmark.

    Attributes:
        id: Of the order.
        ok: There is a result.
        why: Why not; or what a reader must know, such as that a model's own inference went on.
        files: Name → SHA-256 of what was sent.
        facts: What the agent saw: seconds, peak size of the scratch folder.
        unrecognized: Fields of a newer agent.
    """

    id: str
    ok: bool
    why: str
    files: Mapping[str, str]
    facts: Mapping[str, Any] = field(default_factory=dict)
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.unrecognized,
            "v": PROTOCOL_VERSION,
            "id": self.id,
            "ok": self.ok,
            "why": self.why,
            "files": dict(self.files),
            "facts": dict(self.facts),
        }

    @classmethod
    def from_bytes(cls, data: bytes) -> "BenchOutcome":
        f = open_message(load_message(data, "benchmark outcome"), "benchmark outcome")
        files = Fields(f.object("files"), "benchmark outcome.files", MessageError)
        named = {name: files.digest(name) for name in f.object("files")}
        if len(named) > MAX_FILES or not all(is_name(name) for name in named):
            raise MessageError("names too many files, or what is no name", where="benchmark outcome.files")
        return cls(f.text("id"), f.flag("ok"), f.text("why", "")[:2000], named, f.object("facts", {}), f.rest())
