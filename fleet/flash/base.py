# SPDX-License-Identifier: Apache-2.0
"""A base image, unpacked and proved: into a new file, sparse, in one pass, with bounded memory.

The file is written beside its name and gets it only when every digest and signature was right. A run that was
interrupted leaves that part; the next one reads it and writes only what differs, so it goes as fast as unpacking.
"""

import contextlib
import errno
import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from edge_contract import durable
from edge_contract.errors import ImageError, SignatureError, UsageError
from fleet.flash.signatures import digest_in, verify_signature
from fleet.flash.streams import PIECE, Source

__all__ = ["Checks", "Unpacked", "prove", "unpack"]

_HOLE: Final = 1 << 16
_ZEROS: Final = bytes(_HOLE)
_EMPTY: Final = bytes(PIECE)
_AHEAD: Final = 4  # pieces between unpacking and writing: 4 MiB
Heard = Callable[[int, int], None]


@dataclass(frozen=True)
class Checks:
    """What an image must prove.

    Attributes:
        sha256: Digest of the published file, or of the image inside; empty: not asked.
        sha256_file: File of ``sha256sum`` with the digest of the published file.
        signature: Detached signature of the published file, or of ``sha256_file``.
        key: Public key of who signed.
    """

    sha256: str = ""
    sha256_file: Path | None = None
    signature: Path | None = None
    key: Path | None = None

    def wanted(self, name: str) -> str:
        """Return the digest that was asked for, in small letters; empty if none was.

        Raises:
            UsageError: It is none, two differ, or a signature without a key.
        """
        if bool(self.signature) != bool(self.key):
            raise UsageError("a signature needs a key, and a key a signature", fix="give --signature and --key")
        given = self.sha256.lower()
        if given and (len(given) != 64 or set(given) - set("0123456789abcdef")):
            raise UsageError(f"'{given[:70]}' is no SHA-256", fix="write 64 hexadecimal digits")
        if self.sha256_file is None:
            return given
        try:
            text = self.sha256_file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot be read: {error}", where=str(self.sha256_file)) from error
        found = digest_in(text, name, str(self.sha256_file))
        if given and given != found:
            raise UsageError("another digest than --sha256", where=str(self.sha256_file))
        return found

    def signed(self, image: Path) -> Path:
        """Return what the signature is of: the image if it is called after it, else the digest file if there is one."""
        if self.sha256_file is None:
            return image
        name = self.signature.name if self.signature else ""
        is_image = name.startswith(f"{image.name}.") and not name.startswith(f"{self.sha256_file.name}.")
        return image if is_image else self.sha256_file


@dataclass(frozen=True)
class Unpacked:
    """What was unpacked.

    Attributes:
        size: Bytes of the image.
        sha256, packed_sha256: Of the image, and of the published file.
        verified: What was proved, in words; empty if nothing was asked.
        means: What unpacked it.
        reused: Bytes that an earlier, interrupted run had written already.
    """

    size: int
    sha256: str
    packed_sha256: str
    verified: tuple[str, ...]
    means: str
    reused: int = 0


@dataclass
class _Writer:
    """Writes pieces at their place; holes for zeros, and nothing where the file has the bytes already."""

    file: BinaryIO
    old: int
    at: int = 0
    reused: int = 0
    sha: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def write(self, piece: bytes) -> None:
        self.sha.update(piece)
        had = b""
        if self.at < self.old:
            self.file.seek(self.at)
            had = self.file.read(len(piece))
        if had == piece:
            self.reused += len(piece)
        else:
            self._write(piece, had)
        self.at += len(piece)

    def _write(self, piece: bytes, had: bytes) -> None:
        """Write runs of blocks that are no zeros; where there was something, zeros are written, too."""
        if not had and piece == _EMPTY:
            return
        view, start = memoryview(piece), 0
        for place in range(0, len(piece) + _HOLE, _HOLE):
            block = piece[place : place + _HOLE]
            if block and (had or block != _ZEROS[: len(block)]):
                continue
            if place > start:
                self.file.seek(self.at + start)
                self.file.write(view[start : min(place, len(piece))])
            start = place + _HOLE


