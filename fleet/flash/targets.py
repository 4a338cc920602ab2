# SPDX-License-Identifier: Apache-2.0
"""Which block devices may be overwritten: cards and sticks that nothing uses. Everything else is refused by name.

Read from ``/sys/block``, ``/proc/self/mountinfo`` and ``/proc/swaps``; every reader takes the root folder of these.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_contract.errors import UsageError

__all__ = ["MOST_BYTES", "Target", "all_targets", "check", "find"]

MOST_BYTES: Final = 512 * 10**9
"""A larger device is more likely a backup disk than a card."""
_SECTOR: Final = 512  # /sys counts in these, whatever the device's own sectors are
_UNESCAPED: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Target:
    """One whole block device as the kernel describes it.

    Attributes:
        path: Such as ``/dev/sdb``.
        size: Bytes; 0: there is no card in the reader.
        model, serial: What it calls itself; a card's serial is that of its CID register.
        is_removable: The medium can be taken out: a card in a reader, a stick.
        is_read_only: The lock of an SD adapter, or a worn-out card.
        bus: ``mmc``, ``usb``, ``loop``, ``sata`` …
        used: Why it is in use: mount points, swap, or devices that are built upon it.
    """

    path: Path
    size: int
    model: str
    serial: str
    is_removable: bool
    is_read_only: bool
    bus: str
    used: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = " ".join(word for word in (self.model, self.serial) if word) or self.bus
        return f"{self.path} ({what}, {self.size / 1e9:.1f} GB)"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def all_targets(root: Path = Path("/")) -> list[Target]:
    """Return every whole block device by name; loop devices and memory disks without a size are left out."""
    blocks = root / "sys/block"
    names = sorted(path.name for path in blocks.iterdir()) if blocks.is_dir() else []
    found = (_target(blocks / name, root) for name in names)
    return [one for one in found if one.size or one.bus not in ("loop", "virtual")]


def find(path: Path, root: Path = Path("/")) -> Target:
    """Return the device behind a path such as ``/dev/sdb`` or ``/dev/disk/by-id/…``.

    Raises:
        UsageError: It is no whole block device: a partition, a file, nothing at all.
    """
    real = path.resolve()
    folder = root / "sys/block" / real.name
    if folder.is_dir():
        return _target(folder, root)
    owners = [block.name for block in (root / "sys/block").glob("*") if (block / real.name).is_dir()]
    if owners:
        raise UsageError(
            f"is a partition of /dev/{owners[0]}", where=str(path), fix=f"name the whole card: /dev/{owners[0]}"
        )
    known = ", ".join(str(one.path) for one in all_targets(root) if one.is_removable) or "none is plugged in"
    raise UsageError("is no block device", where=str(path), fix=f"removable ones here: {known}")


def _target(folder: Path, root: Path) -> Target:
    device = folder / "device"
    size = int(_read(folder / "size") or 0) * _SECTOR
    bus = _bus(folder)
    model = " ".join(
        word for word in (_read(device / "vendor"), _read(device / "model") or _read(device / "name")) if word
    )
    is_card = bus == "mmc" and _read(device / "type") == "SD"  # a built-in reader's slot is not called removable
    return Target(
        path=Path("/dev") / folder.name,
        size=size,
        model=model,
        serial=_read(device / "serial") or _read(device / "cid"),
        is_removable=_read(folder / "removable") == "1" or is_card,
        is_read_only=_read(folder / "ro") == "1",
        bus=bus,
        used=tuple(_uses(folder, root)),
    )


def _bus(folder: Path) -> str:
    if folder.name.startswith(("loop", "zram", "ram", "dm-", "md")):
        return "loop" if folder.name.startswith("loop") else "virtual"
    if folder.name.startswith("mmcblk"):
        return "mmc"
    return "usb" if "/usb" in str(folder.resolve()) else "disk"


def _uses(folder: Path, root: Path) -> Iterator[str]:
    """Say what uses a device or one of its partitions."""
    parts = [folder, *(path.parent for path in folder.glob("*/partition"))]
    numbers = {_read(part / "dev") for part in parts} - {""}
    names = {f"/dev/{part.name}" for part in parts}
    for line in _read(root / "proc/self/mountinfo").splitlines():
        words = line.split()
        source = words[words.index("-") + 2] if "-" in words else ""
        if words[2] in numbers or source in names:
            yield f"mounted on {_UNESCAPED.sub(lambda m: chr(int(m[1], 8)), words[4])}"
    for line in _read(root / "proc/swaps").splitlines()[1:]:
        if line.split()[0] in names:
            yield "swap space"
    for part in parts:
        holders = part / "holders"
        if holders.is_dir():
            yield from (f"part of /dev/{holder.name}" for holder in sorted(holders.iterdir()))


def check(target: Target, needed: int, *, most: int = MOST_BYTES, is_loop_allowed: bool = False) -> None:
    """Refuse a device that should not be overwritten.

    Args:
        target: The device.
        needed: Bytes of the image.
        most: No larger device is taken.
        is_loop_allowed: A loop device counts as a card: for images that are tried out.

    Raises:
        UsageError: It is in use, not removable, read-only, too small, implausibly large, or has no card in it.
    """
    where = str(target.path)
    if target.used:
        fix = "unmount it: udisksctl unmount -b PARTITION, or sudo umount PARTITION"
        raise UsageError(f"is in use: {', '.join(target.used)}", where=where, fix=fix)
    if not (target.is_removable or (is_loop_allowed and target.bus == "loop")):
        raise UsageError("is not removable: it may be this machine's own disk", where=where, fix="name a card or stick")
    if not target.size:
        raise UsageError("there is no card in the reader", where=where, fix="put one in")
    if target.is_read_only:
        raise UsageError("is read-only", where=where, fix="slide the lock of the adapter; a worn-out card stays so")
    if target.size > most:
        what = f"has {target.size / 1e9:.0f} GB, more than the {most / 1e9:.0f} GB that a card may have"
        raise UsageError(what, where=where, fix="--max-gb raises the limit")
    if target.size < needed:
        raise UsageError(f"has {target.size:,} bytes, the image {needed:,}", where=where, fix="take a larger card")
