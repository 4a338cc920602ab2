# SPDX-License-Identifier: Apache-2.0
"""Files on a FAT16 or FAT32 volume inside an image: found, read, added and replaced, without mounting anything.

A change is planned in memory first: clusters, directory entries, new directories. What does not fit is refused then,
with the number of bytes that are missing, and nothing has been written (``fat_change``). Files get the time that the
caller names, so the same input gives the same image.

Example:
    >>> import io
    >>> from fleet.flash.region import Region
    >>> FatVolume(Region(io.BytesIO(bytes(1024)), 0, 1024, "partition 1"))
    Traceback (most recent call last):
    edge_contract.errors.ImageError: partition 1: no FAT file system; name an image whose boot partition is FAT
"""

import datetime as dt
from collections.abc import Mapping

from edge_contract.errors import ImageError
from fleet.flash.fat_change import Change, Source, check_paths
from fleet.flash.fat_check import Fault, examine
from fleet.flash.fat_reader import FatReader

__all__ = ["FatVolume"]


class FatVolume(FatReader):
    """A FAT16 or FAT32 file system in a region, to be read and changed; see ``FatReader`` for what it can read."""

    def check(self) -> tuple[Fault, ...]:
        """Return what is wrong with the file system, grave faults first; nothing is changed."""
        return examine(self)

    def write(self, files: Mapping[str, Source], when: dt.datetime) -> None:
        """Add or replace files, all or none; missing directories are made.

        Args:
            files: Bytes, or a file of this machine, by the path on the volume.
            when: The time that the files get.

        Raises:
            UsageError: A name that a FAT volume cannot hold, or the same one twice.
            ImageError: They do not fit, a directory is in the way, or the file system is damaged. Nothing was written.
        """
        check_paths(files)
        self._must_be_sound()
        try:
            change = self._planned(files, when)
        except BaseException:
            self.forget()
            raise
        change.commit()

    def _planned(self, files: Mapping[str, Source], when: dt.datetime) -> Change:
        change = Change(self, when)
        change.plan(files, reclaim=False)
        if change.missing_bytes and change.released:
            self.forget()
            change = Change(self, when)
            change.plan(files, reclaim=True)
        if change.missing_bytes:
            self.forget()
            missing = f"{change.missing_bytes} more bytes are needed, {self.free_bytes()} are free"
            fix = "nothing was written; leave something out, or use an image with a larger boot partition"
            raise ImageError(f"the boot partition is full: {missing}", where=self.region.name, fix=fix)
        return change

    def remove(self, path: str, when: dt.datetime) -> None:
        """Delete a file.

        Raises:
            ImageError: There is no such file, or the file system is damaged.
        """
        self._must_be_sound()
        entry, (*parents, _) = self.file(path), tuple(part for part in path.split("/") if part)
        change = Change(self, when)
        if entry.cluster:
            change.released.append(self.table.chain(entry.cluster, self.where(path)))
        self.directory(tuple(parents)).drop(entry)
        change.commit()

    def _must_be_sound(self) -> None:
        faults = [fault for fault in self.check() if fault.is_grave]
        if faults:
            fix = "nothing was written; fetch the image again, or repair it with fsck.vfat"
            raise ImageError(f"its file system is damaged: {faults[0].words}", where=self.region.name, fix=fix)