def _ahead(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield pieces that a thread fetches ahead, so that unpacking and writing overlap."""
    line: queue.Queue[bytes | BaseException | None] = queue.Queue(_AHEAD)
    stop = threading.Event()

    def fetch() -> None:
        try:
            for piece in pieces:
                line.put(piece)
                if stop.is_set():
                    return
            line.put(None)
        except BaseException as error:
            line.put(error)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    try:
        while (got := line.get()) is not None:
            if isinstance(got, BaseException):
                raise got
            yield got
    finally:
        stop.set()
        while thread.is_alive():
            with contextlib.suppress(queue.Empty):
                line.get(timeout=0.05)


def prove(source: Source, checks: Checks, image_sha256: str) -> tuple[str, ...]:
    """Return what was proved of an image that has been read to its end.

    Raises:
        ImageError: The digest is another one.
        SignatureError: The signature is not of this key and file.
    """
    verified: list[str] = []
    wanted = checks.wanted(source.path.name)
    if wanted:
        if wanted not in {source.sha256, image_sha256}:
            what = f"its SHA-256 is {source.sha256[:16]}…, {wanted[:16]}… was asked for"
            raise ImageError(what, where=source.path.name, fix="fetch image and digest again")
        of = "the published file" if wanted == source.sha256 else "the image inside"
        verified.append(f"SHA-256 of {of}")
    if checks.signature is not None and checks.key is not None:
        signed = checks.signed(source.path)
        by = verify_signature(signed, checks.signature, checks.key)
        verified.append(f"signature of {signed.name} by {by}")
    return tuple(verified)


def _early(source: Source, checks: Checks) -> None:
    """Check a signature before anything is written, where it needs no second reading."""
    checks.wanted(source.path.name)
    signed = checks.signed(source.path)
    if checks.signature is not None and checks.key is not None and signed != source.path:
        verify_signature(signed, checks.signature, checks.key)


def _mark_of(source: Source) -> str:
    status = source.path.stat()
    return f"{source.path.resolve()} {status.st_size} {status.st_mtime_ns}\n"


def _begin(part: Path, mark: Path, source: Source) -> int:
    """Return how many bytes of an interrupted run of the same image are there; an older part is thrown away."""
    wanted = _mark_of(source)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if part.exists() and mark.read_text("utf-8") == wanted:
            return part.stat().st_size
    part.unlink(missing_ok=True)
    mark.write_text(wanted, "utf-8")
    part.touch()
    return 0


def _pour(source: Source, file: BinaryIO, old: int, heard: Heard) -> _Writer:
    writer = _Writer(file, old)
    read = [0]

    def count(done: int) -> None:
        read[0] = done

    for piece in _ahead(source.pieces(count)):
        writer.write(piece)
        heard(read[0], writer.at)
    file.truncate(writer.at)
    file.flush()
    os.fsync(file.fileno())
    return writer


def unpack(source: Source, out: Path, checks: Checks, heard: Heard = lambda _read, _written: None) -> Unpacked:
    """Unpack a base image into a new file and prove it.

    Args:
        source: The published image.
        out: The new file; its folder exists. It appears only when everything was proved.
        checks: What must be right.
        heard: Called with the published bytes read and the image's bytes written.

    Raises:
        ImageError: Cut short, damaged, another digest, or the disk is full.
        SignatureError: The signature is not of this key and file.
        UsageError: The file cannot be written, or the checks contradict each other.
    """
    _early(source, checks)
    part, mark = out.with_name(f".{out.name}.part"), out.with_name(f".{out.name}.part.of")
    try:
        old = _begin(part, mark, source)
        with part.open("r+b") as file:
            writer = _pour(source, file, old, heard)
        sha256 = writer.sha.hexdigest()
        verified = prove(source, checks, sha256)
        part.replace(out)
        mark.unlink(missing_ok=True)
        durable.sync_folder(out.parent)
    except (ImageError, SignatureError):
        part.unlink(missing_ok=True)
        mark.unlink(missing_ok=True)
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ImageError("the disk is full", where=str(out), fix="make room, and call again: it goes on") from error
        raise UsageError(f"cannot be written: {error.strerror}", where=str(out)) from error
    return Unpacked(writer.at, sha256, source.sha256, verified, source.means, writer.reused)
