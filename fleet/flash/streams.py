# SPDX-License-Identifier: Apache-2.0
"""An image as it is published, piece by piece: xz, zstd, gzip or bare. Memory does not grow with the image.

Where the programs are installed, they unpack in a process of their own and the bytes come through a pipe; else
Python's own decoders do. While it is read, the published file's SHA-256 is taken, so it is read once.
"""

import gzip
import hashlib
import lzma
import shutil
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, Final, Protocol

from edge_contract.errors import ImageError, UsageError

__all__ = ["PIECE", "Source"]

PIECE: Final = 1 << 20
_MEMORY: Final = 72 << 20
"""What a decoder may take: xz -9 asks for 65 MB; more is refused, with words, and never swapped."""
_KINDS: Final = ((b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zst"), (b"\x1f\x8b", "gz"))
_PROGRAMS: Final = {
    "xz": ("xz", "--decompress", "--stdout", "--threads=1", f"--memlimit-decompress={_MEMORY}"),
    "zst": ("zstd", "--decompress", "--stdout", "--quiet", f"--memory={_MEMORY}"),
    "gz": ("gzip", "--decompress", "--stdout"),
}


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Counted:
    """A file whose bytes are hashed and counted as they are read."""

    def __init__(self, file: BinaryIO, heard: Callable[[int], None]) -> None:
        self._file, self._heard = file, heard
        self.sha = hashlib.sha256()
        self.count = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self.sha.update(data)
        self.count += len(data)
        self._heard(self.count)
        return data


def _kind(head: bytes, path: Path) -> str:
    for magic, kind in _KINDS:
        if head.startswith(magic):
            return kind
    fix = "name the image as it is published: .img, .img.xz, .img.zst or .img.gz"
    if head[:4] == b"PK\x03\x04":
        raise ImageError("is a ZIP archive", where=path.name, fix="unpack it, and name the .img inside")
    if head.lstrip()[:1] == b"<":
        raise ImageError("is a web page, not an image", where=path.name, fix="fetch it again")
    if len(head) < 512:
        raise ImageError(f"has {len(head)} bytes", where=path.name, fix=fix)
    return "raw"


class Source:
    """A published image.

    Attributes:
        path: The file.
        kind: ``xz``, ``zst``, ``gz`` or ``raw``, by its first bytes.
        size: Its length as published.
        sha256: Of the published file; empty until every piece was read.
        means: What unpacks it: a program's name, ``python``, or ``copy``.

    Raises:
        UsageError: It cannot be read.
        ImageError: It is no image: a ZIP archive, a web page, a few bytes.
    """

    def __init__(self, path: Path, *, with_programs: bool = True) -> None:
        self.path, self.sha256 = path, ""
        try:
            with path.open("rb") as file:
                self.size = file.seek(0, 2)
                file.seek(0)
                self.kind = _kind(file.read(512), path)
        except OSError as error:
            raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error
        words = _PROGRAMS.get(self.kind)
        self._program = shutil.which(words[0]) if words and with_programs else None
        self.means = "copy" if self.kind == "raw" else (words[0] if words and self._program else "python")

    def pieces(self, heard: Callable[[int], None] = lambda _: None) -> Iterator[bytes]:
        """Yield the image in pieces of 1 MiB, the last one shorter.

        Args:
            heard: Called with the number of published bytes that were read.

        Raises:
            ImageError: It is cut short or damaged, or unpacking it needs too much memory.
        """
        with self.path.open("rb") as file:
            counted = _Counted(file, heard)
            if self.kind == "raw":
                yield from _full(counted)
            elif self._program:
                yield from self._by_program(counted)
            else:
                yield from self._by_python(counted)
            while counted.read(PIECE):  # what stands behind the end belongs to the digest
                pass
            self.sha256 = counted.sha.hexdigest()

    def _by_program(self, counted: _Counted) -> Iterator[bytes]:
        command = [str(self._program), *_PROGRAMS[self.kind][1:]]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            feeder = threading.Thread(target=_feed, args=(counted, process.stdin), daemon=True)
            feeder.start()
            try:
                yield from _full(process.stdout)
            except GeneratorExit:
                process.kill()
                raise
            finally:
                process.stdout.close()
                feeder.join()
            said = process.stderr.read().decode("utf-8", "replace").strip()
            if process.wait():
                raise self._bad(said)

    def _by_python(self, counted: _Counted) -> Iterator[bytes]:
        try:
            yield from _full(_python_reader(self.kind, counted))
        except (lzma.LZMAError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self._bad(str(error)) from error

    def _bad(self, said: str) -> ImageError:
        short = any(word in said.lower() for word in ("unexpected end", "premature", "before the end", "incomplete"))
        memory = "memory" in said.lower()
        if memory:
            what = f"unpacking it needs more than {_MEMORY >> 20} MB of memory"
            return ImageError(what, where=self.path.name, fix="pack it again with xz -9 or less, or unpack it first")
        words = "is cut short" if short else "is damaged"
        return ImageError(
            f"{words}: {said.splitlines()[-1] if said else 'no reason told'}",
            where=self.path.name,
            fix="fetch it again",
        )


def _feed(counted: _Counted, into: IO[bytes]) -> None:
    """Pour a file into a program; one that ends early says why itself."""
    try:
        with into:
            while data := counted.read(PIECE):
                into.write(data)
    except (BrokenPipeError, ValueError):
        pass


def _full(file: _Reader) -> Iterator[bytes]:
    """Yield pieces of full size; a pipe may give less at once."""
    held: list[bytes] = []
    size = 0
    while data := file.read(PIECE - size):
        held.append(data)
        size += len(data)
        if size == PIECE:
            yield held[0] if len(held) == 1 else b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


class _Xz:
    """Python's xz decoder as a file, with a limit of memory; streams may follow each other."""

    def __init__(self, counted: _Counted) -> None:
        self._file = counted
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)

    def read(self, size: int, /) -> bytes:
        while True:
            if self._decoder.eof:
                rest = self._decoder.unused_data.lstrip(b"\0") or self._file.read(PIECE).lstrip(b"\0")
                if not rest:
                    return b""
                self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
                data = self._decoder.decompress(rest, size)
            elif self._decoder.needs_input:
                more = self._file.read(PIECE)
                if not more:
                    raise EOFError("unexpected end of input")
                data = self._decoder.decompress(more, size)
            else:
                data = self._decoder.decompress(b"", size)
            if data:
                return data


def _python_reader(kind: str, counted: _Counted) -> _Reader:
    if kind == "xz":
        return _Xz(counted)
    if kind == "gz":
        return gzip.GzipFile(fileobj=counted)  # type: ignore[call-overload,no-any-return]
    return _Zstd(counted)


class _Zstd:
    """zstd as a file; an end inside a frame is an error, which the library's own reader does not say.

    It is fed with 1 KiB: four bytes may mean a block of 128 KB, so that is 32 MB at most.
    """

    def __init__(self, counted: _Counted) -> None:
        self._file, self._held, self._at = counted, b"", 0
        self._begin()
        self._is_inside = False

    def _begin(self) -> None:
        import zstandard

        self._decoder = zstandard.ZstdDecompressor(max_window_size=_MEMORY).decompressobj()

    def read(self, size: int, /) -> bytes:
        while self._at >= len(self._held):
            more = self._rest() or self._file.read(1024)
            if not more:
                if self._is_inside:
                    raise EOFError("unexpected end of input")
                return b""
            self._is_inside = True
            self._held, self._at = self._unpacked(more), 0
        part = self._held[self._at : self._at + size]
        self._at += len(part)
        return part

    def _unpacked(self, data: bytes) -> bytes:
        import zstandard

        try:
            return self._decoder.decompress(data)
        except zstandard.ZstdError as error:
            raise EOFError(str(error)) from error

    def _rest(self) -> bytes:
        """Return what stands behind a frame that has ended, and be ready for the next frame."""
        if not self._decoder.eof:
            return b""
        rest: bytes = self._decoder.unused_data
        self._is_inside = False
        self._begin()
        return rest
