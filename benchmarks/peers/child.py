# SPDX-License-Identifier: Apache-2.0
"""Run one conversion in a process of its own, and say what it cost.

CPU seconds are those of the whole child, imports included. The peak is ``VmHWM`` of the child's own address space:
``getrusage`` starts a child at what its parent had at the fork, so that a fat parent would be measured instead. The
child's threads are held to one, which makes CPU seconds comparable on a loaded machine.
"""

import os
import re
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.peers.environments import ROOT
from edge_contract.errors import MeasurementError

__all__ = ["Cost", "run"]

_POLL_S: Final = 0.02
_THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


@dataclass(frozen=True)
class Cost:
    """What a conversion used: CPU seconds in user and system mode, wall seconds, and the peak resident memory."""

    cpu_s: float
    wall_s: float
    peak_mib: float


def run(command: Sequence[str | Path], *, where: str = "", limit_mib: int = 0) -> Cost:
    """Run a command to its end and return its cost.

    Args:
        command: The program and its arguments.
        where: What errors call it; else the program's name.
        limit_mib: Stop it where its resident memory exceeds this; 0 for no limit.

    Raises:
        MeasurementError: It cannot be started, failed (with the last line that it said), or went over the limit.
    """
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONHOME", "VIRTUAL_ENV")}
    environment |= {"PYTHONPATH": str(ROOT)} | dict.fromkeys(_THREADS, "1")
    where, start = where or Path(command[0]).name, time.monotonic()
    try:
        child = subprocess.Popen(
            list(map(str, command)), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT
        )
    except OSError as error:
        raise MeasurementError(f"cannot be started: {error.strerror}", where=where) from error
    said: list[bytes] = []
    reader = threading.Thread(target=lambda: said.append(child.stderr.read() if child.stderr else b""), daemon=True)
    reader.start()
    peak, status, usage = _watch(child.pid, limit_mib)
    child.returncode = os.waitstatus_to_exitcode(status)  # reaped by us, for its resource usage
    reader.join()
    if child.stderr is not None:
        child.stderr.close()
    if child.returncode != 0:
        raise MeasurementError(_reason(child.returncode, peak, limit_mib, b"".join(said)), where=where)
    return Cost(usage.ru_utime + usage.ru_stime, time.monotonic() - start, peak)


def _watch(pid: int, limit_mib: int) -> "tuple[float, int, os._RusageResult]":  # type: ignore[name-defined]
    """Poll the peak until the child ends; what it reached in its last poll interval may be missed."""
    peak = 0.0
    while True:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            return peak, status, usage
        peak = max(peak, _peak_mib(pid))
        if limit_mib and peak > limit_mib:
            os.kill(pid, 9)
        time.sleep(_POLL_S)


def _peak_mib(pid: int) -> float:
    """``VmHWM`` of a process in MiB; 0 once it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def _reason(code: int, peak: float, limit_mib: int, said: bytes) -> str:
    if limit_mib and peak > limit_mib:
        return f"stopped at {peak:.0f} MiB, over the limit of {limit_mib} MiB"
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    return (lines[-1] if lines else f"exit code {code}, saying nothing")[:300]
