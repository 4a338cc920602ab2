# SPDX-License-Identifier: Apache-2.0
"""Which first-boot format an image reads. Files in another one are ignored without a word, so we look before we write.

| format | is recognised by | source |
|---|---|---|
| ``cloud-init`` | ``user-data`` or ``meta-data`` on the boot partition, or its label is ``cidata`` | NoCloud data source of cloud-init's documentation |
| ``cloudinit-rpi`` | the same, and ``issue.txt`` names Raspberry Pi | pi-gen, stage2/04-cloud-init; rpi-imager, doc/os_customisation_formats.md |
| ``firstrun`` | ``issue.txt`` names Raspberry Pi, no seed files, and its root has systemd and no rpi-preseed | rpi-imager, same page: ``systemd`` |
| ``custom.toml`` | only by ``--format``: such images read ``firstrun.sh``, too, which can do more | raspberrypi-sys-mods, usr/lib/raspberrypi-sys-mods/{firstboot,init_config} |
| ``rpi-preseed`` | the root file system has ``rpi-preseed.service``; the boot partition shows nothing of it | rpi-preseed, systemd/ and doc/rpi-preseed.5 |

Where marks of two formats are found, or of none, the image is refused; ``--format`` decides.
"""  # noqa: E501 - rows of a table

import enum
import re
from dataclasses import dataclass
from typing import Final

from edge_contract.errors import ImageError
from fleet.flash.fat_reader import FatReader
from fleet.flash.system import System

__all__ = ["Detected", "Format", "detect"]

_MAKER: Final = re.compile(r"Raspberry Pi reference (\d{4})-(\d\d)-(\d\d)")
_SEEDS: Final = ("user-data", "meta-data", "network-config")
_MOVED: Final = (2023, 10, 10)  # since Bookworm the boot partition is mounted at /boot/firmware
_UNMARKED: Final = (2025, 11, 1)  # images after this date may use rpi-preseed, which leaves no mark on it


class Format(enum.StrEnum):
    """Formats that Strop writes."""

    CLOUD_INIT = "cloud-init"
    CLOUD_INIT_RPI = "cloudinit-rpi"
    FIRSTRUN = "firstrun"
    CUSTOM_TOML = "custom.toml"
    RPI_PRESEED = "rpi-preseed"


@dataclass(frozen=True)
class Detected:
    """What an image reads at its first boot.

    Attributes:
        format: The format.
        mount: Where the board mounts its boot partition.
        evidence: What was found that says so.
        system: What its root file system says; None if it cannot be read.
    """

    format: Format
    mount: str
    evidence: tuple[str, ...]
    system: System | None = None


@dataclass(frozen=True)
class _Marks:
    """What was found on the boot partition and in the root file system."""

    seeds: tuple[str, ...]
    date: tuple[int, int, int] | None
    label: str
    system: System | None


def _marks(boot: FatReader, system: System | None) -> _Marks:
    seeds = tuple(name for name in _SEEDS if boot.find(name) is not None)
    issue = boot.read("issue.txt", most=1 << 16).decode("utf-8", "replace") if boot.find("issue.txt") else ""
    found = _MAKER.search(issue)
    date = (int(found[1]), int(found[2]), int(found[3])) if found else None
    return _Marks(seeds, date, boot.layout.label.lower(), system)


def _seeded(marks: _Marks) -> list[tuple[Format, str]]:
    if not set(marks.seeds) & {"user-data", "meta-data"} and marks.label != "cidata":
        return []
    seen = "its label is cidata" if marks.label == "cidata" else f"{' and '.join(marks.seeds)} on the boot partition"
    if marks.date:
        return [(Format.CLOUD_INIT_RPI, f"{seen}, and issue.txt names Raspberry Pi")]
    return [(Format.CLOUD_INIT, seen)]


def _candidates(marks: _Marks) -> list[tuple[Format, str]]:
    """Return every format of which there is a mark, with the words for it."""
    system = marks.system
    found = _seeded(marks)
    if system is not None and found and not system.has_cloud_init:
        found = []
    if system is not None and system.has_preseed:
        found.append((Format.RPI_PRESEED, "rpi-preseed.service in the root file system"))
    plain = marks.date is not None and not found
    if plain and (system.has_systemd if system is not None else marks.date is not None and marks.date < _UNMARKED):
        found.append((Format.FIRSTRUN, "issue.txt names Raspberry Pi, and there are no seed files of cloud-init"))
    return found


def _unknown(marks: _Marks, where: str) -> ImageError:
    looked = "user-data, meta-data, the label cidata, issue.txt of Raspberry Pi"
    inside = ", cloud-init, rpi-preseed and systemd in its root" if marks.system else "; its root cannot be read"
    seeds = f" ({', '.join(marks.seeds)} is there, but no cloud-init)" if marks.seeds else ""
    what = f"which first-boot format it reads is not known: looked for {looked}{inside}{seeds}"
    names = ", ".join(Format)
    return ImageError(what, where=where, fix=f"nothing was written; if you know it, name it by --format: {names}")


def _mount(marks: _Marks) -> str:
    if marks.system is not None and marks.system.mount:
        return marks.system.mount
    return "/boot" if marks.date is not None and marks.date < _MOVED else "/boot/firmware"


def detect(boot: FatReader, system: System | None = None, forced: Format | None = None) -> Detected:
    """Return which format an image reads.

    Args:
        boot: Its boot partition.
        system: What its root file system says, if it can be read.
        forced: What a person says; marks are not asked then.

    Raises:
        ImageError: No format or several; the message says what was looked for.
    """
    marks = _marks(boot, system)
    if forced is not None:
        return Detected(forced, _mount(marks), ("named by --format",), system)
    found = _candidates(marks)
    if not found:
        raise _unknown(marks, boot.region.name)
    if len(found) > 1:
        words = "; ".join(f"{name}: {why}" for name, why in found)
        raise ImageError(
            f"marks of several first-boot formats ({words})", where=boot.region.name, fix="choose one by --format"
        )
    (name, why) = found[0]
    return Detected(name, _mount(marks), (why,), system)
