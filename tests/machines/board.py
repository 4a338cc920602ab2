# SPDX-License-Identifier: Apache-2.0
"""A whole Debian 12 for ARM64, with systemd, and its kernel: ``python -m tests.machines.board``.

``.board/`` holds what an image of Raspberry Pi OS holds, as far as Debian has it: the root file system, unpacked from
Debian's packages and finished by its own programs under emulation, the kernel, a small first system in memory that
mounts the root, and the device tree of a Raspberry Pi 3. No image of Raspberry Pi OS can be had here, so boot loader
and firmware are QEMU's. Packages' own scripts are not run: emulated, they take a quarter of an hour, and what they do
for these packages are the few things of ``_finish``.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.machines import arm64, cpio
from tests.machines.unpacked import ROOT, CannotBuildError, Place, require_tools, tell
from tests.machines.vm import drivers

__all__ = ["QEMU", "build", "initrd", "kernel", "missing", "pi_tree", "system"]

QEMU = "qemu-system-aarch64"
SUITE = "bookworm"
PACKAGES = (
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "diffutils", "findutils", "grep"),
    *(
        "hostname",
        "init-system-helpers",
        "libc-bin",
        "libstdc++6",
        "login",
        "mawk",
        "mount",
        "passwd",
        "sed",
        "tar",
        "util-linux",
    ),
    *("usr-is-merged", "systemd", "systemd-sysv", "udev", "dbus", "python3", "netbase", "iproute2", "kmod", "procps"),
    *("e2fsprogs", "dosfstools", "busybox-static", "linux-image-arm64"),
)
DRIVERS = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "bcm2835", "sdhci_iproc")
KEPT = (*DRIVERS, "vfat", "nls_ascii", "nls_cp437", "autofs4", "virtio_net", "virtio_rng", "bcm2835_rng", "bcm2835_wdt")
"""Drivers that stay; the others of the whole kernel would be most of the image."""
PI_TREE = "usr/lib/linux-image-*/broadcom/bcm2837-rpi-3-b.dtb"
"""Of the device trees of all boards, the one that stays."""
MERGED = 'for one in bin sbin lib; do mkdir -p "$1/usr/$one"; ln -s "usr/$one" "$1/$one"; done'
LEFT_OUT_FILES = ("doc", "man", "info", "locale", "i18n")
INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
until [ -c /dev/console ]; do /bin/busybox usleep 50000; done
exec </dev/console >/dev/console 2>&1
for driver in /drivers/*.ko; do /bin/busybox insmod "$driver"; done
for word in $(/bin/busybox cat /proc/cmdline); do case "$word" in root=*) root=${word#root=};; esac; done
echo "first system: waiting for $root"
until [ -b "$root" ]; do /bin/busybox usleep 50000; done
/bin/busybox mount -t ext4 -o ro "$root" /root || exec /bin/busybox poweroff -f
for old in proc sys dev; do /bin/busybox mount --move "/$old" "/root/$old"; done
exec /bin/busybox switch_root /root /sbin/init
"""
FILES = {
    "etc/fstab": "PARTUUID=1badcafe-02 / ext4 defaults,noatime,x-systemd.device-timeout=1h 0 1\n"
    "PARTUUID=1badcafe-01 /boot/firmware vfat defaults,x-systemd.device-timeout=1h 0 2\n",
    "etc/hostname": "raspberrypi\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 raspberrypi\n",
    "etc/machine-id": "uninitialized\n",
    "etc/systemd/network/10-cable.network": "[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n",
}
MASKED = ("systemd-firstboot.service", "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount", "fstrim.timer",
          "getty@tty1.service", "e2scrub_all.timer", "e2scrub_reap.service", "dpkg-db-backup.timer")  # fmt: skip
