# SPDX-License-Identifier: Apache-2.0
"""What a disk may hold after the power fails: a model of the promises that file systems make, and no more.

Theory of operation (T. S. Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014). The recorded
operations are replayed on inodes. An operation is *pending* until an fsync covers it:

- bytes and truncations of a file until the file is fsynced. At a crash any subset of them is on the disk, each whole
  or cut short; what is missing before what is there reads as zeros.
- names (create, mkdir, symlink, rename, unlink, rmdir) until their folder is fsynced. At a crash those of one folder
  are there up to some one and none after it; folders know nothing of each other, nor of the files' bytes.

This allows more than ext4 with data=ordered, whose one journal keeps the order of names over all folders and writes a
file's bytes before its size: a program that survives here survives there.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tests.edge_agent.crash.shim import Op

Tree = dict[str, tuple[str, bytes | str]]
"""Path → ("file", bytes), ("link", target) or ("folder", ""); a folder stands before what is in it."""
Change = tuple[int, bytes | None]
"""(offset, bytes), or (size, None) for a truncation."""


@dataclass(eq=False)
class File:
    """A file's bytes as of its last fsync, and what came after."""

    synced: bytes = b""
    pending: list[Change] = field(default_factory=list)
    now: bytes = b""

    def change(self, change: Change) -> None:
        self.pending.append(change)
        self.now = applied(self.now, [change])

    def sync(self) -> None:
        self.synced, self.pending = self.now, []


@dataclass(eq=False)
class Folder:
    """A folder's names as of its last fsync, and the states that they went through since, newest last."""

    synced: dict[str, "Node"] = field(default_factory=dict)
    pending: list[dict[str, "Node"]] = field(default_factory=list)

    @property
    def now(self) -> dict[str, "Node"]:
        return self.pending[-1] if self.pending else self.synced

    def change(self, **names: "Node | None") -> None:
        """Make one step: names that are given or, with None, taken away."""
        self.pending.append({k: v for k, v in {**self.now, **names}.items() if v is not None})

    def sync(self) -> None:
        self.synced, self.pending = self.now, []


Node = File | Folder | str
"""A text is a symbolic link."""
Names = Callable[[Folder], dict[str, Node]]
Bytes = Callable[[File], bytes]


def applied(data: bytes, changes: Sequence[Change]) -> bytes:
    """Return a file's bytes after changes.

    Example:
        >>> applied(b"abc", [(5, b"x"), (1, b"?")]), applied(b"abc", [(1, None)])
        (b'a?c\\x00\\x00x', b'a')
    """
    found = bytearray(data)
    for offset, new in changes:
        size = offset if new is None else offset + len(new)
        if len(found) < size:
            found += bytes(size - len(found))
        if new is None:
            del found[offset:]
        else:
            found[offset:size] = new
    return bytes(found)


class Disk:
    """The disk while it is being written to. It begins with what stands in a folder, all of it synced."""

    def __init__(self, folder: Path) -> None:
        self.root = _load(folder)

    def _folder(self, path: str) -> tuple[Folder, str]:
        """Return the folder of a path, and the last name."""
        at: Node = self.root
        *folders, name = PurePosixPath(path).parts
        for part in folders:
            assert isinstance(at, Folder)
            at = at.now[part]
        assert isinstance(at, Folder)
        return at, name

    def do(self, op: Op) -> None:
        """Take one operation in."""
        if op.path == ".":
            assert op.kind == "fsync"
            self.root.sync()
            return
        folder, name = self._folder(op.path)
        if op.kind in ("create", "mkdir", "symlink"):
            made: dict[str, Node] = {"create": File(), "mkdir": Folder(), "symlink": op.other}
            folder.change(**{name: made[op.kind]})
        elif op.kind in ("unlink", "rmdir"):
            folder.change(**{name: None})
        elif op.kind == "rename":
            other, new = self._folder(op.other)
            assert other is folder, "a rename between two folders: the model has no rule for it"
            folder.change(**{name: None, new: folder.now[name]})
        else:
            self._bytes(op, folder.now[name])

    def _bytes(self, op: Op, node: Node) -> None:
        assert not isinstance(node, str)
        if op.kind == "fsync":
            node.sync()
            return
        assert isinstance(node, File)
        node.change((op.offset, op.data if op.kind == "write" else None))

    def tree(self, names: Names, data: Bytes) -> Tree:
        """Return one state of the disk: for each folder and file, what is there of it."""
        return dict(_walk(self.root, "", names, data))

    def crashes(self, rng: random.Random, draws: int) -> Iterator[Tree]:
        """Yield states that a power cut at this moment may leave: four plain ones and ``draws`` drawn ones."""
        plain_names: list[Names] = [lambda folder: folder.now, lambda folder: folder.synced]
        plain_bytes: list[Bytes] = [lambda file: file.now, lambda file: file.synced]
        for names in plain_names:
            for data in plain_bytes:
                yield self.tree(names, data)
        for _ in range(draws):
            yield self.tree(lambda folder: _some_names(folder, rng), lambda file: _some_bytes(file, rng))


def _some_names(folder: Folder, rng: random.Random) -> dict[str, Node]:
    if not folder.pending:
        return folder.synced
    return rng.choice([folder.synced, *folder.pending])


def _some_bytes(file: File, rng: random.Random) -> bytes:
    """Draw a subset of the pending changes, in their order or not; the last may be cut short."""
    if not file.pending:
        return file.synced
    kept = [change for change in file.pending if rng.random() < 0.6]
    if kept and rng.random() < 0.3:
        offset, new = kept[-1]
        kept[-1] = (offset, new and new[: rng.randrange(len(new))])
    return applied(file.synced, kept)


def _walk(folder: Folder, prefix: str, names: Names, data: Bytes) -> Iterator[tuple[str, tuple[str, bytes | str]]]:
    for name, node in names(folder).items():
        path = f"{prefix}{name}"
        if isinstance(node, File):
            yield path, ("file", data(node))
        elif isinstance(node, str):
            yield path, ("link", node)
        else:
            yield path, ("folder", "")
            yield from _walk(node, f"{path}/", names, data)


def _load(folder: Path) -> Folder:
    found: dict[str, Node] = {}
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            found[path.name] = str(path.readlink())
        elif path.is_dir():
            found[path.name] = _load(path)
        else:
            found[path.name] = File(path.read_bytes(), now=path.read_bytes())
    return Folder(found)


def write(tree: Tree, root: Path) -> None:
    """Make a state of the disk real; the folder exists and is empty."""
    for path, (kind, content) in tree.items():
        target = root / path
        if kind == "folder":
            target.mkdir()
        elif isinstance(content, bytes):
            target.write_bytes(content)
        else:
            target.symlink_to(content)
