# SPDX-License-Identifier: Apache-2.0
"""What an image says of itself: which system, which Python, which processor, where its boot partition is mounted."""

import re
import struct
from dataclasses import dataclass
from typing import Final

from edge_contract.errors import ImageError
from fleet.flash.ext4 import Ext4

__all__ = ["System", "look_inside"]

_MACHINES: Final = {0xB7: "aarch64", 0x28: "armv7l", 0x3E: "x86_64", 0xF3: "riscv64"}
_PRESEED: Final = ("/usr/lib/systemd/system/rpi-preseed.service", "/lib/systemd/system/rpi-preseed.service")
_SYSTEMD: Final = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")


@dataclass(frozen=True)
class System:
    """What the root file system says.

    Attributes:
        name: PRETTY_NAME of its ``os-release``.
        python: ``3.11``; empty if there is none.
        machine: ``aarch64``, ``armv7l``, …; empty if unknown.
        mount: Where ``fstab`` mounts the boot partition; empty if it does not say.
        has_cloud_init, has_preseed, has_sys_mods, has_systemd: Programs that a first boot needs.
    """

    name: str = ""
    python: str = ""
    machine: str = ""
    mount: str = ""
    has_cloud_init: bool = False
    has_preseed: bool = False
    has_sys_mods: bool = False
    has_systemd: bool = False


def _text(root: Ext4, path: str) -> str:
    return (root.read(path) or b"").decode("utf-8", "replace")


def _mount(fstab: str) -> str:
    r"""Return where the FAT partition of an fstab is mounted.

    Example:
        >>> _mount("proc /proc proc defaults 0 0\nPARTUUID=1-01 /boot/firmware vfat defaults 0 2\n")
        '/boot/firmware'
    """
    for line in fstab.splitlines():
        words = line.split()
        if len(words) >= 3 and not words[0].startswith("#") and words[2] in {"vfat", "msdos"}:
            return words[1].rstrip("/")
    return ""


def _machine(program: bytes) -> str:
    """Return the processor of an ELF program, by its header."""
    if len(program) < 20 or program[:4] != b"\x7fELF":
        return ""
    return _MACHINES.get(struct.unpack_from("<H", program, 18)[0], "")


def look_inside(root: Ext4) -> System | None:
    """Return what the root file system of an image says; None if it cannot be read."""
    try:
        name = re.search(r'^PRETTY_NAME="?([^"\n]*)', _text(root, "/etc/os-release"), re.MULTILINE)
        python = re.fullmatch(r"(?:.*/)?python(3\.\d+)", root.link("/usr/bin/python3"))
        program = root.read("/usr/bin/python3", 64) or root.read("/bin/sh", 64) or b""
        return System(
            name=name[1] if name else "",
            python=python[1] if python else "",
            machine=_machine(program),
            mount=_mount(_text(root, "/etc/fstab")),
            has_cloud_init=root.exists("/usr/bin/cloud-init"),
            has_preseed=any(root.exists(path) for path in _PRESEED),
            has_sys_mods=root.exists("/usr/lib/raspberrypi-sys-mods/imager_custom"),
            has_systemd=any(root.exists(path) for path in _SYSTEMD),
        )
    except (ImageError, struct.error):
        return None
