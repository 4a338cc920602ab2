# SPDX-License-Identifier: Apache-2.0
"""An environment from wheels, with nothing but the standard library: Debian's Python may come without venv and pip.

The folder is built beside its place and renamed when every byte is on the disk, so at each instant there is the old
environment, the new one, or none. ``strop-environment.json`` in it says of which wheels it is made.

Standard: environments (PEP 405), the binary distribution format (PEP 427), installed distributions (PEP 376).
"""

import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Sequence
from configparser import ConfigParser
from pathlib import Path, PurePosixPath
from typing import Final

from edge_contract import durable, wheel
from edge_contract.errors import BundleError, SlotError
from edge_contract.manifest import BundleFile

__all__ = ["MARK", "build", "is_made_of"]

MARK: Final = "strop-environment.json"
OUR_NAME: Final = "strop"
_PARTS: Final = {"purelib": "", "platlib": ""}


def is_made_of(place: Path, wheels: Sequence[BundleFile]) -> bool:
    """True if an environment is whole and made of exactly these wheels."""
    try:
        return bool(json.loads((place / MARK).read_bytes())["wheels"] == _mark(wheels))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _mark(wheels: Sequence[BundleFile]) -> dict[str, str]:
    return {Path(entry.path).name: entry.sha256 for entry in wheels}


def build(
    place: Path, folder: Path, wheels: Sequence[BundleFile], *, shown: Path, python: str, tell: Callable[[str], None]
) -> int:
    """Make the environment at ``place`` out of wheels, unless it is there; return how many wheels are in it.

    Args:
        place: Where it will be.
        folder: Where the wheels' paths begin.
        wheels: All of them, with their digests.
        shown: The place as the running system will see it; scripts name their interpreter by it.
        python: The system's interpreter.
        tell: Hears how far it is.

    Raises:
        BundleError: A wheel is damaged.
        SlotError: The disk refuses.
    """
    if is_made_of(place, wheels):
        return len(wheels)
    draft, old = place.with_name(f".{place.name}.new"), place.with_name(f".{place.name}.old")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        site = _skeleton(draft, python)
        for number, entry in enumerate(wheels, 1):
            tell(f"{number} of {len(wheels)}: {Path(entry.path).name.split('-')[0]}")
            _unpack(folder / entry.path, entry, draft, site, shown)
        (draft / MARK).write_text(json.dumps({"wheels": _mark(wheels)}, indent=1, sort_keys=True))
        durable.sync_file_system(draft)
        _exchange(draft, place, old)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        what = f"cannot make the environment: {error}"
        raise SlotError(what, where=str(place), fix="free some space, or look at the card") from error
    return len(wheels)


def _exchange(draft: Path, place: Path, old: Path) -> None:
    """Put the new folder in place of the old one; a cut between the two renames leaves the old one beside."""
    if place.exists() or place.is_symlink():
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
    draft.rename(place)
    durable.sync_folder(place.parent)
    shutil.rmtree(old, ignore_errors=True)


def _skeleton(draft: Path, python: str) -> Path:
    """Make what ``venv`` would make; return the folder of packages."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    site = draft / "lib" / f"python{version}" / "site-packages"
    site.mkdir(parents=True)
    (draft / "bin").mkdir()
    (draft / "lib64").symlink_to("lib")
    (draft / "bin" / "python").symlink_to(python)
    for name in ("python3", f"python{version}"):
        (draft / "bin" / name).symlink_to("python")
    words = {"home": Path(python).parent, "include-system-site-packages": "false", "version": sys.version.split()[0]}
    (draft / "pyvenv.cfg").write_text("".join(f"{key} = {value}\n" for key, value in words.items()))
    return site


def _unpack(path: Path, entry: BundleFile, draft: Path, site: Path, shown: Path) -> None:
    found = wheel.read(path)
    if found.sha256 != entry.sha256:
        raise BundleError("is not the wheel of the plan", where=str(path), fix="write the card again")
    written = []
    with zipfile.ZipFile(path) as archive:
        base = wheel.info_folder(archive, str(path))
        for member in archive.infolist():
            if not member.is_dir():
                target = _target(PurePosixPath(member.filename), base, draft, site)
                _write(target, archive.read(member), is_program=bool(member.external_attr >> 16 & 0o111), shown=shown)
        if found.name == OUR_NAME:
            written += _scripts(archive, base, draft, shown)
    (site / base / "INSTALLER").write_text("strop-first-boot\n")
    written.append(site / base / "INSTALLER")
    with (site / base / "RECORD").open("a") as record:
        record.writelines(f"{os.path.relpath(one, site)},,\n" for one in written)


def _target(member: PurePosixPath, base: str, draft: Path, site: Path) -> Path:
    """Return where a member goes: what stands in ``NAME.data`` has a place by its kind."""
    if member.parts[0] != f"{base.removesuffix('.dist-info')}.data" or len(member.parts) < 3:
        return site / member
    kind, rest = member.parts[1], PurePosixPath(*member.parts[2:])
    if kind in _PARTS:
        return site / rest
    return draft / {"scripts": "bin", "headers": "include"}.get(kind, "") / rest


def _write(target: Path, data: bytes, *, is_program: bool, shown: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if data.startswith(b"#!python"):
        _, _, rest = data.partition(b"\n")
        data, is_program = f"#!{shown}/bin/python\n".encode() + rest, True
    target.write_bytes(data)
    target.chmod(0o755 if is_program else 0o644)


def _scripts(archive: zipfile.ZipFile, base: str, draft: Path, shown: Path) -> list[Path]:
    """Write our own commands; nobody calls those of other packages on a board."""
    points = ConfigParser(delimiters=("=",))
    points.read_string(archive.read(f"{base}/entry_points.txt").decode())
    made = []
    for name, what in points.items("console_scripts"):
        module, _, function = what.partition(":")
        path = draft / "bin" / name
        path.write_text(f"#!{shown}/bin/python\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
        path.chmod(0o755)
        made.append(path)
    return made
