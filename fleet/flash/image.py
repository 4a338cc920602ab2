# SPDX-License-Identifier: Apache-2.0
"""One image, or one card, becomes one board's: look at it, write its files, read them back.

``customise`` works on whatever can be opened for reading and writing: an unpacked image, or a card that has been
written. Nothing is written before everything is known to fit; afterwards every file is read back and compared.
"""

import datetime as dt
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from edge_contract.errors import ImageError, UsageError
from fleet.flash import ext4_write
from fleet.flash.customisation import Customisation
from fleet.flash.ext4 import Ext4
from fleet.flash.fat32 import FatVolume
from fleet.flash.formats import Detected, Format, detect
from fleet.flash.manifest import MANIFEST, TOKEN, Manifest, digest_of, made_manifest
from fleet.flash.partitions import Partition, PartitionTable, boot_of, read_table, root_of
from fleet.flash.payload import Payload
from fleet.flash.region import Region
from fleet.flash.render import CMDLINE, ON_ROOT, TRACES, render
from fleet.flash.system import System, look_inside

_OPTION: Final = {"python": "python", "machine": "arch"}

__all__ = ["Card", "Made", "board_facts", "customise", "new_instance", "open_card"]


@dataclass(frozen=True)
class Made:
    """What one card is to become.

    Attributes:
        customisation: The board.
        payload: What the agent's first boot needs.
        format: Named by a person; None: found out.
        on_root: Whether the payload goes into the root file system, by ``debugfs``.
        base: What is known of the base image, for the manifest.
    """

    customisation: Customisation
    payload: Payload = field(default_factory=Payload)
    format: Format | None = None
    on_root: bool = False
    base: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Card:
    """An opened image or card.

    Attributes:
        table: Its partitions.
        partition, boot: The boot partition, and the files on it.
        system: What its root file system says; None if it cannot be read.
        root, ext4: The root partition, and the files on it; None if there is none that can be read.
        name: What an error calls it.
    """

    table: PartitionTable
    partition: Partition
    boot: FatVolume
    system: System | None
    root: Partition | None
    ext4: Ext4 | None
    name: str

    def pieces(self, path: str) -> Iterator[bytes]:
        """Yield a file's bytes by its path in a manifest."""
        if path.startswith("/") and self.ext4 is not None:
            return self.ext4.pieces(path)
        return self.boot.pieces(path)


def _look(file: BinaryIO, name: str) -> Card:
    table = read_table(file, name)
    partition, region = boot_of(table, file, name)
    root = root_of(table)
    ext4 = _ext4(file, root, name)
    system = look_inside(ext4) if ext4 is not None else None
    return Card(table, partition, FatVolume(region), system, root, ext4, name)


def _ext4(file: BinaryIO, root: Partition | None, name: str) -> Ext4 | None:
    if root is None:
        return None
    try:
        return Ext4(Region(file, root.start, root.length, f"{name} partition {root.number}"))
    except ImageError:
        return None


@contextmanager
def open_card(path: Path, *, writing: bool = False, name: str = "") -> Iterator[Card]:
    """Open an image or a card, and look at it; ``name`` is what errors call it, its own without.

    Raises:
        UsageError: It cannot be opened.
        ImageError: No image of a card, or one that is damaged or cut short.
    """
    try:
        file = path.open("r+b" if writing else "rb")
    except OSError as error:
        raise UsageError(f"cannot be opened: {error.strerror}", where=str(path)) from error
    with file:
        yield _look(file, name or path.name)


def new_instance() -> str:
    """Return an id that no other card has."""
    return f"strop-{uuid.uuid4()}"


def board_facts(wanted: Customisation) -> dict[str, Any]:
    """Return what may be told of a board: no hash, no key.

    Example:
        >>> board_facts(Customisation("cam-7"))["hostname"]
        'cam-7'
    """
    wifi = wanted.wifi
    return {
        "hostname": wanted.hostname,
        "user": wanted.user,
        "password": bool(wanted.password_hash),
        "ssh_keys": len(wanted.ssh_keys),
        "ssh_password": wanted.ssh_password,
        "wifi": wifi.ssid if wifi else "",
        "wifi_open": bool(wifi and not wifi.key),
        "country": wifi.country if wifi else "",
        "locale": wanted.locale,
        "timezone": wanted.timezone,
        "keyboard": wanted.keyboard,
    }


