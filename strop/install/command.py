# SPDX-License-Identifier: Apache-2.0
"""Install the agent on a running board: look at it, choose its wheelhouse, send what is missing, begin its first boot.

The same files and the same program as on a card. A run that was cut off goes on where it was: files that are there with
their digests are not sent again, and steps that are done are not done again.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from edge_contract.errors import UsageError
from fleet.flash import payload, script
from fleet.flash.wheelhouse import Wheelhouse, read
from fleet.flash.wheelhouse_make import Order, make
from strop.install.remote import Board, Remote

__all__ = ["FOLDER", "Wish", "install", "printed", "token_file"]

FOLDER: Final = "strop-install"
ROOM: Final = 3.0
"""Free bytes that are wanted, over those that are sent: they unpack to three times as much."""


@dataclass(frozen=True)
class Wish:
    """What a person wants.

    Attributes:
        settings: As for a card; its wheelhouse is filled in when the board is known.
        runtime: Which wheelhouse is made if none is given.
        wheelhouse: One that is there; None: it is made, and kept in ``cache``.
        cache: Where made ones are kept.
        root: Set up a system that begins there, for tests and image builders.
    """

    settings: payload.Settings
    runtime: str = "litert"
    wheelhouse: Path | None = None
    cache: Path = field(default_factory=lambda: Path.home() / ".cache" / "strop")
    root: str = "/"


def install(remote: Remote, wish: Wish, tell: Callable[[str], None]) -> int:
    """Install, telling what is done; return the exit code of the first boot there.

    Raises:
        StropError: The board cannot be reached, has no room, or no wheelhouse fits it.
    """
    tell(f"{remote.target}: looking at the board")
    board = remote.probe()
    rights = "root" if board.is_root else "sudo" if board.has_sudo else "neither root nor sudo"
    tell(f"{remote.target}: Python {board.python} on {board.machine}, {board.free // 1_000_000} MB free, {rights}")
    if not board.is_root and not board.has_sudo and wish.root == "/":
        raise UsageError("neither root nor sudo there", where=remote.target, fix="log in as root, or install sudo")
    house = _wheelhouse(wish, board, tell)
    made = payload.build(replace(wish.settings, wheelhouse=house.folder))
    _check_room(made, board, remote)
    folder = f"{board.home}/{FOLDER}"
    _bring(remote, folder, made.files, tell)
    program = [*_rights(board, wish), "python3", "-I", f"{folder}/strop/{payload.PROGRAM}", "begin", "--watch"]
    where = ["--boot", folder, *([] if wish.root == "/" else ["--root", wish.root])]
    code = remote.follow([*program, *where])
    if code == 0:  # what was sent is installed
        remote.run(["rm", "-rf", folder])
    return code


def printed(settings: payload.Settings, wheelhouse: Path | None, archive: Path | None, url: str) -> str:
    """Write the archive for a web address, and return the script that fetches and checks it.

    Raises:
        UsageError: Wheelhouse, archive or address are missing, or cannot be used.
    """
    if wheelhouse is None or archive is None or not url:
        raise UsageError("--print-script needs --wheelhouse, --archive and --url")
    house = read(wheelhouse)
    data = script.archive(payload.build(replace(settings, wheelhouse=wheelhouse)))
    archive.write_bytes(data)
    return script.script(data, url, house.python, house.machine)


def _rights(board: Board, wish: Wish) -> list[str]:
    """Return what becomes root without a question; in a prefix nobody has to."""
    return [] if board.is_root or wish.root != "/" else ["sudo", "-n"]


def _wheelhouse(wish: Wish, board: Board, tell: Callable[[str], None]) -> Wheelhouse:
    if wish.wheelhouse is not None:
        house = read(wish.wheelhouse)
        house.check_fits(board.python, board.machine)
        return house
    out = wish.cache / f"wheelhouse-{board.python}-{board.machine}-{wish.runtime}"
    if not out.is_dir():
        tell(f"making a wheelhouse: {out}")
        wish.cache.mkdir(parents=True, exist_ok=True)
        return make(Order(board.python, board.machine, wish.runtime, out), tell)
    return read(out)


def _check_room(made: payload.Payload, board: Board, remote: Remote) -> None:
    size = sum(len(data) if isinstance(data, bytes) else data.stat().st_size for data in made.files.values())
    if board.free < size * (1 + ROOM):
        what = f"{board.free // 1_000_000} MB free, {int(size * (1 + ROOM)) // 1_000_000} are needed"
        raise UsageError(what, where=remote.target, fix="free some space there")


def _bring(remote: Remote, folder: str, files: Mapping[str, bytes | Path], tell: Callable[[str], None]) -> None:
    wanted = {name: _digest(data) for name, data in files.items()}
    there = remote.digests(folder, wanted)
    missing = {name: files[name] for name, digest in wanted.items() if there.get(name) != digest}
    tell(f"{remote.target}: {len(files) - len(missing)} of {len(files)} files are there")
    if missing:
        size = sum(len(data) if isinstance(data, bytes) else data.stat().st_size for data in missing.values())
        tell(f"{remote.target}: sending {len(missing)} files, {size / 1e6:.1f} MB")
        remote.send(folder, missing)
        there = remote.digests(folder, wanted)
    wrong = [name for name, digest in wanted.items() if there.get(name) != digest]
    if wrong:
        raise UsageError(f"{wrong[0]} did not arrive whole", where=remote.target, fix="run it again")


def _digest(data: bytes | Path) -> str:
    return hashlib.sha256(data if isinstance(data, bytes) else data.read_bytes()).hexdigest()


def token_file(path: Path | None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the file of the token; one from ``STROP_TOKEN`` becomes a private file that ends with this process."""
    if path is not None or "STROP_TOKEN" not in environ:
        return path
    with tempfile.NamedTemporaryFile("w", prefix="strop-token-", delete=False) as file:  # mode 0600
        file.write(environ["STROP_TOKEN"].strip() + "\n")
    return Path(file.name)
