# SPDX-License-Identifier: Apache-2.0
"""Archives that a Linux kernel unpacks into its memory at start: the ``newc`` format.

Standard: "initramfs buffer format" of the kernel's documentation; cpio(5), "New ASCII Format".
"""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

__all__ = ["Entry", "archive", "tree"]

Entry = tuple[str, bytes, int]
"""Path without a leading slash, content (a link's target), and mode; permissions alone mean a file."""


def archive(entries: Iterable[Entry]) -> bytes:
    """Return an archive; folders above an entry are made by themselves. Archives may follow one another.

    Example:
        >>> data = archive([("a/b", b"hello", 0o644)])
        >>> data[:6], data[110:112], len(data) % 4, b"hello" in data
        (b'070701', b'a\\x00', 0, True)
    """
    parts, made = list[bytes](), set[str]()
    for path, content, mode in entries:
        for folder in reversed(PurePosixPath(path).parents[:-1]):
            if str(folder) not in made:
                made.add(str(folder))
                parts.append(_entry(str(folder), b"", stat.S_IFDIR | 0o755, len(made)))
        made.add(path)
        parts.append(_entry(path, content, mode if stat.S_IFMT(mode) else stat.S_IFREG | mode, len(made)))
    return b"".join([*parts, _entry("TRAILER!!!", b"", 0, 0)])


def _entry(path: str, content: bytes, mode: int, number: int) -> bytes:
    name = os.fsencode(path) + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def tree(root: Path, folder: str) -> Iterator[Entry]:
    """Yield all below a folder of an unpacked system, links as links."""
    top = root / folder
    if top.is_symlink():
        yield folder, os.fsencode(top.readlink()), stat.S_IFLNK | 0o777
        return
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            yield name, os.fsencode(path.readlink()), stat.S_IFLNK | 0o777
        elif path.is_file():
            yield name, path.read_bytes(), stat.S_IMODE(path.stat().st_mode)
