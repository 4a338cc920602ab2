# SPDX-License-Identifier: Apache-2.0
"""Write an image to a card so that a half-written card never boots.

The order is that of Raspberry Pi Imager: the old partition table goes first, then comes everything behind the first
MiB, is flushed, read back from the card and compared; the first MiB, with the partition table, is written last and
compared too. Whatever ends the work between, the card has no partition table, and a board that is started with it does
nothing. Writing may be taken up again: what the card already holds is read and left alone.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from edge_contract.errors import ImageError
from fleet.flash.bmap import BlockMap, Range
from fleet.flash.medium import Medium

__all__ = ["CHUNK", "HEAD", "Progress", "Proof", "write"]

CHUNK: Final = 4 << 20
HEAD: Final = 1 << 20
"""Partitions begin behind it; MBR, GPT and its entries lie in it."""
_FLUSH_EVERY: Final = 64 << 20
"""So much is on its way to the card at most: else progress would show the cache's speed, and stand still at its end."""

Progress = Callable[[str, int, int], None]
"""(stage, bytes done, bytes of all) → told after every chunk."""


@dataclass(frozen=True)
class Proof:
    """What was written and read back.

    Attributes:
        image: Name of the image's file.
        size: Its bytes.
        mapped: Bytes that had to be written; less than ``size`` with a block map.
        written: Bytes that were; the rest were on the card already.
        sha256: Of the mapped bytes in order, as they came back from the card after the last write.
    """

    image: str
    size: int
    mapped: int
    written: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def write(
    image: Path, medium: Medium, blocks: BlockMap, *, is_resumed: bool = False, progress: Progress = lambda *_: None
) -> Proof:
    """Write the mapped bytes of an image, prove them by reading, and write the partition table last.

    Args:
        image: A raw image.
        medium: The card.
        blocks: Which bytes; ``bmap.whole`` for all.
        is_resumed: Read first, and write only what differs.
        progress: Told of ``writing`` and ``verifying``.

    Raises:
        ImageError: The image is not the one of the map, the card fails, or it keeps other bytes than it was given.
    """
    with image.open("rb") as file:
        size = file.seek(0, 2)
        if size != blocks.size:
            what = f"has {size:,} bytes, its block map is of {blocks.size:,}"
            raise ImageError(what, where=str(image), fix="take the map of this image")
        head = _read(file, 0, min(HEAD, size), image)
        medium.write(0, bytes(len(head)))
        medium.sync()
        run = _Run(file, medium, image, progress, blocks, is_resumed)
        run.write_body()
    medium.sync()
    medium.forget()
    run.verify(HEAD, size)
    medium.write(0, head)
    medium.sync()
    medium.forget()
    run.verify(0, HEAD)
    return Proof(image.name, size, blocks.mapped, run.written + len(head), run.digest.hexdigest())


@dataclass
class _Run:
    """One writing: what every chunk should be, and how far it is."""

    file: BinaryIO
    medium: Medium
    image: Path
    progress: Progress
    blocks: BlockMap
    is_resumed: bool
    written: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    chunks: list[tuple[int, int, bytes]] = field(default_factory=list)

    def write_body(self) -> None:
        """Write all chunks but the head's; remember what each of them is."""
        done = unflushed = 0
        for one in self.blocks.ranges:
            of_range = hashlib.sha256()
            for at, count in _chunks(one):
                data = _read(self.file, at, count, self.image)
                of_range.update(data)
                self.digest.update(data)
                self.chunks.append((at, count, hashlib.sha256(data).digest()))
                if at >= HEAD and not (self.is_resumed and self.medium.read(at, count) == data):
                    self.medium.write(at, data)
                    self.written, unflushed = self.written + count, unflushed + count
                done += count
                if unflushed >= _FLUSH_EVERY:
                    self.medium.sync()
                    unflushed = 0
                self.progress("writing", done, self.blocks.mapped)
            if one.sha256 and of_range.hexdigest() != one.sha256:
                what = f"bytes {one.start:,} to {one.end:,} are not those of the block map"
                raise ImageError(what, where=str(self.image), fix="the image is damaged or another one: fetch both")

    def verify(self, start: int, end: int) -> None:
        """Compare what the card holds between two places with what it was given."""
        for at, count, digest in self.chunks:
            if not start <= at < end:
                continue
            if hashlib.sha256(self.medium.read(at, count)).digest() != digest:
                what = f"the card holds other bytes than were written, at {at:,} or up to {count:,} behind"
                fix = "the card is worn out or forged in size: take another one"
                raise ImageError(what, where=str(self.image), fix=fix)
            self.progress("verifying", at + count, self.blocks.size)


def _chunks(one: Range) -> Iterator[tuple[int, int]]:
    """Give (start, length) of the pieces of a range; none reaches over the end of the head.

    Example:
        >>> list(_chunks(Range(0, HEAD + 5)))
        [(0, 1048576), (1048576, 5)]
    """
    at = one.start
    while at < one.end:
        end = min(one.end, at + CHUNK, HEAD if at < HEAD else one.end)
        yield at, end - at
        at = end


def _read(file: BinaryIO, at: int, count: int, image: Path) -> bytes:
    file.seek(at)
    data = file.read(count)
    if len(data) != count:
        raise ImageError("became shorter while it was read", where=str(image), fix="leave it alone meanwhile")
    return data
