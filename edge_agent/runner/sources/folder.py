# SPDX-License-Identifier: Apache-2.0
"""New files in a folder: pictures, or .npy files of one raw input each, oldest first."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from edge_agent.runner.array_bytes import MAGIC, from_npy
from edge_agent.runner.pictures import decode
from edge_agent.runner.sources.base import Pushed, Taken, read_spec
from edge_contract.errors import DataError, UsageError

__all__ = ["FolderSource", "open_spec"]

Array = NDArray[Any]
Mark = tuple[int, str]
_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".npy"})
_WAITING: Final = 4


class FolderSource(Pushed):
    """Watches a folder by looking, every ``poll_s``; it works on every file system, network ones included.

    A file counts as whole when it has not changed for ``settle_s``, by the wall clock or since it was first seen: so a
    clock that jumps back delays inputs by that long at most. What was taken is remembered while it lies there, and
    nothing is compared with a newest time: files that are written after such a jump are not older than that to us.
    Names that begin with a dot are left alone, so a writer that renames into place is never seen half. What cannot be
    read is skipped, and told in the place of an answer: the engine counts it as an error.

    Args:
        name: Of the source.
        path: The folder.
        wake: Makes the engine look.
        poll_s: Pause between two looks.
        settle_s: Age from which a file is whole.
        existing: Begin with what lies there already.
        delete: Remove a file after it was taken.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        wake: Callable[[], None],
        *,
        poll_s: float = 0.5,
        settle_s: float = 0.5,
        existing: bool = False,
        delete: bool = False,
    ) -> None:
        super().__init__(name, wake, room=_WAITING, keeps_newest=False)
        if not path.is_dir():
            raise DataError("no such folder", where=str(path), fix="make it, or correct the path")
        self._path, self._poll_s, self._settle_s, self._delete = path, poll_s, settle_s, delete
        self._taken: set[Mark] = set() if existing else set(self._files())
        self._seen: dict[Mark, float] = {}
        self._asleep = threading.Event()
        threading.Thread(target=self._feed, name=f"source {name}", daemon=True).start()

    def _files(self) -> Iterator[Mark]:
        """Yield (time of the last change in ns, name) of every file of a known kind."""
        for path in self._path.iterdir():
            if path.suffix.lower() in _SUFFIXES and not path.name.startswith("."):
                try:
                    yield path.stat().st_mtime_ns, path.name
                except OSError:
                    continue  # gone between two looks

    def _feed(self) -> None:
        while not self.is_closed:
            for mark in self._fresh():
                self._taken.add(mark)
                if not self._give(self._path / mark[1]):
                    return
            self._asleep.wait(self._poll_s)

    def _fresh(self) -> list[Mark]:
        """Return the whole files that were not taken yet, oldest first."""
        try:
            here = set(self._files())
        except OSError:
            return []  # unmounted: it may come back
        self._taken &= here
        now, written = time.monotonic(), time.time_ns() - int(self._settle_s * 1e9)
        self._seen = {mark: self._seen.get(mark, now) for mark in here - self._taken}
        is_old = now - self._settle_s
        return sorted(mark for mark, since in self._seen.items() if mark[0] <= written or since <= is_old)

    def _give(self, path: Path) -> bool:
        try:
            data = path.read_bytes()
            raw: Any = from_npy(data) if data.startswith(MAGIC) else decode(data, where=path.name)
        except OSError:
            return True  # deleted meanwhile
        except DataError as error:
            raw = str(error)  # no array: refused by the input contract, with a reference that names the file
        if self._delete:
            path.unlink(missing_ok=True)
        return self.push(Taken(f"{self.name}:{path.name}", raw))

    def close(self) -> None:
        super().close()
        self._asleep.set()


def open_spec(name: str, spec: dict[str, Any], now: float, wake: Callable[[], None]) -> FolderSource:
    """Open a folder; raises UsageError or DataError."""
    del now
    where = f"source '{name}'"
    f = read_spec(spec, where, "folder", ("path", "poll_s", "settle_s", "existing", "after"))
    poll_s, settle_s = f.number("poll_s", 0.5), f.number("settle_s", 0.5)
    if poll_s <= 0 or settle_s < 0:
        raise UsageError(f"a look every {poll_s:g} s after {settle_s:g} s", where=where, fix="use positive times")
    is_deleting = f.text("after", "keep", among=("keep", "delete")) == "delete"
    options = {"existing": f.flag("existing", False), "delete": is_deleting}
    return FolderSource(name, Path(f.text("path")), wake, poll_s=poll_s, settle_s=settle_s, **options)
