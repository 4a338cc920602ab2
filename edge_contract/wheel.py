# SPDX-License-Identifier: Apache-2.0
"""What a wheel says of itself, read from the file and held against its own record. Standard library only.

Three places read wheels: the workstation that makes a release, the one that makes a wheelhouse, and the first boot of a
board that has nothing but Debian's Python.

Standard: the binary distribution format (PEP 427), recording installed distributions (PEP 376), core metadata.
"""

import base64
import csv
import hashlib
import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.parser import BytesParser
from pathlib import Path, PurePosixPath
from typing import Final

from edge_contract.errors import BundleError

__all__ = ["MAX_UNPACKED", "WheelFile", "encoded", "info_folder", "normalised", "platforms", "read", "recorded"]

_FIX: Final = "build or download it again"
MAX_UNPACKED: Final = 2_000_000_000
"""A wheel that becomes more is a mistake, or a bomb."""


@dataclass(frozen=True)
class WheelFile:
    """One wheel.

    Attributes:
        path: The file.
        name: Normalised name of its distribution.
        version: Its version.
        tags: What it fits, as written in its name: ``cp311-cp311-manylinux_2_28_aarch64``, one each.
        requires: What it needs, as it says it.
        sha256, size: Of the file.
        unpacked, members: Bytes and files that it becomes.
    """

    path: Path
    name: str
    version: str
    tags: tuple[str, ...]
    requires: tuple[str, ...]
    sha256: str
    size: int
    unpacked: int
    members: int


def normalised(name: str) -> str:
    """Return a distribution's name as it is compared (PEP 503).

    Example:
        >>> normalised("AI_Edge.LiteRT")
        'ai-edge-litert'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def read(path: Path) -> WheelFile:
    """Return what a wheel says; every file in it has the hash of its record.

    Raises:
        BundleError: No wheel, damaged, a path that leaves it, or its names contradict each other.
    """
    where = str(path)
    name, version, tags = _named(path.name)
    try:
        data = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            unpacked = sum(entry.file_size for entry in entries)
            if unpacked > MAX_UNPACKED:
                raise BundleError(f"becomes {unpacked} bytes", where=where, fix=_FIX)
            base = info_folder(archive, where)
            said = BytesParser().parsebytes(archive.read(f"{base}/METADATA"))
            _check(archive, entries, base, where)
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, EOFError, NotImplementedError) as error:
        raise BundleError(f"cannot be read: {error}", where=where, fix=_FIX) from error
    if (normalised(str(said["Name"])), str(said["Version"])) != (name, version):
        raise BundleError(f"holds {said['Name']} {said['Version']}", where=where, fix=_FIX)
    requires = tuple(str(text) for text in said.get_all("Requires-Dist", []))
    digest = hashlib.sha256(data).hexdigest()
    return WheelFile(path, name, version, tags, requires, digest, len(data), unpacked, len(entries))


def _named(name: str) -> tuple[str, str, tuple[str, ...]]:
    """Return name, version and tags that a wheel's file name tells; raises BundleError."""
    parts = name.removesuffix(".whl").split("-")
    if not name.endswith(".whl") or len(parts) not in (5, 6) or (len(parts) == 6 and not parts[2][:1].isdigit()):
        raise BundleError("is not named as a wheel", where=name, fix=_FIX)
    pythons, abis, platforms = (part.split(".") for part in parts[-3:])
    tags = tuple(f"{python}-{abi}-{platform}" for python in pythons for abi in abis for platform in platforms)
    return normalised(parts[0]), parts[1].replace("_", "-"), tags


def info_folder(archive: zipfile.ZipFile, where: str) -> str:
    """Return the name of a wheel's folder of metadata; raises BundleError unless there is one."""
    found = {name.split("/")[0] for name in archive.namelist() if name.split("/")[0].endswith(".dist-info")}
    if len(found) != 1:
        raise BundleError(f"{len(found)} folders of metadata", where=where, fix=_FIX)
    return found.pop()


def encoded(data: bytes) -> str:
    """Return bytes' SHA-256 in the form of a record.

    Example:
        >>> encoded(b"")
        'sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU'
    """
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def recorded(text: str) -> Iterator[tuple[str, str]]:
    """Yield path and hash of a record's lines that have one."""
    for row in csv.reader(text.splitlines()):
        if len(row) >= 2 and row[1]:
            yield row[0], row[1]


def _check(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], base: str, where: str) -> None:
    for entry in entries:
        path = PurePosixPath(entry.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.filename:
            raise BundleError(f"'{entry.filename}' leaves the wheel", where=where, fix=_FIX)
    for name, wanted in recorded(archive.read(f"{base}/RECORD").decode()):
        kind, _, value = wanted.partition("=")
        if kind not in ("sha256", "sha384", "sha512"):
            raise BundleError(f"file '{name}' has a hash of kind {kind!r}", where=where, fix=_FIX)
        found = base64.urlsafe_b64encode(hashlib.new(kind, archive.read(name)).digest()).rstrip(b"=").decode()
        if found != value:
            raise BundleError(f"file '{name}' is not what the record says", where=where, fix=_FIX)


GLIBC: Final[Mapping[str, int]] = {"3.11": 36, "3.12": 39, "3.13": 41}
"""Python → minor version of glibc 2 on the Debian or Ubuntu that ships it: Bookworm, Noble, Trixie."""


def platforms(python: str, machine: str) -> tuple[str, ...]:
    """Return the platform tags of wheels that run on a kind of device, best first.

    Example:
        >>> platforms("3.11", "aarch64")[:2], platforms("3.11", "aarch64")[-1]
        (('manylinux_2_36_aarch64', 'manylinux_2_35_aarch64'), 'linux_aarch64')
    """
    version = tuple(int(part) for part in python.split("."))
    newest = GLIBC.get(python, max(GLIBC.values()) if version > (3, 13) else min(GLIBC.values()))
    new = tuple(f"manylinux_2_{minor}_{machine}" for minor in range(newest, 4, -1))
    return (*new, *(f"{old}_{machine}" for old in ("manylinux2014", "manylinux2010", "manylinux1", "linux")))