def _line(boot: FatVolume, found: Detected) -> bytes | None:
    if boot.find(CMDLINE) is not None:
        return boot.read(CMDLINE, most=1 << 16)
    if found.format in {Format.FIRSTRUN, Format.CUSTOM_TOML}:
        fix = "choose another format by --format"
        raise ImageError("no cmdline.txt, by which this format is started", where=boot.region.name, fix=fix)
    return None


def _strangers(boot: FatVolume, found: Detected) -> list[str]:
    """Return files of other formats that the image may read as well."""
    ours = TRACES[found.format]
    every = {name for names in TRACES.values() for name in names} - set(ours)
    if found.format in {Format.FIRSTRUN, Format.CUSTOM_TOML}:
        every -= {"firstrun.sh"}
    every -= {"user-data", "meta-data", "network-config"}  # templates of images whose cloud-init is gone
    return sorted(name for name in every if boot.find(name) is not None)


def customise(path: Path, made: Made, *, when: dt.datetime, instance: str = "", name: str = "") -> Manifest:
    """Write a board's files onto an unpacked image or a written card, and read every one back.

    Args:
        path: Image or block device, changed in place.
        made: What it is to become.
        when: The time that files get.
        instance: The card's own id; empty: a new one.
        name: What errors call it; empty: its own name.

    Raises:
        ImageError: A wrong image, an unknown first-boot format, no room; or a file that was not read back as written.
        UsageError: A name or a file that cannot be used.
    """
    with open_card(path, writing=True, name=name) as card:
        found = detect(card.boot, card.system, made.format)
        strangers = _strangers(card.boot, found)
        if strangers:
            fix = "begin with an image as its maker publishes it"
            raise ImageError(f"{', '.join(strangers)} of another customisation is there", where=card.name, fix=fix)
        _check_software(made.payload, card)
        instance = instance or new_instance()
        line = _line(card.boot, found)
        home = ON_ROOT if made.on_root else ""
        files = dict(render(found, made.customisation, made.payload, instance=instance, line=line, home=home))
        if made.on_root:
            files = {(f"{ON_ROOT}/{p}" if p.startswith("strop/") else p): data for p, data in files.items()}
        manifest = Manifest(
            format=found.format,
            mount=found.mount,
            instance=instance,
            made=when.isoformat(),
            board=board_facts(made.customisation),
            base=made.base,
            files=made_manifest(files),
        )
        _put_root(card, path, {p: data for p, data in files.items() if p.startswith("/")})
        on_boot = {p: data for p, data in files.items() if not p.startswith("/")}
        card.boot.write({**on_boot, MANIFEST: manifest.to_bytes()}, when)
        _read_back(card, manifest, files)
        return manifest


def _check_software(payload: Payload, card: Card) -> None:
    """Refuse a wheelhouse for another Python or processor than the image has, where the image says which."""
    plan = payload.files.get("strop/plan.json")
    if plan is None or card.system is None:
        return
    document = json.loads(_bytes(plan))
    for key, has in (("python", card.system.python), ("machine", card.system.machine)):
        wanted = str(document.get(key, ""))
        if has and wanted and has != wanted:
            what = f"the wheelhouse is for {key} {wanted}, the image has {has}"
            raise ImageError(what, where=card.name, fix=f"make one: strop flash wheelhouse --{_OPTION[key]} {has}")


def _put_root(card: Card, path: Path, files: Mapping[str, bytes | Path]) -> None:
    if not files:
        return
    if card.root is None or card.ext4 is None:
        raise ImageError("no ext4 root file system", where=card.name, fix="leave --ext4 out")
    ext4_write.put(path, card.root, card.ext4, files)
    file = card.boot.region.file
    file.seek(0)
    file.read(1)  # what was read ahead of the root before is not what is there now


def _read_back(card: Card, manifest: Manifest, files: Mapping[str, bytes | Path]) -> None:
    for path, wanted in manifest.files.items():
        seen = digest_of(card.pieces(path))
        source = files[path]
        good = seen == wanted if not path.endswith(TOKEN) else seen == digest_of(iter([_bytes(source)]))
        if not good:
            raise ImageError(f"'{path}' was not read back as it was written", where=card.name, fix="use another card")
    faults = card.boot.check()
    if faults:
        raise ImageError(f"its file system is damaged now: {faults[0].words}", where=card.name, fix="use another card")


def _bytes(source: bytes | Path) -> bytes:
    return source if isinstance(source, bytes) else source.read_bytes()
