# SPDX-License-Identifier: Apache-2.0
"""``strop bench footprint``: memory, time and disk writes that an agent takes from its board.

The method is that of Greengrass nucleus lite's published figures: PSS out of ``/proc/PID/smaps_rollup`` every 10 s over
10 min after 5 min of warm-up, median and p95. PSS counts a shared page by its share, so it may be added up over
processes; RSS counts it in each. Standard library only, so that it runs on the device.
"""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from edge_contract.errors import MeasurementError

__all__ = ["GOALS", "Sample", "family", "report", "sample", "share_of", "to_text", "watch"]

GOALS: Final = {"rss_mib": 30.0, "cpu_percent": 1.0, "ready_s": 1.0, "written_mb_per_day": 5.0}
"""Of the control process: steady RSS, share of a core while idle, start, and disk writes while idle."""
_ROLES: Final = {"edge_agent.trust_helper": "helper", "edge_agent.delta": "helper", "edge_agent.runner": "runner"}
_DAY_S: Final = 86400.0
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    """One look at one process.

    Attributes:
        role: ``control``, ``runner``, ``helper`` or ``other``.
        pid: Its process id.
        at_s: When, on a monotonic clock.
        pss_kb, rss_kb: Its memory in KiB.
        cpu_s: Processor seconds since it began, user and system.
        written: Bytes that it gave to the storage layer since it began; overwritten again before that: not counted.
    """

    role: str
    pid: int
    at_s: float
    pss_kb: int
    rss_kb: int
    cpu_s: float
    written: int


def _table(text: str) -> dict[str, int]:
    """Return the whole numbers of a file of ``name: number`` lines."""
    words = (line.split() for line in text.splitlines())
    return {w[0].rstrip(":"): int(w[1]) for w in words if len(w) > 1 and w[0].endswith(":") and w[1].isdigit()}


def sample(role: str, pid: int, at_s: float) -> Sample | None:
    """Return a look at a process, None if it is gone or another user's."""
    folder = Path("/proc", str(pid))
    try:
        memory = _table((folder / "smaps_rollup").read_text())
        words = (folder / "stat").read_text().rpartition(")")[2].split()  # a name may hold spaces and brackets
        io = _table((folder / "io").read_text())
    except OSError:
        return None
    if "Pss" not in memory:
        return None  # it has ended, and nobody has fetched its exit code yet
    cpu_s = (int(words[11]) + int(words[12])) * _TICK_S
    written = io["write_bytes"] - io.get("cancelled_write_bytes", 0)
    return Sample(role, pid, at_s, memory["Pss"], memory["Rss"], cpu_s, written)


def family(pid: int) -> dict[int, str]:
    """Return the role of an agent's control process and of all its descendants, by process id."""
    found, waiting = {pid: "control"}, [pid]
    while waiting:
        for child in _children(waiting.pop()):
            words = _words(child)
            found[child] = next((role for name, role in _ROLES.items() if name in words), "other")
            waiting.append(child)
    return found


def _children(pid: int) -> list[int]:
    found: set[int] = set()
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found |= {int(word) for word in (task / "children").read_text().split()}
    except OSError:
        return []
    return sorted(found)


def _words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def watch(pid: int, *, every_s: float, total_s: float) -> list[Sample]:
    """Look at an agent's processes again and again.

    Args:
        pid: The control process.
        every_s: Seconds between two looks.
        total_s: How long, in seconds; one look more than whole pauses fit.

    Raises:
        MeasurementError: The agent ended meanwhile.
    """
    found, began = list[Sample](), time.monotonic()
    for n in range(int(total_s / every_s + 1e-9) + 1):
        time.sleep(max(0.0, began + n * every_s - time.monotonic()))
        seen = [sample(role, each, time.monotonic()) for each, role in family(pid).items()]
        if seen[0] is None:
            raise MeasurementError("the agent ended while it was measured", where=f"process {pid}")
        found += [one for one in seen if one is not None]
    return found


