# SPDX-License-Identifier: Apache-2.0
"""Files into the ext4 root of an image, by ``debugfs`` of e2fsprogs, which works inside the image and needs no root.

Only for who asks for it: a boot partition is what every tool can read and repair. Directories belong to root with mode
0755, files with 0600: a token may be among them.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edge_contract.errors import ImageError, MissingDependencyError
from fleet.flash.ext4 import Ext4
from fleet.flash.partitions import Partition

__all__ = ["put"]

_RESERVE: Final = 4 << 20
_PATHS: Final = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin"


def _debugfs() -> str:
    found = shutil.which("debugfs") or shutil.which("debugfs", path=_PATHS)
    if found is None:
        raise MissingDependencyError("--ext4 needs debugfs", fix="run: apt-get install e2fsprogs")
    return found


def _folders(paths: list[str]) -> list[str]:
    """Return every directory above some files, outer ones first.

    Example:
        >>> _folders(["/var/lib/x/a", "/var/lib/x/y/b"])
        ['/var', '/var/lib', '/var/lib/x', '/var/lib/x/y']
    """
    return sorted({str(parent) for path in paths for parent in Path(path).parents if str(parent) != "/"})


def _lines(root: Ext4, sources: Mapping[str, Path]) -> list[str]:
    lines = []
    for folder in _folders(list(sources)):
        if not root.exists(folder):
            lines += [f'mkdir "{folder}"', f'set_inode_field "{folder}" mode 040755']
    for path, source in sources.items():
        lines += [f'rm "{path}"'] if root.exists(path) else []
        lines += [f'write "{source}" "{path}"', f'set_inode_field "{path}" mode 0100600']
        lines += [f'set_inode_field "{path}" uid 0', f'set_inode_field "{path}" gid 0']
    return lines


def put(image: Path, partition: Partition, root: Ext4, files: Mapping[str, bytes | Path]) -> None:
    """Write files into the root file system of an image.

    Args:
        image: The image or card.
        partition: Where its root file system lies.
        root: The same, to be read.
        files: Bytes, or a file of this machine, by absolute path on the board.

    Raises:
        MissingDependencyError: ``debugfs`` is not installed.
        ImageError: No room, a file system that was not put away properly, or ``debugfs`` failed.
    """
    program = _debugfs()
    if root.is_dirty:
        fix = "begin with an image as its maker publishes it"
        raise ImageError("its journal holds changes that were not carried out", where=root.region.name, fix=fix)
    with tempfile.TemporaryDirectory() as place:
        sources = {path: _as_file(Path(place), n, data) for n, (path, data) in enumerate(files.items())}
        wanted = sum(source.stat().st_size + 4096 for source in sources.values()) + _RESERVE
        if wanted > root.free_bytes:
            what = f"the root file system is full: {wanted - root.free_bytes} more bytes are needed"
            raise ImageError(what, where=root.region.name, fix="nothing was written; leave something out")
        script = Path(place) / "commands"
        script.write_text("\n".join(_lines(root, sources)) + "\n")
        words = [program, "-w", "-f", str(script), f"{image}?offset={partition.start}"]
        done = subprocess.run(words, capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if line and not line.startswith("debugfs ")]
    if done.returncode or complaints:
        said = complaints[0] if complaints else f"exit code {done.returncode}"
        raise ImageError(f"debugfs: {said}", where=root.region.name, fix="begin with a fresh image")


def _as_file(folder: Path, number: int, data: bytes | Path) -> Path:
    if isinstance(data, Path):
        return data.resolve()
    path = folder / f"{number}"
    path.write_bytes(data)
    return path
