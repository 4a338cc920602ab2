# SPDX-License-Identifier: Apache-2.0
"""A wheel without what a board never uses. Its record is written anew, so pip takes it as it takes any other.

The file has a build tag (``numpy-2.4.6-1slim-cp311-…``), so that nobody mistakes it for the original. The same wheel
and the same rules give the same bytes.

Standard: the binary distribution format (PEP 427): build tags, RECORD, RECORD.jws.
"""

import csv
import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from edge_contract import wheel
from edge_contract.errors import BundleError
from fleet.flash.wheelhouse_elf import stripped
from fleet.flash.wheelhouse_rules import EVERYWHERE, RULES, Rule

__all__ = ["BUILD_TAG", "Slimmed", "goes", "slim"]

BUILD_TAG: Final = "1slim"
_LONG_AGO: Final = (1980, 1, 1, 0, 0, 0)
_UNSIGNED: Final = ("RECORD", "RECORD.jws", "RECORD.p7s")


@dataclass(frozen=True)
class Slimmed:
    """A slimmed wheel: where it lies, and the bytes that it unpacks to, before and after."""

    path: Path
    before: int
    after: int


def goes(name: str, member: str) -> bool:
    """True if a member of a distribution's wheel is left out.

    Example:
        >>> goes("numpy", "numpy/lib/tests/test_io.py"), goes("numpy", "numpy/lib/_npyio_impl.py")
        (True, False)
    """
    if ".dist-info/" in member:
        return False
    rule = RULES.get(name, Rule())
    if any(fnmatchcase(member, pattern) for pattern in rule.kept):
        return False
    return any(fnmatchcase(member, pattern) for pattern in (*EVERYWHERE, *rule.parts))


def slim(path: Path, folder: Path) -> Slimmed:
    """Write a wheel without its unused parts into a folder.

    Raises:
        BundleError: The wheel is damaged, or holds a hash of something that cannot be kept.
    """
    told = wheel.read(path)
    rule = RULES.get(told.name, Rule())
    kept: dict[str, tuple[bytes, int]] = {}
    with zipfile.ZipFile(path) as archive:
        base = wheel.info_folder(archive, str(path))
        for member in archive.infolist():
            if member.is_dir() or goes(told.name, member.filename):
                continue
            if member.filename in {f"{base}/{name}" for name in _UNSIGNED}:
                continue
            kept[member.filename] = _changed(member.filename, base, archive.read(member), rule), member.external_attr
    out = folder / _named(path.name)
    _write(out, kept, base)
    return Slimmed(out, told.unpacked, sum(len(data) for data, _ in kept.values()))


def _named(name: str) -> str:
    """Return the file name with our build tag after the version; a build tag that is there stays in ours."""
    parts = name.split("-")
    old = re.sub(r"^\d+", "", parts.pop(2)) if len(parts) == 6 else ""
    return "-".join([*parts[:2], f"{BUILD_TAG}{old}", *parts[2:]])


def _changed(member: str, base: str, data: bytes, rule: Rule) -> bytes:
    if member == f"{base}/METADATA":
        return _metadata(data, rule)
    if member == f"{base}/WHEEL":
        lines = [line for line in data.decode().splitlines() if line.strip() and not line.startswith("Build:")]
        return ("\n".join([*lines, f"Build: {BUILD_TAG}"]) + "\n").encode()
    if member == f"{base}/entry_points.txt":
        lines = data.decode().splitlines()
        return ("\n".join(line for line in lines if line.split("=")[0].strip() not in rule.scripts) + "\n").encode()
    return stripped(data) if ".so" in member.rpartition("/")[2] else data


def _metadata(data: bytes, rule: Rule) -> bytes:
    """Take requirements away that only left-out parts had; the text after the headers stays."""
    headers, blank, body = data.replace(b"\r\n", b"\n").partition(b"\n\n")
    lines = headers.decode().split("\n")
    return "\n".join(line for line in lines if _required(line) not in rule.requires).encode() + blank + body


def _required(line: str) -> str:
    found = re.match(r"Requires-Dist:\s*([A-Za-z0-9._-]+)", line)
    return wheel.normalised(found[1]) if found else ""


def _write(out: Path, kept: Mapping[str, tuple[bytes, int]], base: str) -> None:
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    try:
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
            for name in sorted(kept, key=lambda name: (name.startswith(base), name)):  # metadata last, as PEP 427 asks
                data, attributes = kept[name]
                _add(made, name, data, attributes)
                rows.writerow((name, wheel.encoded(data), len(data)))
            rows.writerow((f"{base}/RECORD", "", ""))
            _add(made, f"{base}/RECORD", record.getvalue().encode(), 0o644 << 16)
    except OSError as error:
        raise BundleError(f"cannot be written: {error}", where=str(out)) from error


def _add(made: zipfile.ZipFile, name: str, data: bytes, attributes: int) -> None:
    info = zipfile.ZipInfo(name, _LONG_AGO)
    info.create_system = 3  # the attributes are those of Unix
    info.external_attr = (0o755 if attributes >> 16 & 0o111 else 0o644) << 16
    made.writestr(info, data, zipfile.ZIP_DEFLATED, 9)
