# SPDX-License-Identifier: Apache-2.0
"""A base image that boots: laid out like Raspberry Pi OS', with Debian's system for ARM64 as its root."""

import subprocess
from pathlib import Path

from tests.fleet.flash.fake_image import BOOT_AT, ISSUE, run, tool
from tests.machines import board

__all__ = ["build", "command_line", "names"]

BOOT_BYTES = 256 << 20
CARD_BYTES = 1 << 30
"""A power of two: QEMU's SD card has no other sizes."""
ROOT_BYTES = CARD_BYTES - BOOT_AT - BOOT_BYTES
WORDS = "root=PARTUUID=1badcafe-02 rootfstype=ext4 fsck.repair=yes rootwait"


def build(folder: Path) -> Path:
    """Build the image as its maker would publish it; nothing of it is for one board."""
    image, boot = folder / "base.img", folder / "boot"
    boot.mkdir(parents=True)
    (boot / "cmdline.txt").write_text(f"console=tty1 console=ttyAMA0,115200 {WORDS}\n")
    (boot / "config.txt").write_text("arm_64bit=1\n")
    (boot / "issue.txt").write_text(ISSUE.format("2024-07-04"))
    with image.open("wb") as file:
        file.truncate(CARD_BYTES)
    first, count = BOOT_AT // 512, BOOT_BYTES // 512
    parts = f"start={first}, size={count}, type=c\nstart={first + count}, size={ROOT_BYTES // 512}, type=83\n"
    run("sfdisk", "--quiet", image, input=f"label: dos\nlabel-id: 0x1badcafe\n{parts}")
    run("mkfs.vfat", "-F", 32, "-s", 4, "-n", "bootfs", "--offset", first, image, BOOT_BYTES // 1024)
    run("mcopy", "-i", f"{image}@@{BOOT_AT}", *sorted(boot.iterdir()), "::")
    where = BOOT_AT + BOOT_BYTES
    run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "rootfs", "-E", f"offset={where}", "-d", board.system(), image,
        f"{ROOT_BYTES // 1024}k")  # fmt: skip
    return image


def command_line(image: Path, root: str) -> str:
    """Return what the boot loader hands to the kernel: the line on the boot partition, as it is now.

    Our first system in memory finds its root by a device's name, so that word is replaced; services have an hour
    to start, since the emulation may be slow.
    """
    line = run("mtype", "-i", f"{image}@@{BOOT_AT}", "::cmdline.txt").strip()
    words = [f"root={root}" if word.startswith("root=") else word for word in line.split()]
    return " ".join([*words, "systemd.show_status=1", "systemd.default_timeout_start_sec=1h", "panic=-1"])


def names(image: Path, folder: str, work: Path) -> list[str]:
    """Return the names in a folder of the root of a card, also of one whose power was cut, or that is in use.

    It looks at a copy, whose journal is played back as at a start.
    """
    root = work.with_suffix(".ext4")
    where = f"skip={BOOT_AT + BOOT_BYTES}"
    run("dd", f"if={image}", f"of={root}", where, "iflag=skip_bytes", "bs=1M", "conv=sparse", "status=none")
    subprocess.run([tool("e2fsck"), "-fy", root], capture_output=True, check=False)  # 1: it was mended
    lines = run("debugfs", "-R", f"ls -p {folder}", root).splitlines()
    return [line.split("/")[5] for line in lines if line.count("/") > 5]
