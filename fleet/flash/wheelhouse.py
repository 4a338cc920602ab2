# SPDX-License-Identifier: Apache-2.0
"""A folder of wheels from which a board installs its agent without a network.

::

    *.whl                 what strop[agent] and one runtime need, for one Python on one kind of processor
    requirements.txt      every wheel by name, version and SHA-256: pip install --no-index --require-hashes …
    wheelhouse.json       the same for programs, and what was left out of each wheel

``wheelhouse_make`` makes it, ``read`` checks it.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_contract import wheel
from edge_contract.errors import BundleError, ContractError, UsageError
from edge_contract.fields import Fields

__all__ = ["INDEX", "RUNTIMES", "SCHEMA", "Wheelhouse", "WheelhouseFile", "read"]

SCHEMA: Final = "strop.wheelhouse/1"
INDEX: Final = "wheelhouse.json"
REQUIREMENTS: Final = "requirements.txt"
OUR_NAME: Final = "strop"
RUNTIMES: Final = {"litert": "agent-litert", "onnxruntime": "agent-onnx", "tflite-runtime": "agent-tflite"}
"""Runtime → the extra of strop that brings it."""


@dataclass(frozen=True)
class WheelhouseFile:
    """One wheel: its file's name, what it is, and the bytes that it unpacks to, before and after it was slimmed."""

    file: str
    name: str
    version: str
    sha256: str
    size: int
    unpacked: int
    original_unpacked: int
    original_sha256: str

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_json(cls, document: Any, where: str) -> "WheelhouseFile":
        f = Fields(document, where, ContractError)
        return cls(
            f.text("file"), f.text("name"), f.text("version"), f.digest("sha256"), f.integer("size", minimum=1),
            f.integer("unpacked", minimum=0), f.integer("original_unpacked", minimum=0), f.digest("original_sha256"),
        )  # fmt: skip


@dataclass(frozen=True)
class Wheelhouse:
    """A wheelhouse that was checked.

    Attributes:
        folder: Where it lies.
        python, machine, runtime: What it is for.
        wheels: What is in it, sorted by file.
    """

    folder: Path
    python: str
    machine: str
    runtime: str
    wheels: tuple[WheelhouseFile, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """All its files."""
        return tuple(self.folder / name for name in (*(one.file for one in self.wheels), REQUIREMENTS, INDEX))

    @property
    def ours(self) -> Path:
        """The wheel of our own agent."""
        return self.folder / next(one.file for one in self.wheels if one.name == OUR_NAME)

    @property
    def version(self) -> str:
        """The agent's version."""
        return next(one.version for one in self.wheels if one.name == OUR_NAME)

    @property
    def size(self) -> int:
        """Bytes of all wheels."""
        return sum(one.size for one in self.wheels)

    @property
    def unpacked(self) -> int:
        """Bytes that they unpack to."""
        return sum(one.unpacked for one in self.wheels)

    @property
    def original_unpacked(self) -> int:
        """Bytes that the original wheels would unpack to."""
        return sum(one.original_unpacked for one in self.wheels)

    def index(self) -> bytes:
        """Return the index's bytes."""
        whose = {"schema": SCHEMA, "python": self.python, "machine": self.machine, "runtime": self.runtime}
        document = {**whose, "wheels": [one.to_json() for one in self.wheels]}
        return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()

    def requirements(self) -> bytes:
        """Return the lines by which pip installs it."""
        head = f"# pip install --no-index --find-links . --no-deps --require-hashes -r {REQUIREMENTS}\n"
        lines = (f"{one.name}=={one.version} --hash=sha256:{one.sha256}\n" for one in self.wheels)
        return (head + "".join(lines)).encode()

    def check_fits(self, python: str, machine: str) -> None:
        """Raise UsageError unless it is for this Python and processor."""
        if (self.python, self.machine) != (python, machine):
            what = f"it is for Python {self.python} on {self.machine}, not for Python {python} on {machine}"
            fix = f"strop flash wheelhouse --python {python} --arch {machine} --runtime {self.runtime} --out DIR"
            raise UsageError(what, where=str(self.folder), fix=fix)


def read(folder: Path) -> Wheelhouse:
    """Return a wheelhouse after a look at every byte.

    Raises:
        UsageError: There is none in this folder.
        BundleError: It is damaged: a wheel is missing, changed, or names itself otherwise.
    """
    fix = "strop flash wheelhouse makes one"
    try:
        document = json.loads((folder / INDEX).read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"is no wheelhouse: {error}", where=str(folder), fix=fix) from error
    try:
        found = _parse(document, folder)
    except ContractError as error:
        raise BundleError(error.what, where=f"{folder / INDEX} {error.where}", fix=fix) from error
    for one in found.wheels:
        _check(folder / one.file, one)
    if (folder / REQUIREMENTS).read_bytes() != found.requirements():
        raise BundleError("is not what the index says", where=str(folder / REQUIREMENTS), fix=fix)
    return found


def _parse(document: Any, folder: Path) -> Wheelhouse:
    f = Fields(document, "wheelhouse", ContractError)
    f.text("schema", among=(SCHEMA,))
    items = tuple(WheelhouseFile.from_json(one, f"wheels[{i}]") for i, one in enumerate(f.items("wheels")))
    for one in items:
        if Path(one.file).name != one.file or not one.file.endswith(".whl"):
            raise ContractError(f"{one.file!r} is no wheel's name", where="wheels")
    if sum(one.name == OUR_NAME for one in items) != 1:
        raise ContractError(f"no wheel of {OUR_NAME}, or several", where="wheels")
    runtime = f.text("runtime", among=tuple(RUNTIMES))
    return Wheelhouse(folder, f.text("python"), f.text("machine"), runtime, items)


def _check(path: Path, one: WheelhouseFile) -> None:
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BundleError(f"cannot be read: {error}", where=str(path), fix="make the wheelhouse again") from error
    if digest != one.sha256:
        raise BundleError("is not the wheel that the index names", where=str(path), fix="make the wheelhouse again")
    told = wheel.read(path)
    if (told.name, told.version) != (one.name, one.version):
        what = f"holds {told.name} {told.version}"
        raise BundleError(what, where=str(path), fix="make the wheelhouse again")
