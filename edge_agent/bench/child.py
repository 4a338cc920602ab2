# SPDX-License-Identifier: Apache-2.0
"""The measurement as a process group: started under the warden, looked at, and ended as a whole. Standard library."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from edge_agent.adapters.runner_process import lend_library
from edge_contract.errors import MeasurementError

__all__ = ["Child", "last_words", "library"]

_TAIL: Final = 4096


def library(data: Path) -> Path:
    """Return a folder with our packages and nothing else, the benchmarks among them.

    Raises:
        MeasurementError: They are not installed here.
    """
    folder = lend_library(data / "lib")
    source = Path(__file__).resolve().parents[2] / "benchmarks"
    if not source.is_dir():
        fix = "install the whole wheel of this version"
        raise MeasurementError("the package 'benchmarks' is not installed", where=str(source.parent), fix=fix)
    link = folder / "benchmarks"
    if not link.is_symlink() or link.readlink() != source:
        link.unlink(missing_ok=True)
        link.symlink_to(source)
    return folder


class Child:
    """One measurement under way.

    Args:
        command: Program and arguments.
        folder: Working folder; it holds ``tmp`` and gets ``error.log``.
        lent: Folder from which the program imports our packages.
        seconds: Its longest time.
        most: Most bytes of one file that it writes.

    Raises:
        MeasurementError: It cannot be started.
    """

    def __init__(self, command: list[str], folder: Path, lent: Path, *, seconds: float, most: int) -> None:
        path = os.pathsep.join(filter(None, [str(lent), os.environ.get("PYTHONPATH", "")]))
        env = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(folder / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
        warden = [sys.executable, "-P", "-m", "edge_agent.bench.warden", f"{seconds:g}", str(most)]
        self.began = time.monotonic()
        try:
            with (folder / "error.log").open("wb") as log:
                self._child = subprocess.Popen(
                    [*warden, *command],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    env=env,
                    cwd=folder,
                    start_new_session=True,
                )
        except OSError as error:
            raise MeasurementError(f"cannot be started: {error.strerror}", where=command[0]) from error

    @property
    def pid(self) -> int:
        """Id of the process group."""
        return self._child.pid

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return time.monotonic() - self.began

    def is_over(self) -> bool:
        """True when the warden has ended. It is not reaped yet: so long nobody else can have its group's number."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def end(self) -> int:
        """End every process of the group; return the exit code, negative for a signal."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self._child.wait()
        if self._child.stdin is not None:
            self._child.stdin.close()
        return code


def last_words(folder: Path) -> str:
    """Return the last line that a measurement wrote to stderr, without ``error: ``; empty if it wrote none."""
    try:
        with (folder / "error.log").open("rb") as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(max(0, length - _TAIL))
            lines = file.read(_TAIL).decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].removeprefix("error: ")[:500] if lines else ""
