# SPDX-License-Identifier: Apache-2.0
"""What the board does right now: temperature, clock, throttling. Standard library only; read by the parent process.

A few small files of the kernel. On a Raspberry Pi ``scaling_cur_freq`` is the clock that was asked for; the one that
the firmware gives is told by ``vcgencmd measure_clock arm``, which is a program and is therefore asked less often.
"""

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from benchmarks.record import Reading

__all__ = ["Board"]

Value = TypeVar("Value")
_ZONES: Final = ("cpu-thermal", "cpu_thermal", "x86_pkg_temp", "soc-thermal", "soc_thermal", "cpu", "k10temp")
_FIRMWARE: Final = "sys/devices/platform/soc*/soc*firmware/get_throttled"
_COUNT: Final = "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"
_ASK_EVERY_S: Final = 2.0


class Board:
    """Reads what changes. Which files there are is looked up once.

    Args:
        root: Where ``/proc`` and ``/sys`` are; a test gives a folder that looks like a board.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self._temperature = _zone(root)
        self._clocks = sorted(
            (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"), key=_core_number
        )
        self._throttled = next(iter(sorted(root.glob(_FIRMWARE))), None)
        self._program = _program(root)
        self._asked_s = float("-inf")
        self._measured: tuple[int, ...] = ()
        self._told: int | None = None

    def read(self, power_mw: float | None = None) -> Reading:
        """Look once.

        Example:
            >>> Board(Path("/nowhere")).read().temp_c is None
            True
        """
        self._ask()
        return Reading(
            time.monotonic_ns(),
            self.temperature(),
            self._measured or tuple(khz for path in self._clocks if (khz := _integer(path)) is not None),
            self._bits(),
            power_mw,
            _integer(self.root / _COUNT),
        )

    def temperature(self) -> float | None:
        """Return the temperature of the SoC in °C, None where nobody tells it."""
        found = _integer(self._temperature)
        if found is not None:
            return found / 1000.0
        return _after(self._say("measure_temp"), r"temp=([\d.]+)", float)

    def _bits(self) -> int | None:
        if self._throttled is not None:
            return _after(_text(self._throttled), r"^(?:0x)?([0-9a-fA-F]+)", lambda text: int(text, 16))
        return self._told

    def _ask(self) -> None:
        """Ask the firmware, when the last answer is old; on a board without its program nothing happens."""
        now = time.monotonic()
        if not self._program or now - self._asked_s < _ASK_EVERY_S:
            return
        self._asked_s = now
        clock = _after(self._say("measure_clock", "arm"), r"frequency\(\d+\)=(\d+)", int)
        self._measured = (clock // 1000,) if clock else ()
        if self._throttled is None:
            self._told = _after(self._say("get_throttled"), r"throttled=0x([0-9a-fA-F]+)", lambda text: int(text, 16))

    def _say(self, *words: str) -> str:
        if not self._program:
            return ""
        try:
            done = subprocess.run([self._program, *words], capture_output=True, text=True, timeout=5, check=False)
        except (OSError, subprocess.SubprocessError):
            return ""
        return done.stdout if done.returncode == 0 else ""


def _zone(root: Path) -> Path:
    """Return the file of the processor's temperature: of a zone that says so, else the first one's."""
    folders = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    kinds = {_text(folder / "type"): folder for folder in reversed(folders)}
    best = next((kinds[kind] for kind in _ZONES if kind in kinds), folders[0] if folders else root / "nowhere")
    return best / "temp"


def _program(root: Path) -> str:
    """Return where vcgencmd lies below a root, empty without it."""
    if root == Path("/"):
        return shutil.which("vcgencmd") or ""
    made = root / "usr/bin/vcgencmd"
    return str(made) if made.is_file() else ""


def _core_number(path: Path) -> int:
    return int(path.parts[-3].removeprefix("cpu"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _integer(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.lstrip("-").isdigit() else None


def _after(text: str, pattern: str, parse: Callable[[str], Value]) -> Value | None:
    found = re.search(pattern, text)
    return None if found is None else parse(found[1])
