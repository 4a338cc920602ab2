# SPDX-License-Identifier: Apache-2.0
"""What time it is, by rules that a board without a clock battery and a clock that jumps cannot break.

*The floor* is the earliest time that it can be: max(build date, last saved time, newest signed metadata). It rises
by what the server *signed* and by the kernel's uptime since then, never by the system's own clock: a clock that
jumps ten years ahead and back must not lock updates out for ten years. A signed time lifts it by a year at most.

*The hint* is a time that the server told over TLS by the pinned CA (``time_hint``). It counts on with the uptime, for
this boot of the kernel alone, and never lifts the floor. It is in force where the system's clock is not set, or
differs from it by more than a day and no time service vouches for the system's clock.
"""

import datetime as dt
import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_contract import canonical, durable
from edge_contract.errors import ContractError, DownloadError

__all__ = [
    "BUILT_AFTER",
    "QUALITIES",
    "SLACK_S",
    "Uptime",
    "floor",
    "hinted",
    "is_synchronised",
    "keep_hint",
    "newest_signed",
    "quality",
    "remember",
    "save",
    "trusted_now",
    "uptime",
]

BUILT_AFTER: Final = 1_735_689_600.0
"""The build date, 2025-01-01: this program is younger, so an earlier clock is not set."""
QUALITIES: Final = ("unset", "free", "server", "synced")
"""How good a clock is, worst first; telemetry carries the place in this list as ``clock_quality``."""
SLACK_S: Final = 86_400.0
"""Two honest clocks may differ by so much: a day matters to no expiry of ours."""
_MAX_STEP_S: Final = 366 * 86_400.0
_SAVE_EVERY_S: Final = 3600.0  # how much the floor may have grown by uptime before it is worth a write
_NAME, _HINT_NAME = "time_floor.json", "time_hint.json"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_SYNCED: Final = Path("/run/systemd/timesync/synchronized")


@dataclass(frozen=True)
class Uptime:
    """How long this boot of the kernel has lasted: the boot's id, and seconds that also count in suspend."""

    boot: str
    seconds: float


def uptime() -> Uptime:
    """Return this moment on the one clock that nobody can set."""
    return Uptime(_boot_id(), time.clock_gettime(time.CLOCK_BOOTTIME))


@functools.cache
def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def is_synchronised() -> bool:
    """True if a time service vouches for the system's clock: systemd-timesyncd's mark, or the kernel's own flag."""
    if _SYNCED.exists():
        return True
    import ctypes  # here, not above: the control process never comes here

    time_error = 5  # adjtimex(2): TIME_ERROR, the clock is not synchronised
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))  # struct timex; modes = 0 only reads
    except (OSError, AttributeError):
        return False
    return 0 <= int(state) < time_error


@functools.lru_cache(maxsize=8)
def _parsed(path: Path, _changed: int) -> tuple[float, str, float]:
    """Return (time, boot, uptime) of a file; zeros when it is damaged: TUF's own version numbers still hold."""
    try:
        document = canonical.loads(path.read_bytes())
        at = canonical.as_float(document["newest_signed"])
        return at, str(document.get("boot", "")), canonical.as_float(document.get("uptime", 0.0))
    except (OSError, ContractError, KeyError, TypeError, AttributeError):
        return 0.0, "", 0.0


def _read(path: Path, now: Uptime) -> tuple[float, float, str]:
    """Return (time then, time now by the uptime, boot) of a file; later than then only in the same boot."""
    try:
        stat = path.stat()
    except OSError:
        return 0.0, 0.0, ""
    at, boot, then = _parsed(path, stat.st_mtime_ns ^ stat.st_ino)
    passed = now.seconds - then if boot and boot == now.boot else 0.0
    return at, at + max(0.0, passed) if at else 0.0, boot


def _write(path: Path, at: float, now: Uptime) -> None:
    durable.write(path, canonical.dumps({"newest_signed": float(at), "boot": now.boot, "uptime": now.seconds}))


