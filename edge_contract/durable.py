# SPDX-License-Identifier: Apache-2.0
"""Write a file so that a power cut leaves the old bytes or the new ones, never a mixture.

The order is the whole secret: write a temporary file in the same folder, fsync it, rename it over the old
one, fsync the folder. Keys are created with their final mode, so they are never readable by others, not even
for an instant.
"""

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

__all__ = ["PRIVATE", "sweep", "sync_file_system", "sync_folder", "write"]

PRIVATE: Final = 0o600
"""Mode of a file that holds a key or a token."""


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a file's bytes, durably and at once.

    Args:
        path: The file; its folder exists.
        data: All its bytes.
        mode: Permission bits, the umask is not applied.

    Raises:
        OSError: The disk refuses; the old file is as it was.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(Path(folder, "a.key"), b"secret", mode=PRIVATE)
        ...     Path(folder, "a.key").read_bytes(), oct(Path(folder, "a.key").stat().st_mode)[-3:]
        (b'secret', '600')
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sweep(path: Path) -> None:
    """Delete what power cuts have left of unfinished writes of a file; only its one writer may do that, at its start.

    Args:
        path: The file that was written. What cannot be deleted now is deleted next time.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(Path(folder, "journal.json"), b"{}")
        ...     _ = Path(folder, ".journal.json.0badcafe.tmp").write_bytes(b"{")
        ...     sweep(Path(folder, "journal.json"))
        ...     [found.name for found in Path(folder).iterdir()]
        ['journal.json']
    """
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        with contextlib.suppress(OSError):
            left.unlink()


def sync_file_system(folder: Path) -> None:
    """Bring everything on a folder's file system to the disk: one call, where a folder has thousands of files.

    Standard: syncfs(2), which since Linux 5.8 also tells of bytes that could not be written.

    Raises:
        OSError: The disk refuses.
    """
    import ctypes  # a megabyte that the agent's control process does without

    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(handle) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(handle)
