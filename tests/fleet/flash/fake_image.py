# SPDX-License-Identifier: Apache-2.0
"""Small images laid out like Raspberry Pi OS', one for each first-boot format, built by Debian's tools, not as root.

A FAT partition at sector 8192, then a small ext4 root with the files by which a system is known. Nothing of it boots.
One kind has FAT32 (33 MB is the least that every tool takes for one), the others FAT16, which is smaller and faster.
"""

import os
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

TOOLS = {"sfdisk": "fdisk", "mkfs.vfat": "dosfstools", "fsck.vfat": "dosfstools", "mcopy": "mtools",
         "mke2fs": "e2fsprogs", "debugfs": "e2fsprogs", "e2fsck": "e2fsprogs"}  # fmt: skip
BOOT_AT = 8192 * 512
BOOT_BYTES = {16: 10 << 20, 32: 66_600 * 512}
ROOT_BYTES = 8 << 20
CMDLINE = "console=serial0,115200 console=tty1 root=PARTUUID=1badcafe-02 rootfstype=ext4 fsck.repair=yes rootwait"
AARCH64 = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, 0xB7) + bytes(44)


def tool(name):
    """Return a program's path; /usr/sbin is outside a user's PATH on Debian."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        import pytest

        package = TOOLS.get(name, name)
        pytest.skip(f"{name} is missing; run: apt-get install {package}")
    return found


def run(name, *words, **options):
    done = subprocess.run([tool(name), *map(str, words)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{name} {words}\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Kind:
    """What distinguishes an image: files of the boot partition, files of the root, cmdline words."""

    boot: dict
    root: dict
    words: str = ""
    python: str = "3.11"
    bits: int = 16


ISSUE = "Raspberry Pi reference {}\nGenerated using pi-gen, 0123456789abcdef, stage2\n"
SEEDS = {
    "user-data": "#cloud-config\n#hostname: raspberrypi\n",
    "meta-data": "dsmode: local\ninstance_id: rpios-image\n",
    "network-config": "# nothing\n",
}
HELPERS = {"/usr/lib/raspberrypi-sys-mods/imager_custom": "#!/bin/sh\n", "/usr/lib/systemd/systemd": "x"}
KINDS = {
    "cloud-init": Kind(SEEDS, {"/usr/bin/cloud-init": "x", "/usr/lib/systemd/systemd": "x"}, python="3.12"),
    "cloudinit-rpi": Kind(
        SEEDS | {"issue.txt": ISSUE.format("2025-11-24")}, HELPERS | {"/usr/bin/cloud-init": "x"}, " resize", "3.13", 32
    ),
    "firstrun": Kind(
        {"issue.txt": ISSUE.format("2024-07-04")}, HELPERS, " quiet init=/usr/lib/raspberrypi-sys-mods/firstboot"
    ),
    "rpi-preseed": Kind(
        {"issue.txt": ISSUE.format("2026-06-16")},
        HELPERS | {"/usr/lib/systemd/system/rpi-preseed.service": "[Unit]\n"}, " resize", "3.13",
    ),
    "unknown": Kind({}, {"/usr/lib/systemd/systemd": "x"}),
}  # fmt: skip


def _root(folder, kind):
    files = {
        "/etc/os-release": f'PRETTY_NAME="Fake GNU/Linux for Python {kind.python}"\nID=debian\n',
        "/etc/fstab": "proc /proc proc defaults 0 0\nPARTUUID=1badcafe-01 /boot/firmware vfat defaults 0 2\n",
        "/etc/hostname": "raspberrypi\n",
        **kind.root,
    }
    for path, text in files.items():
        target = folder / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    binaries = folder / "usr/bin"
    binaries.mkdir(parents=True, exist_ok=True)
    (binaries / f"python{kind.python}").write_bytes(AARCH64)
    (binaries / "python3").symlink_to(f"python{kind.python}")
    (folder / "lib").symlink_to("usr/lib")


def build(folder, name, *, gpt=False):
    """Build an image of a kind; return its path."""
    kind, image = KINDS[name], folder / f"{name}.img"
    root, boot = folder / f"{name}.root", folder / f"{name}.boot"
    for directory in (root, boot):
        directory.mkdir()
    _root(root, kind)
    for path, text in {"cmdline.txt": f"{CMDLINE}{kind.words}\n", "config.txt": "arm_64bit=1\n", **kind.boot}.items():
        (boot / path).write_text(text)
    (boot / "overlays").mkdir()
    (boot / "overlays" / "README").write_text("overlays\n" * 400)
    boot_bytes = BOOT_BYTES[kind.bits]
    size = BOOT_AT + boot_bytes + ROOT_BYTES + (1 << 20)
    with image.open("wb") as file:
        file.truncate(size)
    first, count = BOOT_AT // 512, boot_bytes // 512
    kinds = ("U", "L") if gpt else ("c", "83")
    label = "label: gpt\n" if gpt else "label: dos\nlabel-id: 0x1badcafe\n"
    parts = ((first, count, kinds[0]), (first + count, ROOT_BYTES // 512, kinds[1]))
    script = label + "".join(f"start={at}, size={length}, type={what}\n" for at, length, what in parts)
    run("sfdisk", "--quiet", image, input=script)
    run("mkfs.vfat", "-F", kind.bits, "-s", 1, "-n", "bootfs", "--offset", first, image, boot_bytes // 1024)
    run("mcopy", "-s", "-i", f"{image}@@{BOOT_AT}", *sorted(boot.iterdir()), "::")
    ext = folder / f"{name}.ext4"
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", root, ext, f"{ROOT_BYTES // 1024}k")
    run(
        "dd",
        f"if={ext}",
        f"of={image}",
        "bs=1M",
        f"seek={BOOT_AT + boot_bytes}",
        "oflag=seek_bytes",
        "conv=notrunc,sparse",
    )
    shutil.rmtree(root)
    shutil.rmtree(boot)
    ext.unlink()
    return image


def copy(image, target):
    """Copy an image, holes as holes."""
    run("cp", "--sparse=always", image, target)
    return Path(target)


def mtype(image, path):
    """Return a file of the boot partition as mtools reads it."""
    words = [tool("mtype"), "-i", f"{image}@@{BOOT_AT}", f"::{path}"]
    done = subprocess.run(words, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def part_of(image, number):
    """Return the bytes of a partition, by the MBR."""
    with Path(image).open("rb") as file:
        first, count = struct.unpack_from("<II", file.read(512), 446 + 16 * (number - 1) + 8)
        file.seek(first * 512)
        return file.read(count * 512)


def fsck(image):
    """Return what fsck.vfat says of the boot partition; empty if it is clean."""
    part = Path(image).with_suffix(".fsck")
    part.write_bytes(part_of(image, 1))
    done = subprocess.run([tool("fsck.vfat"), "-n", str(part)], capture_output=True, text=True, check=False)
    part.unlink()
    return "" if done.returncode == 0 else done.stdout