def _spent(samples: Sequence[Sample]) -> tuple[float, int, float]:
    """Return processor seconds, written bytes and seconds between the first and last look, summed over processes."""
    cpu_s, written, seconds = 0.0, 0, 0.0
    for pid in {one.pid for one in samples}:
        own = [one for one in samples if one.pid == pid]
        cpu_s += own[-1].cpu_s - own[0].cpu_s
        written += own[-1].written - own[0].written
        seconds += own[-1].at_s - own[0].at_s
    return cpu_s, written, seconds


def share_of(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least such a share of all values does not exceed (nearest rank).

    Example:
        >>> share_of([3.0, 1.0, 2.0, 4.0], 0.5), share_of([5.0], 0.95)
        (2.0, 5.0)
    """
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def report(samples: Iterable[Sample]) -> dict[str, dict[str, Any]]:
    """Return the figures of each role.

    Returns:
        Role → ``n``, ``pss_mib``, ``pss_p95_mib``, ``rss_mib``, ``rss_p95_mib``, ``cpu_percent`` of one core and
        ``written_mb_per_day``, extrapolated; the last two are None where a process was seen once only.

    Example:
        >>> first = Sample("control", 1, 0.0, 10240, 20480, 1.0, 0)
        >>> report([first, Sample("control", 1, 86.4, 10240, 20480, 1.864, 1000)])["control"]["written_mb_per_day"]
        1.0
    """
    by_role: dict[str, list[Sample]] = {}
    for one in samples:
        by_role.setdefault(one.role, []).append(one)
    return {role: _figures(own) for role, own in by_role.items()}


def _figures(own: Sequence[Sample]) -> dict[str, Any]:
    pss, rss = [one.pss_kb / 1024 for one in own], [one.rss_kb / 1024 for one in own]
    cpu_s, written, seconds = _spent(own)
    return {
        "n": len(own),
        "pss_mib": round(median(pss), 2),
        "pss_p95_mib": round(share_of(pss, 0.95), 2),
        "rss_mib": round(median(rss), 2),
        "rss_p95_mib": round(share_of(rss, 0.95), 2),
        "cpu_percent": round(100 * cpu_s / seconds, 3) if seconds else None,
        "written_mb_per_day": round(written / 1e6 * _DAY_S / seconds, 3) if seconds else None,
    }


def to_text(found: Mapping[str, Any]) -> str:
    """Return the table for people: processes, start, whether each goal is held, and what it was measured on."""
    head = f"{'':9}{'PSS':>7}{'p95':>7}{'RSS':>7}{'p95':>7} MiB{'CPU %':>8}{'MB/day':>9}{'looks':>7}"
    lines = [head]
    for role, one in found["processes"].items():
        sizes = "".join(f"{one[key]:7.1f}" for key in ("pss_mib", "pss_p95_mib", "rss_mib", "rss_p95_mib"))
        cpu, written = (
            _number(one[key], form) for key, form in (("cpu_percent", ".2f"), ("written_mb_per_day", ".2f"))
        )
        lines.append(f"{role:9}{sizes}    {cpu:>8}{written:>9}{one['n']:7}")
    if found["ready_s"] is not None:
        lines.append(f"ready after {found['ready_s']:.2f} s")
    lines += [f"{name}: {value:g}, goal ≤ {GOALS[name]:g}: {_held(value, GOALS[name])}" for name, value in _own(found)]
    lines += [f"note: {text}" for text in found["notes"]]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return "\n".join([*lines, f"versions: {versions}", f"machine: {found['machine']}", f"command: {found['command']}"])


def _own(found: Mapping[str, Any]) -> list[tuple[str, float]]:
    control = {**found["processes"]["control"], "ready_s": found["ready_s"]}
    return [(name, control[name]) for name in GOALS if control[name] is not None]


def _held(value: float, goal: float) -> str:
    return "held" if value <= goal else "missed"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
