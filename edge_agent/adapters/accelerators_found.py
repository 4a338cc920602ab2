# SPDX-License-Identifier: Apache-2.0
"""Which accelerators a board has: by the files that drivers make and the numbers on its USB. No device is opened."""

from pathlib import Path
from typing import Any, Final

__all__ = ["facts", "found"]

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
    sticks = (root / "sys/bus/usb/devices").glob("*/idVendor")
    names |= {name for vendor in sticks if (name := _USB.get((_text(vendor), _text(vendor.with_name("idProduct")))))}
    return sorted(names)


def facts(root: Path = Path("/")) -> dict[str, Any]:
    """Return what a birth says of them: nothing where there is none."""
    names = found(root)
    return {"accelerators": names} if names else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip().lower()
    except OSError:
        return ""
