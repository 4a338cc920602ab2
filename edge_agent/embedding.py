# SPDX-License-Identifier: Apache-2.0
"""Where an application that embeds the agent and the control process meet: one folder, known by the model's name.

::

    <data>/run/<model>.socket      the control process listens; JSON lines, as to and from a runner process
    <data>/run/<model>.counters    the application writes, the control process reads
    <data>/run/<model>.lock        held by the one application that counts for this model

An application of another user needs write access to ``run`` and read access to ``models``, and no more.
"""

import os
import socket
from pathlib import Path
from typing import Final

__all__ = ["DATA_FOLDER", "counters_path", "lock_path", "meet", "run_folder", "socket_path"]

DATA_FOLDER: Final = Path("/var/lib/strop")


def run_folder(data: Path) -> Path:
    """Return the folder where both meet, made if it is missing and may be."""
    folder = data / "run"
    folder.mkdir(mode=0o770, exist_ok=True)
    return folder


def socket_path(data: Path, model: str) -> Path:
    """Return where the control process listens."""
    return data / "run" / f"{model}.socket"


def counters_path(data: Path, model: str) -> Path:
    """Return where the application counts.

    Example:
        >>> counters_path(DATA_FOLDER, "digits").as_posix()
        '/var/lib/strop/run/digits.counters'
    """
    return data / "run" / f"{model}.counters"


def lock_path(data: Path, model: str) -> Path:
    """Return what the application holds while it counts."""
    return data / "run" / f"{model}.lock"


def meet(path: Path, *, listening: bool) -> socket.socket:
    """Return a Unix socket that listens at a path, or that is connected to it.

    An address has room for 107 bytes and a data folder may lie deep, so its folder is named by an open descriptor.

    Raises:
        OSError: Nobody listens, or the folder cannot be used.
    """
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        address = f"/proc/self/fd/{folder}/{path.name}"
        if listening:
            path.unlink(missing_ok=True)
            found.bind(address)
            path.chmod(0o660)
            found.listen(4)
        else:
            found.connect(address)
    except OSError:
        found.close()
        raise
    finally:
        os.close(folder)
    return found
