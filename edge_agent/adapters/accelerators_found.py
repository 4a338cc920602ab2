# SPDX-License-Identifier: Apache-2.0
"""Which accelerators a board has: by the files that drivers make and the numbers on its USB. No device is opened."""

from pathlib import Path
from typing import Any, Final

__all__ = ["facts", "found", "nodes", "sticks"]

_NODES: Final = (
    ("edgetpu", "dev/apex_*"),
    ("hailo", "dev/hailo*"),
    ("cuda", "dev/nvidia[0-9]*"),
    ("rknpu", "dev/rknpu*"),
    ("npu", "dev/accel/accel*"),
)
_USB: Final = {("1a6e", "089a"): "edgetpu", ("18d1", "9302"): "edgetpu", ("03e7", "2485"): "myriad"}
"""(vendor, product) → accelerator; a Coral stick has the first number before its firmware and the second after."""


def found(root: Path = Path("/")) -> list[str]:
    """Return the names of the accelerators, each once, sorted.

    Example:
        >>> found(Path("/nowhere"))
        []
    """
    names = {name for name, pattern in _NODES if any(root.glob(pattern))}
    return sorted(names | {name for name, _ in sticks(root)})


def nodes(root: Path = Path("/")) -> list[tuple[str, Path]]:
    """Return (name, device file) of what a driver has made a file for, sorted."""
    return sorted((name, path) for name, pattern in _NODES for path in root.glob(pattern))


def sticks(root: Path = Path("/")) -> list[tuple[str, Path]]:
    """Return (name, folder in sysfs) of the accelerators on USB, sorted; ``speed`` in the folder is in Mbit/s.

    Example:
        >>> sticks(Path("/nowhere"))
        []
    """
    folders = [vendor.parent for vendor in (root / "sys/bus/usb/devices").glob("*/idVendor")]
    named = [(_USB.get((_text(one / "idVendor"), _text(one / "idProduct")), ""), one) for one in folders]
    return sorted((name, folder) for name, folder in named if name)


def facts(root: Path = Path("/")) -> dict[str, Any]:
    """Return what a birth says of them: nothing where there is none."""
    names = found(root)
    return {"accelerators": names} if names else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip().lower()
    except OSError:
        return ""
