# SPDX-License-Identifier: Apache-2.0
"""Let the kernel find a USB accelerator anew: by a command of the person who set the board up, or by sysfs.

Sysfs: ``/sys/bus/usb/devices/<port>/authorized`` takes a device away (0) and looks at it again (1), as if it had been
pulled out and put back. That needs the right to write this one file: a udev rule, or systemd's ``ReadWritePaths``.
"""

import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge_contract.errors import RuntimeAdapterError, UsageError

__all__ = ["CORAL_IDS", "by_command", "by_sysfs", "find"]

CORAL_IDS: Final = (("1a6e", "089a"), ("18d1", "9302"))
"""Vendor and product of a Coral USB stick: before its firmware is loaded, and after."""
_USB: Final = Path("/sys/bus/usb/devices")
_TIMEOUT_S: Final = 30.0
_PAUSE_S: Final = 1.0


def find(devices: Path = _USB, ids: tuple[tuple[str, str], ...] = CORAL_IDS) -> list[Path]:
    """Return the devices of these ids, by port."""
    plugged = sorted(devices.iterdir()) if devices.is_dir() else []
    return [device for device in plugged if (_text(device / "idVendor"), _text(device / "idProduct")) in ids]


def by_sysfs(
    devices: Path = _USB,
    ids: tuple[tuple[str, str], ...] = CORAL_IDS,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Take every device of these ids away and let it come back; return how many there were.

    Raises:
        RuntimeAdapterError: There is none, or the kernel refuses.
    """
    found = find(devices, ids)
    if not found:
        raise RuntimeAdapterError("no such device on USB", where=str(devices), fix="is it plugged in?")
    for device in found:
        switch = device / "authorized"
        try:
            switch.write_text("0")
            pause(_PAUSE_S)
            switch.write_text("1")
        except OSError as error:
            fix = "let the agent write it: a udev rule, and ReadWritePaths of its unit"
            raise RuntimeAdapterError(f"cannot be written: {error.strerror}", where=str(switch), fix=fix) from error
    pause(_PAUSE_S)
    return len(found)


def by_command(command: str, timeout_s: float = _TIMEOUT_S) -> None:
    """Run the configured command, without a shell.

    Raises:
        UsageError: It is empty or badly quoted.
        RuntimeAdapterError: It cannot be started, fails, or takes too long.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"cannot be read: {error}", where=command) from error
    if not words:
        raise UsageError("an empty command", where="re_enumerate", fix="name a program, or leave it out for sysfs")
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeAdapterError(str(error), where=command) from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RuntimeAdapterError(f"exit code {done.returncode}: {said}"[:300], where=command)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip().lower()
    except OSError:
        return ""
