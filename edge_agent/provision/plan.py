# SPDX-License-Identifier: Apache-2.0
"""``strop/plan.json``: what the first boot of this card is to do, and the digest of every file that it may use."""

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_contract import canonical
from edge_contract.enrolment import check_device_name
from edge_contract.errors import BundleError, ContractError, UsageError
from edge_contract.fields import Fields
from edge_contract.manifest import BundleFile
from edge_contract.software import here

__all__ = ["FOLDER", "SCHEMA", "Plan", "read"]

SCHEMA: Final = "strop.first-boot/1"
FOLDER: Final = "strop"
_MOST_BYTES: Final = 1_000_000
_PIECE: Final = 1 << 20


@dataclass(frozen=True)
class Plan:
    """What a card's person decided.

    Attributes:
        folder: The folder ``strop`` on the boot partition.
        digest: SHA-256 of the plan's bytes: another plan is another first boot.
        device: The device's name.
        server: The enrolment address; empty: the device stays alone.
        model: Name of its model, may be empty.
        runtime: ``litert``, ``onnxruntime`` or ``tflite-runtime``.
        python, machine: What the wheels were made for.
        factory: Id of the factory model's bundle, empty without one.
        coral: Whether the udev rule of Coral sticks is wanted.
        coral_package: Path of libedgetpu's package, empty without one.
        files: Every file but plan and token.
    """

    folder: Path
    digest: str
    device: str
    server: str
    model: str
    runtime: str
    python: str
    machine: str
    factory: str
    coral: bool
    coral_package: str
    files: tuple[BundleFile, ...]

    @property
    def wheels(self) -> tuple[BundleFile, ...]:
        """The wheels, sorted by path."""
        return tuple(entry for entry in self.files if entry.path.startswith("wheels/") and entry.path.endswith(".whl"))

    @property
    def token(self) -> Path:
        """Where the one-time token lies."""
        return self.folder / "token"

    def path(self, name: str) -> Path | None:
        """Return the path of a file that the plan lists; None without one."""
        return self.folder / name if any(entry.path == name for entry in self.files) else None

    def check_machine(self) -> None:
        """Raise UsageError unless the wheels are for this very Python and processor."""
        found = here()
        if found != (self.python, self.machine):
            what = f"the wheels are for Python {self.python} on {self.machine}, this is Python {found[0]} on {found[1]}"
            fix = f"strop flash wheelhouse --python {found[0]} --arch {found[1]}, and write the card again"
            raise UsageError(what, where=f"{sys.executable}", fix=fix)

    def damaged(self) -> Iterator[str]:
        """Yield the paths of files that are missing or not what the plan says."""
        for entry in self.files:
            path = self.folder / entry.path
            try:
                if path.stat().st_size != entry.size or _digest(path) != entry.sha256:
                    yield entry.path
            except OSError:
                yield entry.path


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            found.update(piece)
    return found.hexdigest()


def read(boot: Path) -> Plan:
    """Return the plan of a boot partition.

    Args:
        boot: Where it is mounted.

    Raises:
        BundleError: There is none, or it is damaged.
    """
    folder = boot / FOLDER
    path = folder / "plan.json"
    try:
        data = path.read_bytes()[: _MOST_BYTES + 1]
        document = json.loads(data)
    except FileNotFoundError as error:
        raise BundleError("there is no plan for a first boot", where=str(path), fix="write the card again") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot be read: {error}", where=str(path), fix="write the card again") from error
    try:
        return _parse(document, folder, canonical.digest(data))
    except ContractError as error:
        raise BundleError(error.what, where=f"{path} {error.where}", fix="write the card again") from error


def _brought(folder: Path) -> str:
    """Return the name that was brought beside a plan for any device."""
    try:
        return (folder / "device").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _parse(document: Any, folder: Path, digest: str) -> Plan:
    f = Fields(document, "plan", ContractError)
    f.text("schema", among=(SCHEMA,))
    device = f.text("device", "") or _brought(folder)
    check_device_name(device)
    return Plan(
        folder=folder,
        digest=digest,
        device=device,
        server=f.text("server", ""),
        model=f.text("model", ""),
        runtime=f.text("runtime"),
        python=f.text("python"),
        machine=f.text("machine"),
        factory=f.text("factory", ""),
        coral=f.flag("coral", False),
        coral_package=f.text("coral_package", ""),
        files=tuple(BundleFile.from_json(e, f"plan.files[{i}]") for i, e in enumerate(f.items("files"))),
    )