"""What asks a person something, or has nothing to do on such a board but take minutes."""
COPIED = {
    "etc/passwd": "usr/share/base-passwd/passwd.master",
    "etc/group": "usr/share/base-passwd/group.master",
    "etc/nsswitch.conf": "usr/share/libc-bin/nsswitch.conf",
}
UNITS = "etc/systemd/system"
LINKS = {
    f"{UNITS}/multi-user.target.wants/systemd-networkd.service": "/lib/systemd/system/systemd-networkd.service",
    "etc/localtime": "/usr/share/zoneinfo/Etc/UTC",
    "var/run": "/run",
    "var/lock": "/run/lock",
    "usr/bin/awk": "mawk",
}
FOLDERS = (
    "root",
    "home",
    "boot/firmware",
    "proc",
    "sys",
    "dev",
    "run",
    "tmp",
    "mnt",
    "opt",
    "srv",
    "var/tmp",
    "var/log",
)
PLACE = Place(
    ROOT / ".board",
    "tests.machines.board",
    "make test-boot",
    {"suite": SUITE, "packages": PACKAGES, "drivers": KEPT, "masked": MASKED},
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


def pi_tree() -> Path:
    """Return the device tree of a Raspberry Pi 3 B, as the kernel's package has it."""
    return PLACE.folder / "start/pi3.dtb"


def system() -> Path:
    """Return the folder of the root file system; its files have the owners that they have on a board."""
    return PLACE.folder / "root"


def _root(folder: Path) -> None:
    words = ["mmdebstrap", "--quiet", "--architectures=arm64", "--variant=extract", f"--setup-hook={MERGED}"]
    words += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT_FILES]
    words += [f"--include={','.join(PACKAGES)}", '--aptopt=Acquire::Retries "3"', SUITE, str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "E:" in line] or done.stderr.splitlines() or ["no word"]
        raise CannotBuildError(f"Debian for ARM64 could not be had: {said[-1][:300]}")
    _finish(folder)


def _finish(root: Path) -> None:
    """Do what the packages' scripts would have done: users, links, settings of a board, the list of drivers."""
    for name in FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    (root / "root").chmod(0o700)
    for name, source in COPIED.items():
        shutil.copyfile(root / source, root / name)
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    masks = {f"{UNITS}/{name}": "/dev/null" for name in MASKED}
    for name, target in (LINKS | masks).items():
        link = root / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_dir() and not link.is_symlink():
            shutil.rmtree(link)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    for folder in ("var/cache/apt", "var/lib/apt", *(f"usr/share/{name}" for name in LEFT_OUT_FILES)):
        shutil.rmtree(root / folder, ignore_errors=True)
    for path in (*root.glob("boot/System.map-*"), *root.glob("usr/lib/linux-image-*/*/*.dtb")):
        if not path.match(PI_TREE):
            path.unlink()
    _locked(root)
    _run(root, "systemd-sysusers", f"--root={root}")
    _few_drivers(root)


def _locked(root: Path) -> None:
    """Give every user a locked password: nobody logs in to this board by one."""
    names = [line.split(":")[0] for line in (root / "etc/passwd").read_text().splitlines()]
    for name in ("passwd", "group"):
        path = root / "etc" / name
        path.write_text(path.read_text().replace(":*:", ":x:"))
    (root / "etc/shadow").write_text("".join(f"{name}:*:19700:0:99999:7:::\n" for name in names))
    (root / "etc/shadow").chmod(0o640)


def _run(root: Path, program: str, *words: str) -> None:
    """Run a program of the board here."""
    path = next(path for name in ("usr/bin", "usr/sbin") if os.path.lexists(path := root / name / program))
    real = root / "usr/bin/kmod" if path.is_symlink() else path  # depmod is a link to it from the system's root
    emulator = arm64.PLACE.folder / "qemu-aarch64"
    done = subprocess.run(
        [emulator, "-0", program, "-L", root, real, *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CannotBuildError(f"{program} for ARM64 failed: {done.stderr.strip()[-300:]}")


def _few_drivers(root: Path) -> None:
    kept = {Path(name).stem.partition("-")[2] for name, _, _ in drivers(root, KEPT)}
    for path in root.glob("usr/lib/modules/*/kernel/**/*.ko"):
        if path.stem.replace("-", "_") not in kept:
            path.unlink()
    (version,) = (path.name for path in root.glob("usr/lib/modules/*"))
    _run(root, "depmod", "-b", str(root), version)


def _start(folder: Path) -> None:
    root = folder.with_name("root")
    folder.mkdir()
    (found,) = root.glob("boot/vmlinuz-*")
    shutil.copy(found, folder / "vmlinuz")
    (tree,) = root.glob(PI_TREE)
    shutil.copy(tree, folder / "pi3.dtb")
    first = [("bin/busybox", (root / "bin/busybox").read_bytes(), 0o755), ("init", INIT.encode(), 0o755)]
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
    arm64.build()
    return PLACE.build({"root": _root, "start": _start}, _check)


if __name__ == "__main__":
    os.umask(0o022)
    try:
        build()
    except CannotBuildError as error:
        sys.exit(f"error: {error}")
