# SPDX-License-Identifier: Apache-2.0
"""The runner as a child process: JSON lines out, JSON lines in, and an end that is always noticed."""

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from edge_agent.adapters.board import rss_kb

__all__ = ["RunnerProcess", "lend_library"]

GRACE_S: Final = 3.0
"""After its input was closed the runner has so long to end by itself."""
MAX_LINE: Final = 1_000_000
MAX_LOG: Final = 1_000_000
OOM_SCORE: Final = "500"
"""When memory is short the kernel ends the runner, and not the control process or the application beside it."""


def _no_nan(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def lend_library(folder: Path) -> Path:
    """Return a folder with our packages and nothing else, for an interpreter that may have other versions of numpy.

    The runner of an old runtime lives in a virtual environment of its own. If it had our whole ``site-packages`` on
    its path, it would import our numpy, which its runtime cannot use.
    """
    root = Path(__file__).resolve().parents[2]  # the folder from which this very edge_agent was imported
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("edge_agent", "edge_contract"):
        link = folder / name
        if not link.is_symlink() or link.readlink() != root / name:
            link.unlink(missing_ok=True)
            link.symlink_to(root / name)
    return folder


class RunnerProcess:
    """Starts one runner at a time and reads it in one thread.

    Args:
        command: Program and arguments.
        log: File for its stderr, cut when it grows beyond a megabyte.
        said: Called from the reader thread with each decoded line.
        exited: Called from the reader thread once, with the exit code.
        limit_kb: A runner that takes more memory is ended, 0 for no limit; that counts as a crash.
        library: Folder from which the child imports our packages, see ``lend_library``.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        said: Callable[[dict[str, Any]], None],
        exited: Callable[[int], None],
        *,
        library: Path,
        limit_kb: int = 0,
    ) -> None:
        self._command, self._log, self._said, self._exited = list(command), log, said, exited
        self._once: list[str] = []
        self._library, self._limit_kb = library, limit_kb
        self._child: subprocess.Popen[bytes] | None = None
        self._kill_at: float | None = None

    def use_once(self, command: Sequence[str]) -> None:
        """Start something else the next time."""
        self._once = list(command)

    @property
    def pid(self) -> int | None:
        """Process id while it lives."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def start(self) -> None:
        """Start the process; a program that cannot be started counts as one that ended at once."""
        self._kill_at = None
        command, self._once = self._once or self._command, []
        self._log.parent.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(filter(None, [str(self._library), os.environ.get("PYTHONPATH", "")]))
        env = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        try:
            with self._log.open("ab") as log:
                self._child = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env
                )
        except OSError as error:
            self._child = None
            self._said({"event": "log", "reason": f"cannot start {command[0]}: {error}"})
            self._exited(127)
            return
        with contextlib.suppress(OSError):
            Path("/proc", str(self._child.pid), "oom_score_adj").write_text(OOM_SCORE)
        threading.Thread(target=self._read, args=(self._child,), name="runner", daemon=True).start()

    def _read(self, child: "subprocess.Popen[bytes]") -> None:
        assert child.stdout is not None
        stream: IO[bytes] = child.stdout
        with stream:
            while line := stream.readline(MAX_LINE):
                try:
                    words = json.loads(line, parse_constant=_no_nan)
                except (ValueError, RecursionError):
                    words = {"event": "log", "reason": f"not JSON: {line[:200]!r}"}
                if isinstance(words, dict):
                    self._said(words)
        code = child.wait()
        if child.stdin is not None:
            with contextlib.suppress(OSError):  # what was not yet written has no reader any more
                child.stdin.close()
        self._exited(code)

    def send(self, words: Mapping[str, Any]) -> None:
        """Send one command; a runner that is gone says so by its exit."""
        child = self._child
        if child is None or child.stdin is None or child.stdin.closed:
            return
        try:
            child.stdin.write(json.dumps(dict(words)).encode() + b"\n")
            child.stdin.flush()
        except OSError:
            return

    def stop(self, mono: float) -> None:
        """Ask it to end; ``watch`` ends it by force after ``GRACE_S``."""
        child = self._child
        if child is None:
            return
        self.send({"cmd": "stop"})
        if child.stdin is not None:
            with contextlib.suppress(OSError):  # a full pipe to a process that is gone
                child.stdin.close()
        self._kill_at = mono + GRACE_S

    def watch(self, mono: float) -> None:
        """End a runner that does not listen or takes too much, keep its log bounded. Called once a second."""
        self._check_memory()
        if self._kill_at is not None and mono >= self._kill_at and self._child is not None:
            self._child.kill()
            self._kill_at = None
        if self._log.exists() and self._log.stat().st_size > MAX_LOG:
            os.truncate(self._log, 0)  # its handle appends, so it goes on at the start

    def _check_memory(self) -> None:
        pid = self.pid
        if pid is None or not self._limit_kb or self._child is None:
            return
        taken = rss_kb(pid)
        if taken > self._limit_kb:
            self._said({"event": "log", "reason": f"ended: it took {taken} kB, its limit is {self._limit_kb} kB"})
            self._child.kill()

    def wait(self, timeout_s: float) -> None:
        """Wait for its end, then end it by force: for a clean stop of the agent."""
        if self._child is None:
            return
        try:
            self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
