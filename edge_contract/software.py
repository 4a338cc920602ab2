# SPDX-License-Identifier: Apache-2.0
"""What a release of the agent's own software says of itself: a ``manifest.json`` that lists wheels.

It is a bundle like a model's: its id is the SHA-256 of the manifest's canonical bytes, every file is a blob of its
own, and it is signed and ordered in the same way. Instead of artefacts for runtimes it has wheels for platforms; a
wheel that fits several is listed once. ``read`` reads either kind.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edge_contract import PROTOCOL_VERSION, canonical
from edge_contract.artefact import Artefact
from edge_contract.errors import ContractError, ManifestError
from edge_contract.fields import Fields
from edge_contract.manifest import MAX_MANIFEST_BYTES, BundleFile, Manifest
from edge_contract.messages import SOFTWARE

__all__ = ["SCHEMA", "SOFTWARE", "AnyManifest", "Platform", "SoftwareManifest", "here", "read"]

SCHEMA: Final = "strop.software/1"


@dataclass(frozen=True)
class Platform:
    """One kind of device, and what is installed on it.

    Attributes:
        python: Version of the interpreter, such as ``3.11``.
        machine: Kind of processor by the kernel's word, such as ``aarch64``.
        wheels: Paths of the wheels, in the manifest's files.
    """

    python: str
    machine: str
    wheels: tuple[str, ...]
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        known = {"python": self.python, "machine": self.machine, "wheels": list(self.wheels)}
        return {**self.unrecognized, **known}

    @classmethod
    def from_json(cls, document: Any, where: str) -> "Platform":
        f = Fields(document, where, ManifestError)
        return cls(f.text("python"), f.text("machine"), f.texts("wheels"), f.rest())


@dataclass(frozen=True)
class SoftwareManifest:
    """A whole manifest of a release.

    Attributes:
        version: The agent's version, such as ``0.2.0``.
        minimum_protocol: The oldest protocol that this release speaks.
        platforms: What is installed where.
        lineage: Facts for people, such as the release's source.
        files: Every wheel, sorted by path. Beside the usual fields each says ``name`` and ``version`` of its
            distribution, and ``unpacked`` and ``members``: bytes and files that it becomes.
    """

    version: str
    minimum_protocol: int
    platforms: tuple[Platform, ...]
    lineage: dict[str, Any]
    files: tuple[BundleFile, ...]
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    model: str = field(default=SOFTWARE, init=False)
    task: str = field(default="software", init=False)
    labels: tuple[str, ...] = field(default=(), init=False)
    artefacts: tuple[Artefact, ...] = field(default=(), init=False)
    profiles: Mapping[str, str] = field(default_factory=dict, init=False)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, unknown fields included."""
        return {
            **self.unrecognized,
            "schema": SCHEMA,
            "model": SOFTWARE,
            "version": self.version,
            "minimum_protocol": self.minimum_protocol,
            "platforms": [platform.to_json() for platform in self.platforms],
            "lineage": self.lineage,
            "files": [entry.to_json() for entry in self.files],
        }

    def to_bytes(self) -> bytes:
        """Return the canonical bytes, whose SHA-256 is the release's id."""
        return canonical.dumps(self.to_json())

    @property
    def bundle_id(self) -> str:
        """The release's id: SHA-256 of the canonical bytes."""
        return canonical.digest(self.to_bytes())

    def file(self, path: str) -> BundleFile:
        """Return the entry of a path.

        Raises:
            ManifestError: The release has no such file.
        """
        for entry in self.files:
            if entry.path == path:
                return entry
        raise ManifestError(f"the release has no file {path!r}", where=f"manifest of {SOFTWARE} {self.version}")

    def wheels_for(self, python: str, machine: str) -> tuple[BundleFile, ...]:
        """Return the wheels for one kind of device.

        Raises:
            ManifestError: The release was not made for it.
        """
        for platform in self.platforms:
            if (platform.python, platform.machine) == (python, machine):
                return tuple(self.file(path) for path in platform.wheels)
        known = ", ".join(f"Python {p.python} on {p.machine}" for p in self.platforms)
        what = f"no wheels for Python {python} on {machine}"
        raise ManifestError(what, where=f"manifest of {SOFTWARE} {self.version}", fix=f"it has them for {known}")

    def check_protocol(self) -> None:
        """Raise ManifestError if this side is too old to talk to the release."""
        if self.minimum_protocol > PROTOCOL_VERSION:
            what = f"it speaks protocol {self.minimum_protocol} or newer, this side speaks {PROTOCOL_VERSION}"
            raise ManifestError(what, where=f"{SOFTWARE} {self.version}", fix="update by a release between the two")

    @classmethod
    def from_bytes(cls, data: bytes) -> "SoftwareManifest":
        """Return the manifest in canonical bytes.

        Raises:
            ManifestError: Malformed, of another schema, not canonical, a path that leaves the release or stands
                twice, a platform without wheels or twice, or a wheel that no file entry backs.
        """
        document = _decoded(data)
        manifest = cls.from_json(document)
        if canonical.dumps(document) != data:
            raise ManifestError("the bytes are not canonical JSON", where="manifest", fix="make the release again")
        return manifest

    @classmethod
    def from_json(cls, document: Any) -> "SoftwareManifest":
        """Return the manifest in a decoded JSON object; raises ManifestError as ``from_bytes`` does."""
        f = Fields(document, "manifest", ManifestError)
        f.text("schema", among=(SCHEMA,))
        f.text("model", among=(SOFTWARE,))
        found = cls(
            f.text("version"),
            f.integer("minimum_protocol", minimum=1),
            tuple(Platform.from_json(p, f"manifest.platforms[{i}]") for i, p in enumerate(f.items("platforms"))),
            f.object("lineage", {}),
            tuple(BundleFile.from_json(e, f"manifest.files[{i}]") for i, e in enumerate(f.items("files"))),
            f.rest(),
        )
        found._check()
        return found

    def _check(self) -> None:
        paths = [entry.path for entry in self.files]
        names = [path.rpartition("/")[2] for path in paths]  # they lie in one folder when they are installed
        if len(set(names)) != len(names):
            raise ManifestError("a file stands twice", where="manifest.files")
        kinds = [(p.python, p.machine) for p in self.platforms]
        if not kinds or len(set(kinds)) != len(kinds):
            raise ManifestError("no platform, or one twice", where="manifest.platforms")
        for i, platform in enumerate(self.platforms):
            stray = next((path for path in platform.wheels if path not in paths), None)
            if stray is not None or not platform.wheels:
                what = f"file {stray!r} is named but not listed" if stray else "no wheels"
                raise ManifestError(what, where=f"manifest.platforms[{i}]")


