# SPDX-License-Identifier: Apache-2.0
"""A wheelhouse's wheels in the words by which fitting ones are chosen; edge_contract.wheel reads what each says."""

from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.tags import Tag, parse_tag
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from edge_contract import wheel
from edge_contract.errors import BundleError

__all__ = ["Wheel", "read", "read_all"]


@dataclass(frozen=True)
class Wheel:
    """One wheel.

    Attributes:
        path: The file.
        name: Normalised name of its distribution.
        version: Its version.
        tags: What it fits.
        requires: What it needs.
        sha256, size: Of the file.
        unpacked, members: Bytes and files that it becomes.
    """

    path: Path
    name: str
    version: str
    tags: frozenset[Tag]
    requires: tuple[Requirement, ...]
    sha256: str
    size: int
    unpacked: int
    members: int


def read_all(folder: Path) -> list[Wheel]:
    """Return the wheels of a folder, sorted by name.

    Raises:
        BundleError: There is none, or one is damaged.
    """
    paths = sorted(folder.glob("*.whl")) if folder.is_dir() else []
    if not paths:
        fix = "pip download --only-binary=:all: --platform manylinux_2_28_aarch64 --python-version 3.11 -d FOLDER …"
        raise BundleError("no wheels here", where=str(folder), fix=fix)
    return sorted((read(path) for path in paths), key=lambda wheel: (wheel.name, wheel.path.name))


def read(path: Path) -> Wheel:
    """Return what a wheel says; every file in it has the hash of its record.

    Raises:
        BundleError: No wheel, damaged, or its names contradict each other.
    """
    try:
        parse_wheel_filename(path.name)
        found = wheel.read(path)
        requires = tuple(Requirement(text) for text in found.requires)
    except (InvalidWheelFilename, ValueError) as error:
        raise BundleError(str(error), where=str(path), fix="build or download it again") from error
    tags = frozenset(tag for text in found.tags for tag in parse_tag(text))
    counted = (found.sha256, found.size, found.unpacked, found.members)
    return Wheel(path, found.name, found.version, tags, requires, *counted)
