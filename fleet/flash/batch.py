# SPDX-License-Identifier: Apache-2.0
"""Many cards from one base image: each starts from the untouched base, so that nothing of one board is on another's.

A batch leaves ``NAME.img`` for every device, or writes one card after the other from a working copy; ``batch.json``
says what is done: the same command goes on where it was interrupted.
"""

import datetime as dt
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_contract import durable
from edge_contract.errors import ImageError, UsageError
from fleet.flash.image import customise
from fleet.flash.roster import Row
from fleet.flash.settings import Site

__all__ = ["Journal", "Maker", "copy_sparse", "made_from"]

_PIECE: Final = 4 << 20


def copy_sparse(source: Path, out: Path) -> None:
    """Copy an image without its holes: sharing blocks where the file system can, else what holds data.

    Raises:
        ImageError: The disk is full.
    """
    try:
        with source.open("rb") as old, out.open("wb") as new:
            size = old.seek(0, os.SEEK_END)
            new.truncate(size)
            for start, end in _data(old.fileno(), size):
                at = start
                while at < end:
                    done = os.copy_file_range(old.fileno(), new.fileno(), min(_PIECE, end - at), at, at)
                    if not done:
                        raise ImageError("became shorter while it was copied", where=str(source))
                    at += done
    except OSError as error:
        out.unlink(missing_ok=True)
        raise ImageError(f"cannot be copied to {out}: {error.strerror}", where=str(source)) from error


def _data(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Give the parts of a file that are no holes."""
    at = 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            raise
        at = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, at


@dataclass(frozen=True)
class Maker:
    """Makes the image of one device.

    Attributes:
        base: An unpacked base image; never changed.
        site: What all cards have in common.
        facts: What is known of the base, for the manifest of each card.
        when: The time that files get.
    """

    base: Path
    site: Site
    facts: Mapping[str, Any]
    when: dt.datetime

    def make(self, row: Row, out: Path) -> Mapping[str, Any]:
        """Write a device's image; a half-made one never has the name ``out``.

        Raises:
            UsageError, EnrolmentError: The device's name or token.
            ImageError: The base cannot be customised, or the disk is full.
        """
        partial = out.with_name(f"{out.name}.partial")
        copy_sparse(self.base, partial)
        try:
            with _token_file(row.token) as token:
                manifest = customise(partial, self.site.for_device(row.name, token, self.facts), when=self.when)
        except BaseException:
            partial.unlink(missing_ok=True)  # it may hold a token
            raise
        partial.replace(out)
        return {"name": row.name, "format": str(manifest.format), "instance": manifest.instance}


@contextmanager
def _token_file(token: str) -> Iterator[Path | None]:
    """Give a token as a file that only this user reads, for as long as it is needed."""
    if not token:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="strop-") as folder:
        path = Path(folder) / "token"
        durable.write(path, token.encode(), mode=durable.PRIVATE)
        yield path


class Journal:
    """``batch.json``: what is done, by device; with a digest of what it was made from.

    Args:
        path: Of the file.
        made_from: Base image, settings and rows; another digest begins anew.
    """

    def __init__(self, path: Path, made_from: str) -> None:
        self._path = path
        self.done: dict[str, dict[str, Any]] = {}
        if not path.exists():
            self._made_from = made_from
            return
        try:
            document = json.loads(path.read_text("utf-8"))
            self._made_from, self.done = str(document["made_from"]), dict(document["done"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UsageError("is no record of a batch", where=str(path), fix="move it away") from error
        if self._made_from != made_from:
            fix = "choose another --out, or repeat the command that began it"
            raise UsageError("is of another list, base image or settings", where=str(path), fix=fix)

    def add(self, name: str, what: Mapping[str, Any]) -> None:
        """Keep that a device is done."""
        self.done[name] = dict(what)
        document = {"schema": "strop.flash-batch/1", "made_from": self._made_from, "done": self.done}
        durable.write(self._path, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())


def made_from(base: Mapping[str, Any], settings: Path | None, names: Iterable[str]) -> str:
    """Return a digest of what a batch is made from. Tokens are not in it: a new one may replace one that ended."""
    parts = [json.dumps(dict(base), sort_keys=True).encode(), settings.read_bytes() if settings else b""]
    return hashlib.sha256(b"\0".join([*parts, *(name.encode() for name in names)])).hexdigest()
