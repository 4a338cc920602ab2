# SPDX-License-Identifier: Apache-2.0
"""A wall clock that jumps, for one device's processes (``clock.c``)."""

import os
import shutil
import struct
import subprocess
from pathlib import Path

__all__ = ["Clock", "build"]

_SOURCE = Path(__file__).with_name("clock.c")


def build(folder: Path) -> Path | None:
    """Compile what lets a clock jump; None without a compiler, then clocks stay."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "clock.so"
    words = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(_SOURCE)]
    subprocess.run(words, check=True, capture_output=True)
    return library


class Clock:
    """The clock of one device: what a process is started with, and how far it is off.

    Args:
        path: A file of its own.
        library: What ``build`` gave.
    """

    def __init__(self, path: Path, library: Path | None) -> None:
        self._path, self._library = path, library
        path.write_bytes(struct.pack("q", 0))

    @property
    def can_jump(self) -> bool:
        """Whether ``jump`` does anything."""
        return self._library is not None

    def environment(self) -> dict[str, str]:
        """Return the environment of a process that runs by this clock."""
        if self._library is None:
            return dict(os.environ)
        return {**os.environ, "LD_PRELOAD": str(self._library), "STROP_SOAK_CLOCK": str(self._path)}

    def jump(self, seconds: int) -> None:
        """Let it be so far off from now on."""
        with self._path.open("r+b") as file:
            file.write(struct.pack("q", seconds))
