# SPDX-License-Identifier: Apache-2.0
"""An emulated board with one card: switched on, watched on its serial line, and cut off from power at any moment."""

import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.fleet.flash.boot.base import command_line
from tests.machines import board
from tests.machines.devicetree import with_property

__all__ = ["PI_3", "VIRT", "Board", "Kind"]


@dataclass(frozen=True)
class Kind:
    """A machine of QEMU's: the words that make it, the name of its root, and its card."""

    words: tuple[str, ...]
    root: str
    card: tuple[str, ...]


VIRT = Kind(
    ("-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", "1024"),
    "/dev/vda2",
    ("if=none,id=d0", "-device", "virtio-blk-pci,drive=d0", "-device", "virtio-rng-pci",
     "-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0"),
)  # fmt: skip
"""A Cortex-A72 with a cable: this machine is 10.0.2.2."""
PI_3 = Kind(("-M", "raspi3b"), "/dev/mmcblk0p2", ("if=sd",))
"""A Raspberry Pi 3 B with its SD card and no network; the size of its card is a power of two."""


class Board:
    """A board of a kind, with its serial number.

    A restart that the system asks for is one here, too: the boot loader reads the card's command line again. What the
    board had handed to its card stays there when the power is cut; what was still in its memory is gone.
    """

    def __init__(self, card: Path, console: Path, *, kind: Kind = VIRT, serial: str = "10000000a1b2c3d4") -> None:
        self.card, self.console, self.kind, self.serial = card, console, kind, serial
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def _tree(self) -> Path:
        """Write this board's device tree, as its firmware would."""
        path, bare = self.console.with_suffix(".dtb"), board.pi_tree()
        if self.kind is VIRT:
            bare = self.console.with_suffix(".bare.dtb")
            machine, *more = [board.QEMU, *self.kind.words]
            words = [f"virt,dumpdtb={bare}" if word == "virt" else word for word in more]
            subprocess.run([machine, *words, "-nographic", "-nodefaults"], check=True, capture_output=True)
        path.write_bytes(with_property(bare.read_bytes(), "serial-number", f"{self.serial}\0".encode()))
        return path

    def on(self) -> None:
        """Switch it on."""
        assert self._process is None or self._process.poll() is not None
        first, *others = self.kind.card
        words = [board.QEMU, *self.kind.words, "-accel", "tcg", "-dtb", str(self._tree())]
        words += ["-nographic", "-nodefaults", "-no-reboot", "-monitor", "none"]
        words += [
            "-kernel",
            str(board.kernel()),
            "-initrd",
            str(board.initrd()),
            "-append",
            command_line(self.card, self.kind.root),
        ]
        words += ["-chardev", f"file,id=s0,path={self.console},append=on", "-serial", "chardev:s0"]
        words += ["-drive", f"file={self.card},{first},format=raw,cache=writeback", *others]
        with self.console.with_suffix(".qemu").open("ab") as log:
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
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
            faults = self.console.with_suffix(".qemu").read_text("utf-8", "replace")
            assert self._process.returncode == 0, f"QEMU ended with {self._process.returncode}: {faults[-1000:]}"
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
