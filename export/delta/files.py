# SPDX-License-Identifier: Apache-2.0
"""Patches between two model files, or between the files of two bundles."""

from dataclasses import dataclass
from pathlib import Path

from edge_contract.deltas import EMPTY, MIN_BYTES, partner
from edge_contract.errors import DataError, UsageError
from edge_contract.manifest import MANIFEST_NAME, Manifest
from export.delta.maker import Patch, make

__all__ = ["Made", "between", "name_of", "write"]


@dataclass(frozen=True)
class Made:
    """One patch, with the path of its file in the second bundle, or the second file's name."""

    name: str
    patch: Patch


def name_of(patch: Patch) -> str:
    """Return the file name of a patch: the beginnings of base and result, and the codec."""
    base = "none" if patch.base == EMPTY else patch.base[:12]
    return f"{base}-{patch.result[:12]}.{patch.codec}.delta"


def between(first: Path, second: Path) -> list[Made]:
    """Return a patch for each file of the second that the first has not.

    Raises:
        UsageError: One is a bundle and the other a file, or one cannot be read.
        DataError: Two equal files.
        ManifestError: A bundle's manifest is malformed.
    """
    if first.is_dir() != second.is_dir():
        raise UsageError("one is a folder, the other a file", where=f"{first}, {second}", fix="give two of a kind")
    if first.is_dir():
        return _of_bundles(first, second)
    base, target = _read(first), _read(second)
    if base == target:
        raise DataError("both have the same bytes", where=f"{first}, {second}", fix="there is nothing to send")
    return [Made(second.name, make(base, target))]


def _of_bundles(first: Path, second: Path) -> list[Made]:
    old, new = (Manifest.from_bytes(_read(folder / MANIFEST_NAME)) for folder in (first, second))
    held = {entry.sha256 for entry in old.files}
    made = []
    for entry in new.files:
        if entry.sha256 in held or entry.size < MIN_BYTES:
            continue
        mate = partner(old, new, entry)
        base = _read(first / mate.path) if mate else b""
        made.append(Made(entry.path, make(base, _read(second / entry.path))))
    return made


def write(made: list[Made], out: Path) -> dict[str, str]:
    """Write the patches into a folder; return file → path of its patch.

    Raises:
        UsageError: The folder cannot be written.
    """
    written = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for one in made:
            path = out / name_of(one.patch)
            path.write_bytes(one.patch.data)
            written[one.name] = str(path)
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", where=str(out)) from error
    return written


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error
