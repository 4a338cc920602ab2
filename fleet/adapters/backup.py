# SPDX-License-Identifier: Apache-2.0
"""Backup and restore of a fleet server: one file with everything that cannot be made again.

Inside is a tar under zstd: first the database as of one moment, then keys, settings, files of bundles, captures, and at
the end ``backup.json`` with the digest of each. The database is copied first, and files of bundles are only ever
added, so what it names is there. A server may go on meanwhile. What can be made again stays out: patches between
versions, the broker's generated settings, locks.

A backup holds the CA's key and the job key: it is written with mode 0600, and whoever has it can speak for the fleet.
Restoring goes into a new folder, under another name until every digest has been checked.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

import zstandard

from edge_contract import durable
from edge_contract.errors import StoreError, UsageError
from fleet.adapters import pg_dump
from fleet.adapters.migrations import migrations
from fleet.adapters.stores import files_turn, note_database, used_database
from fleet.config import load_config

__all__ = ["Backup", "create", "restore"]

_FORMAT: Final = 1
_INDEX: Final = "backup.json"
_DATABASE: Final = "fleet.db"
_DUMP: Final = "fleet.pgdump"
_KEPT: Final = ("ca", "tuf", "job", "blobs", "captures", "operator.token", "fleet.toml", "rules.toml")
_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class Backup:
    """What a backup file holds.

    Attributes:
        made_at: Seconds since 1970.
        strop: Version that wrote it.
        schema: Highest migration of the database.
        files: Path → (bytes, SHA-256).
        left_out: In words, what must be kept elsewhere.
    """

    made_at: float
    strop: str
    schema: int
    files: dict[str, tuple[int, str]]
    left_out: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files, unpacked."""
        return sum(size for size, _ in self.files.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "made_at": self.made_at,
            "strop": self.strop,
            "schema": self.schema,
            "files": {path: list(found) for path, found in self.files.items()},
            "left_out": list(self.left_out),
        }

    @classmethod
    def from_json(cls, document: Any, where: str) -> "Backup":
        """Return what ``to_json`` wrote; raises StoreError for another format."""
        try:
            if document["format"] != _FORMAT:
                raise StoreError(f"backup format {document['format']} is not ours ({_FORMAT})", where=where)
            files = {str(path): (int(size), str(digest)) for path, (size, digest) in document["files"].items()}
            left_out = tuple(map(str, document.get("left_out", ())))
            return cls(float(document["made_at"]), str(document["strop"]), int(document["schema"]), files, left_out)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{_INDEX} is malformed: {error}", where=where) from error


def create(data: Path, out: Path, *, now: float, database: str = "") -> Backup:
    """Write a backup of a data folder, also while its server runs.

    Args:
        data: The data folder.
        out: The file to write; it appears when it is whole.
        now: Seconds since 1970.
        database: ``postgresql://…`` where the server was given one that ``fleet.toml`` does not name.

    Raises:
        UsageError: No data folder, the file is there already, or the server's database is another one.
        StoreError: Something cannot be read or written.
    """
    if not (data / "ca" / "ca.crt").exists():
        raise UsageError("no fleet server's data folder", where=str(data), fix="give --data")
    if out.exists():
        raise UsageError("is there already", where=str(out), fix="give another name, or move it away")
    config = load_config(data, database=database or None)
    if (used := used_database(data)) and not config.database:
        what = f"the server's database is {used}, and none is given"
        raise UsageError(what, where="--database", fix="give it, or write it into fleet.toml")
    part = out.with_name(f".{out.name}.part")
    left_out = (f"files of bundles lie in {config.blobs}",) if config.blobs else ()
    try:
        with (
            files_turn(data, config.database, shared=True),  # no sweep deletes what the copied database names
            tempfile.TemporaryDirectory(prefix="strop-backup-", dir=out.parent) as scratch,
        ):
            copied = _copy_database(data, config.database, Path(scratch))
            with _private(part) as raw, _packing(raw) as archive:
                files = {copied.name: _add(archive, copied, copied.name)}
                files.update(
                    {name: _add(archive, path, name) for path, name in _kept(data, with_blobs=not config.blobs)}
                )
                backup = Backup(now, version("strop"), max(m.number for m in migrations()), files, left_out)
                _add_bytes(archive, json.dumps(backup.to_json()).encode(), _INDEX)
        part.rename(out)
        durable.sync_folder(out.parent)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"the backup failed: {error}", where=str(out)) from error
    finally:
        part.unlink(missing_ok=True)
    return backup