def newest_signed(folder: Path) -> float:
    """Return the newest time that was saved, in seconds since 1970; 0 when there is none."""
    return _read(folder / _NAME, Uptime("", 0.0))[0]


def floor(folder: Path, now: Uptime | None = None) -> float:
    """Return the earliest time that it can be, in seconds since 1970."""
    return max(_read(folder / _NAME, now or uptime())[1], BUILT_AFTER)


def hinted(folder: Path, system: float, now: Uptime | None = None) -> float | None:
    """Return the time by the server's hint where that is in force, else None.

    Args:
        folder: Where the files are, ``tuf/`` of the data folder.
        system: The system's clock, seconds since 1970.
        now: This moment's uptime, if not the kernel's own.
    """
    now = now or uptime()
    at, running, boot = _read(folder / _HINT_NAME, now)
    if not at or boot != now.boot or not boot:
        return None
    least = floor(folder, now)
    doubted = system < least - SLACK_S or (abs(system - running) > SLACK_S and not _SYNCED.exists())
    return max(running, least) if doubted else None


def keep_hint(folder: Path, at: float, now: Uptime | None = None) -> None:
    """Keep a time that the server told, for this boot of the kernel."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(folder / _HINT_NAME, at, now or uptime())


def trusted_now(folder: Path, system: float, now: Uptime | None = None) -> float:
    """Return the time by which expiry is judged: system's clock, server's hint or floor, by the rules above.

    Raises:
        DownloadError: The clock is not set: more than a day before the floor, and no hint is there. It may pass.

    Example:
        >>> trusted_now(Path("/nonexistent"), 1_800_000_000.0)
        1800000000.0
        >>> trusted_now(Path("/nonexistent"), 0.0)
        Traceback (most recent call last):
        edge_contract.errors.DownloadError: clock not set: it says 1970-01-01, it is at least 2025-01-01; set the clock (NTP), installs wait, inference goes on
    """  # noqa: E501 - the error is one line
    now = now or uptime()
    told = hinted(folder, system, now)
    if told is not None:
        return told
    least = floor(folder, now)
    if system < least - SLACK_S:
        fix = "set the clock (NTP), installs wait, inference goes on"
        raise DownloadError(f"clock not set: it says {_day(system)}, it is at least {_day(least)}", fix=fix)
    return max(system, least)


def quality(folder: Path, system: float, now: Uptime | None = None) -> str:
    """Return how good the time is that this device tells; cheap enough for every second.

    ``synced``: a time service vouches for it; ``server``: by the server's hint, the system's clock is off;
    ``free``: set, but nobody vouches for it; ``unset``: it cannot be.

    Example:
        >>> quality(Path("/nonexistent"), 12.0)
        'unset'
    """
    now = now or uptime()
    if hinted(folder, system, now) is not None:
        return "server"
    if system < floor(folder, now) - SLACK_S:
        return "unset"
    return "synced" if _SYNCED.exists() else "free"


def remember(folder: Path, signed_at: float, current: float, now: Uptime | None = None) -> None:
    """Raise the floor to a signed time; lower or absurd ones change nothing or little.

    Args:
        folder: Where the files are.
        signed_at: The time that signed metadata has shown.
        current: The trusted time now: a signed time lifts the floor to a year after it at most.
        now: This moment's uptime, if not the kernel's own.
    """
    now = now or uptime()
    candidate = min(signed_at, current + _MAX_STEP_S)
    if candidate > newest_signed(folder) and candidate > _read(folder / _NAME, now)[1]:
        _write(folder / _NAME, candidate, now)
    else:
        save(folder, now)


def save(folder: Path, now: Uptime | None = None) -> None:
    """Save the floor as far as the uptime has carried it, so that the next boot begins there; rarely writes."""
    now = now or uptime()
    at, running, _ = _read(folder / _NAME, now)
    if at and running - at >= _SAVE_EVERY_S:
        _write(folder / _NAME, running, now)


def _day(seconds: float) -> str:
    return dt.datetime.fromtimestamp(max(0.0, seconds), dt.UTC).strftime("%Y-%m-%d")
