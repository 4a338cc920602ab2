# SPDX-License-Identifier: Apache-2.0
"""``shim.c`` from Python: build it, arm it in the process that was started with it, read what it wrote down."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
GCC = shutil.which("gcc")
COUNT, KILL_BEFORE, KILL_AFTER, FAIL = 0, 1, 2, 3
NEVER = 2**62


@dataclass(frozen=True)
class Op:
    """One durable operation as the kernel saw it.

    ``kind``: create, write, truncate, fsync, rename, symlink, unlink, mkdir, rmdir; or ``mark``, which is no
    operation: what the agent told the world at this moment. ``other`` is a rename's new name, a link's target.
    """

    kind: str
    path: str
    other: str = ""
    offset: int = 0
    data: bytes = b""


def build(folder: Path) -> Path:
    """Compile the shim; its test is skipped where there is no compiler."""
    library = folder / "shim.so"
    words = [str(GCC), "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(words, check=True, capture_output=True)
    return library


def environment(library: Path) -> dict[str, str]:
    """Return the environment of a process that runs behind the shim."""
    home = Path(__file__).resolve().parents[3]
    return {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(home), "CRASH_SHIM": str(library)}


class Shim:
    """The shim in this very process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ["CRASH_SHIM"])
        self._library.crash_count.restype = ctypes.c_long
        self._library.crash_arm.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_long, ctypes.c_int)

    def arm(self, folder: Path, how: int = COUNT, first: int = 0, last: int = NEVER, error: int = 0) -> None:
        """Count from now on, and do ``how`` to the operations from the ``first`` to the ``last``, 1 being the next."""
        self._library.crash_arm(os.fsencode(folder), how, first, last, error)

    @property
    def count(self) -> int:
        """Durable operations since it was armed."""
        return int(self._library.crash_count())

    def log(self, path: Path) -> None:
        """Write down every operation from now on, with its bytes."""
        self._library.crash_log(os.fsencode(path))

    def mark(self, text: str) -> None:
        """Write down that something was told to the world."""
        self._library.crash_mark(text.encode())


def read_log(path: Path, root: Path) -> list[Op]:
    """Return the operations of a log; paths are relative to the folder that was watched, ``.`` is itself."""
    return list(_read(path.read_bytes(), os.path.realpath(root)))


def _read(data: bytes, root: str) -> Iterator[Op]:
    at = 0
    while at < len(data):
        end = data.index(b"\n", at)
        kind, offset, size, path, other = data[at:end].decode().split("\t")
        at = end + 1 + int(size)
        is_mark = kind == "mark"
        name = path if is_mark else os.path.relpath(path, root)
        target = os.path.relpath(other, root) if kind == "rename" else other
        yield Op(kind, name, target, int(offset), data[end + 1 : at])
