# SPDX-License-Identifier: Apache-2.0
"""A whole Debian 12 for ARM64, with systemd, and its kernel: ``python -m tests.machines.board``.

``.board/`` holds what an image of Raspberry Pi OS holds, as far as Debian has it: the root file system, installed by
its own package manager under emulation, and the kernel with a small first system in memory that mounts the root. No
image of Raspberry Pi OS can be had here, so boot loader, firmware and device tree are QEMU's.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.machines import arm64, cpio
from tests.machines.unpacked import ROOT, CannotBuildError, Place, require_tools, tell
from tests.machines.vm import drivers

__all__ = ["QEMU", "build", "initrd", "kernel", "missing", "system"]

QEMU = "qemu-system-aarch64"
SUITE = "bookworm"
PACKAGES = (
    *("systemd", "systemd-sysv", "udev", "dbus", "python3", "passwd", "adduser", "netbase", "iproute2"),
    *("ca-certificates", "busybox-static", "linux-image-cloud-arm64"),
)
DRIVERS = ("virtio_pci", "virtio_blk", "ext4")
HOOKS = Path("/usr/share/mmdebstrap/hooks")
"""A system with a merged /usr from the start: to merge it under emulation takes longer than all the rest."""
BINFMT = Path("/proc/sys/fs/binfmt_misc")
INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for driver in /drivers/*.ko; do /bin/busybox insmod "$driver"; done
for word in $(/bin/busybox cat /proc/cmdline); do case "$word" in root=*) root=${word#root=};; esac; done
until [ -b "$root" ]; do /bin/busybox usleep 50000; done
/bin/busybox mount -t ext4 -o ro "$root" /root
for old in /proc /sys /dev; do /bin/busybox mount -o move "$old" "/root$old"; done
exec /bin/busybox switch_root /root /sbin/init
"""
FILES = {
    "etc/fstab": "/dev/vda2 / ext4 defaults,noatime 0 1\n/dev/vda1 /boot/firmware vfat defaults 0 2\n",
    "etc/hostname": "raspberrypi\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 raspberrypi\n",
    "etc/machine-id": "",
    "etc/systemd/network/10-cable.network": "[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n",
}
ENABLED = {"multi-user.target.wants/systemd-networkd.service": "/lib/systemd/system/systemd-networkd.service"}
LEFT_OUT = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer")
PLACE = Place(
    ROOT / ".board",
    "tests.machines.board",
    "make test-boot",
    {"suite": SUITE, "packages": PACKAGES, "drivers": DRIVERS, "init": INIT, "files": FILES, "enabled": ENABLED},
)


def missing() -> str:
    """Return why no board can be started here, with the line to run; empty if one can."""
    if shutil.which(QEMU) is None:
        return "apt-get install --no-install-recommends qemu-system-arm"
    return PLACE.missing()


def kernel() -> Path:
    """Return the kernel's file."""
    return PLACE.folder / "start/vmlinuz"


def initrd() -> Path:
    """Return the first system in memory."""
    return PLACE.folder / "start/initrd"


def system() -> Path:
    """Return the folder of the root file system; its files have the owners that they have on a board."""
    return PLACE.folder / "root"


def _emulation() -> None:
    """Let the kernel start programs for ARM64 by the emulator of ``.arm64``, also inside of a chroot."""
    if not (BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)], check=False)
    if any(path.name.startswith("qemu-aarch64") for path in BINFMT.glob("qemu-*")):
        return
    magic = rb"\x7fELF\x02\x01\x01" + rb"\x00" * 9 + rb"\x02\x00\xb7\x00"
    mask = rb"\xff" * 7 + rb"\x00" + rb"\xff" * 8 + rb"\xfe\xff\xff\xff"
    rule = b":qemu-aarch64:M::" + magic + b":" + mask + b":" + bytes(arm64.PLACE.folder / "qemu-aarch64") + b":FP\n"
    try:
        (BINFMT / "register").write_bytes(rule)
    except OSError as error:
        raise CannotBuildError(f"programs for ARM64 cannot be started here: {error.strerror}") from error


def _root(folder: Path) -> None:
    words = ["mmdebstrap", "--quiet", "--architectures=arm64", "--variant=minbase", f"--hook-dir={HOOKS}/merged-usr"]
    words += [f"--include={','.join(PACKAGES)}", '--aptopt=Acquire::Retries "3"', SUITE, str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "E:" in line] or done.stderr.splitlines() or ["no word"]
        raise CannotBuildError(f"Debian for ARM64 could not be installed: {said[-1][:300]}")
    _prepare(folder)


def _prepare(root: Path) -> None:
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name, target in ENABLED.items():
        link = root / "etc/systemd/system" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    for name in LEFT_OUT:
        (root / "etc/systemd/system" / name).symlink_to("/dev/null")
    (root / "boot/firmware").mkdir(exist_ok=True)
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(root / folder, ignore_errors=True)


def _start(folder: Path) -> None:
    root = folder.with_name("root")
    folder.mkdir()
    (found,) = root.glob("boot/vmlinuz-*")
    shutil.copy(found, folder / "vmlinuz")
    busybox = root / "bin/busybox"
    first = [("bin/busybox", busybox.read_bytes(), 0o755), ("init", INIT.encode(), 0o755)]
    folders = [(f"{name}/.keep", b"", 0o644) for name in ("proc", "sys", "dev", "root")]
    (folder / "initrd").write_bytes(cpio.archive([*first, *folders, *drivers(root, DRIVERS)]))


def _check(draft: Path) -> None:
    if not (draft / "root/lib/systemd/systemd").exists() or (draft / "start/initrd").stat().st_size < 1_000_000:
        raise CannotBuildError("the board's system is not whole")


def build() -> None:
    """Build ``.board/`` if it is missing or of other versions; raises CannotBuildError."""
    if not PLACE.missing():
        return tell(".board is there")
    require_tools(PLACE.module)
    if shutil.which("arch-test") is None:
        raise CannotBuildError("arch-test is missing; run: apt-get install --no-install-recommends arch-test")
    arm64.build()
    _emulation()
    return PLACE.build({"root": _root, "start": _start}, _check)


if __name__ == "__main__":
    os.umask(0o022)
    try:
        build()
    except CannotBuildError as error:
        sys.exit(f"error: {error}")
