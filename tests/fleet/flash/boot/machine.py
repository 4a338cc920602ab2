# SPDX-License-Identifier: Apache-2.0
"""An emulated board with one card: switched on, watched on its serial line, and cut off from power at any moment."""

import re
import subprocess
import time
from pathlib import Path

from tests.fleet.flash.boot.base import command_line
from tests.machines import board

__all__ = ["Board"]


class Board:
    """QEMU's ``virt`` with a Cortex-A72, 1 GiB of memory, a cable to this machine (10.0.2.2) and a card.

    A restart that the system asks for is one here, too: the boot loader reads the card's command line again. What the
    board had handed to its card stays there when the power is cut; what was still in its memory is gone.
    """

    def __init__(self, card: Path, console: Path) -> None:
        self.card, self.console = card, console
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def on(self) -> None:
        """Switch it on."""
        assert self._process is None or self._process.poll() is not None
        words = [
            board.QEMU,
            "-M",
            "virt",
            "-cpu",
            "cortex-a72",
            "-smp",
            "2",
            "-m",
            "1024",
            "-accel",
            "tcg,thread=multi",
        ]
        words += ["-nographic", "-nodefaults", "-no-reboot", "-monitor", "none"]
        words += ["-kernel", str(board.kernel()), "-initrd", str(board.initrd()), "-append", command_line(self.card)]
        words += ["-chardev", f"file,id=s0,path={self.console},append=on", "-serial", "chardev:s0"]
        words += ["-drive", f"file={self.card},if=none,id=d0,format=raw,cache=writeback"]
        words += ["-device", "virtio-blk-pci,drive=d0", "-device", "virtio-rng-pci"]
        words += ["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0"]
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.starts += 1

    def cut(self) -> None:
        """Cut the power."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def said(self) -> str:
        """Return all that it has said on its serial line."""
        return self.console.read_text("utf-8", "replace") if self.console.exists() else ""

    def turn(self) -> None:
        """Start it again if it has restarted itself; called while something is waited for."""
        if self._process is not None and self._process.poll() is not None:
            self.on()

    def until_said(self, pattern: str, seconds: float, after: int = 0) -> re.Match[str]:
        """Wait for words on the serial line behind a place in it; raises AssertionError with the last lines."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.turn()
            found = re.compile(pattern).search(self.said(), after)
            if found:
                return found
            time.sleep(0.5)
        raise AssertionError(f"{pattern!r} was not said in {seconds:.0f} s; the last words:\n{self.said()[-3000:]}")