AnyManifest = Manifest | SoftwareManifest


def _decoded(data: bytes) -> Any:
    if len(data) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"{len(data)} bytes, more than {MAX_MANIFEST_BYTES}", where="manifest")
    try:
        return canonical.loads(data, where="manifest")
    except ContractError as error:
        raise ManifestError(error.what, where="manifest") from error


def read(data: bytes) -> AnyManifest:
    """Return a manifest of either kind, told apart by its schema.

    Raises:
        ManifestError: As ``Manifest.from_bytes`` and ``SoftwareManifest.from_bytes``, or a model with our name.
    """
    document = _decoded(data)
    if isinstance(document, dict) and document.get("schema") == SCHEMA:
        return SoftwareManifest.from_bytes(data)
    manifest = Manifest.from_bytes(data)
    if manifest.model == SOFTWARE:
        raise ManifestError(f"'{SOFTWARE}' is the agent's own name", where="manifest.model", fix="use another one")
    return manifest


def here() -> tuple[str, str]:
    """Return Python version and machine of this very process.

    Example:
        >>> python, machine = here()
        >>> python.startswith("3."), bool(machine)
        (True, True)
    """
    machine = os.uname().machine
    if machine == "aarch64" and sys.maxsize < 1 << 32:  # a 32-bit system under a 64-bit kernel
        machine = "armv7l"
    return f"{sys.version_info[0]}.{sys.version_info[1]}", machine
