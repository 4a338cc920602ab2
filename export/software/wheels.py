# SPDX-License-Identifier: Apache-2.0
"""What a wheel says of itself, read from the file and checked against its own record.

Standard: the binary distribution format (PEP 427) and core metadata of the Python packaging user guide.
"""

import base64
import csv
import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import BytesParser
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from edge_contract.errors import BundleError

__all__ = ["Wheel", "read", "read_all"]

_FIX: Final = "build or download it again"
MAX_UNPACKED: Final = 2_000_000_000
"""A wheel that becomes more is a mistake, or a bomb."""


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
    where = str(path)
    try:
        name, version, _, tags = parse_wheel_filename(path.name)
        data = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            unpacked = sum(entry.file_size for entry in entries)
            if unpacked > MAX_UNPACKED:
                raise BundleError(f"becomes {unpacked} bytes", where=where, fix=_FIX)
            base = _info(archive, where)
            said = BytesParser().parsebytes(archive.read(f"{base}/METADATA"))
            _check_record(archive, base, where)
    except InvalidWheelFilename as error:
        raise BundleError(str(error), where=where, fix=_FIX) from error
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise BundleError(f"cannot be read: {error}", where=where, fix=_FIX) from error
    if (canonicalize_name(str(said["Name"])), str(said["Version"])) != (name, str(version)):
        raise BundleError(f"holds {said['Name']} {said['Version']}", where=where, fix=_FIX)
    requires = tuple(Requirement(text) for text in said.get_all("Requires-Dist", []))
    digest = hashlib.sha256(data).hexdigest()
    return Wheel(path, name, str(version), tags, requires, digest, len(data), unpacked, len(entries))


def _info(archive: zipfile.ZipFile, where: str) -> str:
    found = {name.split("/")[0] for name in archive.namelist() if name.split("/")[0].endswith(".dist-info")}
    if len(found) != 1:
        raise BundleError(f"{len(found)} folders of metadata", where=where, fix=_FIX)
    return found.pop()


def _check_record(archive: zipfile.ZipFile, base: str, where: str) -> None:
    for name, wanted in _recorded(archive.read(f"{base}/RECORD").decode()):
        kind, _, value = wanted.partition("=")
        found = base64.urlsafe_b64encode(hashlib.new(kind, archive.read(name)).digest()).rstrip(b"=").decode()
        if found != value:
            raise BundleError(f"file '{name}' is not what the record says", where=where, fix=_FIX)


def _recorded(text: str) -> Iterator[tuple[str, str]]:
    for row in csv.reader(text.splitlines()):
        if len(row) >= 2 and row[1]:
            yield row[0], row[1]
