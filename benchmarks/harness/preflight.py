# SPDX-License-Identifier: Apache-2.0
"""The board before a measurement: what it is, how it is set, and who else works on it. Standard library only."""

import hashlib
import os
import platform
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.harness.board import Board
from benchmarks.record import Preflight
from edge_agent.adapters import accelerators_found

__all__ = ["BUSY", "busy", "look"]

BUSY: Final = 0.05
"""Share of a core from which another process is named."""
_WATCH_S: Final = 1.0
_SUPER_SPEED: Final = 5000


def look(root: Path = Path("/"), *, pause: Callable[[], object] | None = None) -> Preflight:
    """Look at the board.

    Args:
        root: Where ``/proc`` and ``/sys`` are.
        pause: What lies between two looks at the other processes; left out: a second.

    Example:
        >>> look(pause=lambda: None).bits in (32, 64)
        True
    """
    reading = Board(root).read()
    memory = _memory(root)
    return Preflight(
        board=_board(root),
        soc=_soc(root),
        arch=platform.machine() if root == Path("/") else _text(root / "proc/sys/kernel/arch"),
        bits=8 * struct.calcsize("P"),
        ram_kb=memory.get("MemTotal", 0),
        swap_kb=memory.get("SwapTotal", 0) - memory.get("SwapFree", 0),
        os=_os(root),
        kernel=_text(root / "proc/sys/kernel/osrelease"),
        python=platform.python_version(),
        governor=",".join(sorted({_text(folder / "scaling_governor") for folder in _frequencies(root)} - {""})),
        clocks={folder.parent.name: _clocks(folder) for folder in _frequencies(root)},
        cores=tuple(sorted(os.sched_getaffinity(0))),
        temp_c=reading.temp_c,
        throttled=reading.throttled,
        load1=float((_text(root / "proc/loadavg").split() or ["0"])[0]),
        busy=busy(root, pause or (lambda: time.sleep(_WATCH_S))),
        power_supply=_supply(root),
        accelerators=tuple(_accelerators(root)),
        isolated=_text(root / "sys/devices/system/cpu/isolated"),
        serial=_serial(root),
    )


def busy(root: Path, pause: Callable[[], object]) -> tuple[tuple[str, float], ...]:
    """Return (name, share of a core) of the other processes above ``BUSY`` during a pause, the busiest first."""
    began, before = time.monotonic(), _ticks(root)
    pause()
    spent_s, after = max(time.monotonic() - began, 1e-3), _ticks(root)
    per_s = os.sysconf("SC_CLK_TCK")
    shares = [
        (name, (ticks - before[pid][1]) / per_s / spent_s)
        for pid, (name, ticks) in after.items()
        if pid in before and pid != os.getpid()
    ]
    ordered = sorted((one for one in shares if one[1] > BUSY), key=lambda one: -one[1])
    return tuple((name, round(share, 3)) for name, share in ordered)


def _ticks(root: Path) -> dict[int, tuple[str, int]]:
    """Return pid → (name, clock ticks of user and system time) of every process."""
    found = {}
    for path in (root / "proc").glob("[0-9]*/stat"):
        before, _, after = _text(path).rpartition(")")  # a name may hold spaces and brackets
        fields = after.split()
        if len(fields) > 13:
            name = before.partition("(")[2]
            found[int(path.parent.name)] = (name, int(fields[11]) + int(fields[12]))
    return found


def _board(root: Path) -> str:
    known = _text(root / "proc/device-tree/model")  # "Raspberry Pi 4 Model B Rev 1.4"
    lines = [
        line.partition(":")[2].strip() for line in _text(root / "proc/cpuinfo").splitlines() if "model name" in line
    ]
    return known or (lines[0] if lines else platform.processor() or platform.machine())


def _soc(root: Path) -> str:
    """Return the last name of ``compatible``, without its maker: the most general one, such as bcm2711."""
    words = _text(root / "proc/device-tree/compatible").split("\0")
    return words[-1].rpartition(",")[2]


def _serial(root: Path) -> str:
    """Return a short digest of the serial number, or of the machine's id; the number itself stays on the board."""
    known = _text(root / "proc/device-tree/serial-number") or _text(root / "etc/machine-id")
    return hashlib.sha256(known.encode()).hexdigest()[:12] if known else ""


def _memory(root: Path) -> dict[str, int]:
    lines = [line.split() for line in _text(root / "proc/meminfo").splitlines()]
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def _os(root: Path) -> str:
    lines = _text(root / "etc/os-release").splitlines()
    named = [line.partition("=")[2].strip('"') for line in lines if line.startswith("PRETTY_NAME=")]
    return named[0] if named else platform.system()


def _frequencies(root: Path) -> list[Path]:
    folders = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq")
    return sorted(folders, key=lambda folder: int(folder.parent.name.removeprefix("cpu")))


def _clocks(folder: Path) -> tuple[int, ...]:
    return tuple(int(_text(folder / f"scaling_{word}_freq") or 0) for word in ("min", "max", "cur"))


def _supply(root: Path) -> str:
    """Return what is known of the power supply: a Raspberry Pi 5 writes what it agreed on into its device tree."""
    try:
        agreed = (root / "proc/device-tree/chosen/power/max_current").read_bytes()
    except OSError:
        agreed = b""
    words = [f"{int.from_bytes(agreed[:4], 'big')} mA agreed"] if len(agreed) == 4 else []
    for folder in sorted((root / "sys/class/power_supply").glob("*")):
        state = _text(folder / "status") or {"1": "online", "0": "offline"}.get(_text(folder / "online"), "")
        words.append(f"{folder.name} {state}".strip())
    return ", ".join(words)


def _accelerators(root: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"kind": name, "bus": "pcie"} for name, _ in accelerators_found.nodes(root)]
    for name, folder in accelerators_found.sticks(root):
        speed = _text(folder / "speed")
        mbps = int(float(speed)) if speed.replace(".", "", 1).isdigit() else 0
        found.append({"kind": name, "bus": "usb3" if mbps >= _SUPER_SPEED else "usb2", "speed_mbps": mbps})
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""
