# SPDX-License-Identifier: Apache-2.0
"""The files of a capture in the data folder. Standard library only: runner, control process and helper share it.

::

    capture/order.json              the order in force, as the helper verified it
            drifted                 there while the drift verdict is an alarm
            <campaign>/N.raw        kept by the runner, plain
                      /N.sealed     encrypted by the helper; the plain file is gone then
                      /kept.json    how many samples and bytes were kept so far, also those that were sent

Folders have mode 0700 and files 0600. Everything here is forgotten at the campaign's end.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge_agent.core.capture import Kept
from edge_contract import canonical, durable
from edge_contract.capture import CaptureOrder
from edge_contract.errors import ContractError

__all__ = ["Ring", "drift_mark", "forget_all", "read_order", "write_order"]

_ORDER: Final = "order.json"


def _folder(data: Path) -> Path:
    return data / "capture"


def read_order(data: Path) -> CaptureOrder | None:
    """Return the order in force, None without one or with one that cannot be read."""
    try:
        return CaptureOrder.from_bytes((_folder(data) / _ORDER).read_bytes())
    except (OSError, ContractError):
        return None


def write_order(data: Path, order: CaptureOrder) -> None:
    """Put an order into force; what other campaigns left is forgotten."""
    folder = _folder(data)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for other in folder.iterdir():
        if other.is_dir() and other.name != order.campaign:
            shutil.rmtree(other)
    durable.write(folder / _ORDER, order.to_bytes(), mode=durable.PRIVATE)


def forget_all(data: Path) -> int:
    """End the capture: the order first, then every sample; return how many samples were left."""
    folder = _folder(data)
    left = sum(1 for pattern in ("*/*.raw", "*/*.sealed") for _ in folder.glob(pattern))
    (folder / _ORDER).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    return left


def drift_mark(data: Path, *, is_drifted: bool) -> None:
    """Tell the runner whether the device's drift verdict is an alarm; costs nothing while nothing is captured."""
    mark = _folder(data) / "drifted"
    if not is_drifted:
        mark.unlink(missing_ok=True)
    elif mark.parent.is_dir():
        mark.touch(mode=0o600)


class Ring:
    """The samples of one campaign on this device.

    Args:
        data: The device's data folder.
        campaign: The campaign's id.
    """

    def __init__(self, data: Path, campaign: str) -> None:
        self.folder = _folder(data) / campaign

    def kept(self) -> Kept:
        """Return what was kept so far, by the counter or, where that is torn, by the files that are there."""
        try:
            document = canonical.loads((self.folder / "kept.json").read_bytes())
            return Kept(int(document["samples"]), int(document["size"]))
        except (OSError, ContractError, KeyError, TypeError, ValueError):
            sizes = [path.stat().st_size for path in self.files()]
            numbers = [int(path.stem) for path in self.files()]
            return Kept(max(numbers, default=0), sum(sizes))

    def keep(self, content: bytes, kept: Kept) -> Kept:
        """Write one sample and the counter; return the counter. A power cut may cost samples, never a bound.

        The counter goes first: a sample that was counted and not written is one fewer, never one too many.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        after = kept.plus(len(content))
        counted = canonical.dumps({"samples": after.samples, "size": after.size})
        _write(self.folder / "kept.json", counted)
        _write(self.folder / f"{after.samples}.raw", content)
        return after

    def files(self, suffix: str = "") -> Iterator[Path]:
        """The samples that lie here, oldest first."""
        found = [p for p in self.folder.glob(f"*{suffix or '.*'}") if p.stem.isdigit()]
        return iter(sorted(found, key=lambda path: int(path.stem)))


def _write(path: Path, data: bytes) -> None:
    """Replace a file without an fsync: samples are not worth the wear of a card."""
    temporary = path.with_name(f".{path.name}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    temporary.replace(path)