def restore(archive: Path, data: Path, *, database: str = "") -> Backup:
    """Unpack a backup into a new data folder, after checking every digest.

    Args:
        archive: What ``create`` wrote.
        data: The data folder to make; must not hold anything.
        database: An empty PostgreSQL database, where the backup is of one.

    Raises:
        UsageError: The folder is in use, or a database is missing.
        StoreError: The file is damaged, of a newer Strop, or names what it may not.
    """
    if data.exists() and any(data.iterdir()):
        raise UsageError("the folder is not empty", where=str(data), fix="restore into a new folder")
    data.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{data.name}.", dir=data.parent))
    try:
        backup = _unpack(archive, scratch)
        if _DUMP in backup.files:
            if not database:
                fix = "make an empty database and give it with --database postgresql://…"
                raise UsageError("the backup is of PostgreSQL", where="--database", fix=fix)
            pg_dump.load(scratch / _DUMP, database)
            (scratch / _DUMP).unlink()
            note_database(scratch, database)
        elif database:
            raise UsageError("the backup is of SQLite", where="--database", fix="leave it out")
        if data.exists():
            data.rmdir()
        for folder in {(scratch / name).parent for name in backup.files}:
            durable.sync_folder(folder)
        scratch.rename(data)
        durable.sync_folder(data.parent)
    except (OSError, tarfile.TarError, zstandard.ZstdError, EOFError) as error:
        raise StoreError(f"not a whole backup: {error}", where=str(archive)) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return backup


def _copy_database(data: Path, url: str, scratch: Path) -> Path:
    """Copy the database as of one moment."""
    if url:
        pg_dump.dump(url, scratch / _DUMP)
        return scratch / _DUMP
    copy = scratch / _DATABASE
    source = sqlite3.connect(f"file:{data / _DATABASE}?mode=ro", uri=True, timeout=30.0)
    with contextlib.closing(source), contextlib.closing(sqlite3.connect(copy)) as target:
        source.backup(target, pages=4096)
        target.execute("PRAGMA journal_mode = DELETE")
        broken = target.execute("PRAGMA quick_check").fetchone()[0]
    if broken != "ok":
        raise StoreError(f"the database is damaged: {broken}", where=str(data / _DATABASE))
    return copy


def _kept(data: Path, *, with_blobs: bool) -> Iterator[tuple[Path, str]]:
    for name in _KEPT:
        path = data / name
        if path.is_file():
            yield path, name
        elif path.is_dir() and (with_blobs or name != "blobs"):
            for file in sorted(path.rglob("*")):
                if file.is_file() and not file.is_symlink() and not file.name.endswith(".part"):
                    yield file, file.relative_to(data).as_posix()


@contextlib.contextmanager
def _private(path: Path) -> Iterator[IO[bytes]]:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _packing(raw: IO[bytes]) -> Iterator[tarfile.TarFile]:
    with (
        zstandard.ZstdCompressor(level=6).stream_writer(raw, closefd=False) as packed,
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):
        yield archive


class _Counted:
    """A file that is read once, and how much and what it was."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


def _add(archive: tarfile.TarFile, path: Path, name: str) -> tuple[int, str]:
    member = tarfile.TarInfo(name)
    with path.open("rb") as file:
        member.size, member.mode = os.fstat(file.fileno()).st_size, 0o600
        counted = _Counted(file)
        archive.addfile(member, counted)
    return member.size, counted.digest.hexdigest()


def _add_bytes(archive: tarfile.TarFile, data: bytes, name: str) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o600
    archive.addfile(member, io.BytesIO(data))


def _unpack(archive: Path, folder: Path) -> Backup:
    """Write every member below the folder and compare it with the index, which comes last."""
    found: dict[str, tuple[int, str]] = {}
    index = b""
    with (
        archive.open("rb") as raw,
        zstandard.ZstdDecompressor().stream_reader(raw) as packed,
        tarfile.open(fileobj=packed, mode="r|") as members,
    ):
        for member in members:
            file = members.extractfile(member) if member.isreg() else None
            if file is None or not _is_safe(member.name):
                raise StoreError(f"holds {member.name[:80]!r}, which no backup has", where=str(archive))
            if member.name == _INDEX:
                index = file.read(64 * _CHUNK)
            else:
                found[member.name] = _write(file, folder / member.name)
    if not index:
        raise StoreError(f"ends before {_INDEX}: it was cut off", where=str(archive))
    backup = Backup.from_json(json.loads(index), str(archive))
    if backup.schema > max(m.number for m in migrations()):
        raise StoreError(f"is of Strop {backup.strop}, which is newer", where=str(archive), fix="update Strop first")
    for name, expected in backup.files.items():
        if found.get(name) != expected:
            raise StoreError(f"'{name}' is damaged or missing", where=str(archive), fix="take another backup")
    if extra := sorted(set(found) - set(backup.files)):
        raise StoreError(f"holds {extra[0][:80]!r}, which its index does not name", where=str(archive))
    return backup


def _is_safe(name: str) -> bool:
    path = PurePosixPath(name)
    first = path.parts[0] if path.parts else ""
    return not path.is_absolute() and ".." not in path.parts and first in (*_KEPT, _DATABASE, _DUMP, _INDEX)


def _write(file: IO[bytes], path: Path) -> tuple[int, str]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    digest, size = hashlib.sha256(), 0
    with _private(path) as target:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += target.write(chunk)
    return size, digest.hexdigest()
