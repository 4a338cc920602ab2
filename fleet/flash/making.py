# SPDX-License-Identifier: Apache-2.0
"""A published image becomes one board's image file. It appears under its name only when it is whole."""

import datetime as dt
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_contract import durable
from edge_contract.errors import UsageError
from fleet.flash.base import Checks, Heard, Unpacked, unpack
from fleet.flash.image import customise
from fleet.flash.manifest import Manifest
from fleet.flash.settings import Site
from fleet.flash.streams import Source

__all__ = ["MadeImage", "base_facts", "check_out", "make_image"]


@dataclass(frozen=True)
class MadeImage:
    """What was made: where, of which base, with which files."""

    out: Path
    unpacked: Unpacked
    manifest: Manifest

    def to_json(self) -> dict[str, Any]:
        """Return it for machines; nothing secret."""
        found = self.manifest
        return {
            "out": str(self.out),
            "size": self.unpacked.size,
            "format": found.format,
            "instance": found.instance,
            "board": dict(found.board),
            "base": dict(found.base),
            "files": len(found.files),
        }

    def to_text(self) -> str:
        """Return it for people."""
        verified = ", ".join(self.unpacked.verified) or "nothing: give --sha256 or --signature"
        count = f"{len(self.manifest.files)} files by {self.manifest.format}"
        lines = [
            f"unpacked   {self.unpacked.size} bytes, {self.unpacked.reused} of them were there",
            f"verified   {verified}",
            f"injected   {count}, read back and compared",
            f"made       {self.out} for '{self.manifest.board['hostname']}'",
            f"next       strop flash verify {self.out}",
        ]
        return "\n".join(lines)


def base_facts(source: Source, unpacked: Unpacked) -> dict[str, Any]:
    """Return what a manifest tells of its base image."""
    return {
        "name": source.path.name,
        "published_sha256": unpacked.packed_sha256,
        "image_sha256": unpacked.sha256,
        "verified": list(unpacked.verified),
    }


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse a place where no new file may appear.

    Raises:
        UsageError: Something is there, or its folder is not.
    """
    if out.exists() and (not overwrite or not out.is_file()):
        fix = "add --overwrite" if out.is_file() else "name a file; 'strop flash card' writes to a card"
        raise UsageError("is there already", where=str(out), fix=fix)
    if not out.parent.is_dir():
        raise UsageError("no such folder", where=str(out.parent), fix="make it")


def make_image(
    base: Path,
    out: Path,
    site: Site,
    checks: Checks,
    *,
    when: dt.datetime,
    overwrite: bool = False,
    heard: Heard = lambda _read, _written: None,
) -> MadeImage:
    """Unpack, prove and customise an image.

    Args:
        base: The published image.
        out: The new file.
        site: What it is to become.
        checks: What the base must prove.
        when: The time that injected files get.
        overwrite: Whether ``out`` may be there already.
        heard: Hears of the progress.

    Raises:
        ImageError: A wrong image, or no room on its boot partition.
        SignatureError: Not signed by that key.
        UsageError: ``out`` is there, or is no file; or a file that cannot be used.
    """
    check_out(out, overwrite=overwrite)
    source = Source(base)
    site.for_device()  # what cannot be used is said before minutes of unpacking
    stage = out.with_name(f".{out.name}.unpacked")
    unpacked = unpack(source, stage, checks, heard)
    try:
        stage.chmod(0o600)  # it is to hold a token
        manifest = customise(stage, site.for_device(base=base_facts(source, unpacked)), when=when, name=base.name)
        with stage.open("rb") as file:
            os.fsync(file.fileno())
        stage.replace(out)
    finally:
        stage.unlink(missing_ok=True)
    durable.sync_folder(out.parent)
    return MadeImage(out, unpacked, manifest)
