# SPDX-License-Identifier: Apache-2.0
"""Bind the identity to its board, so that a copied SD card is not the same device twice. Standard library only.

``identity/binding.json`` holds digests of the SoC's serial number and of the machine id, as the enrolment (or the
first start of an older identity) found them. At each start they are compared by the rule of ``BoardIdentity``. On
another board the identity is put aside as ``identity.quarantined-N``, never deleted: inference goes on, and the board
needs a token of its own. Back on its own board, the folder may be renamed back. A board that tells neither number is
never called another one; there the server still notices two starts that take turns.
"""

import stat
from pathlib import Path
from typing import Final

from edge_agent.adapters.identity import read_json
from edge_contract import canonical, durable
from edge_contract.errors import MessageError
from edge_contract.renewal import BoardIdentity

__all__ = ["BINDING", "at_start", "bind", "bound_to", "read_board", "tighten"]

BINDING: Final = "binding.json"
_SERIALS: Final = ("proc/device-tree/serial-number", "sys/devices/soc0/serial_number", "sys/class/dmi/id/product_uuid")
_MACHINE_IDS: Final = ("etc/machine-id", "var/lib/dbus/machine-id")
_MEANINGLESS: Final = {"03000200-0400-0500-0006-000700080009", "uninitialized", "to be filled by o.e.m.", "none"}


def read_board(root: Path = Path("/")) -> BoardIdentity:
    """Return what this board tells of itself; ``root`` is another file system for tests.

    Example:
        >>> read_board(Path("/nonexistent"))
        BoardIdentity(soc='', machine='')
    """
    serial = next(filter(None, (_text(root / name) for name in _SERIALS)), "") or _cpuinfo(root)
    return BoardIdentity.of(serial, next(filter(None, (_text(root / name) for name in _MACHINE_IDS)), ""))


def _text(path: Path) -> str:
    try:
        text = path.read_text(errors="replace").strip("\0 \n\t").lower()
    except OSError:
        return ""
    return "" if text in _MEANINGLESS or not text.strip("0-f") else text


def _cpuinfo(root: Path) -> str:
    """Return the serial of older Raspberry Pi kernels, which tell it only here."""
    for line in _text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "serial" and value.strip().strip("0"):
            return value.strip()
    return ""


def bind(identity: Path, board: BoardIdentity) -> None:
    """Write down whose identity this is."""
    durable.write(identity / BINDING, canonical.dumps(board.to_json()))


def bound_to(identity: Path) -> BoardIdentity | None:
    """Return the board of an identity, None where none was written down."""
    document = read_json(identity / BINDING)
    try:
        return BoardIdentity.from_json(document) if document else None
    except MessageError:
        return None


def at_start(data: Path, board: BoardIdentity | None = None) -> list[tuple[str, str]]:
    """Check permissions and board of the identity; return what a person should read, as (level, line).

    Never raises: an agent without a usable identity still infers.
    """
    identity = data / "identity"
    if not identity.is_dir():
        return []
    here = board or read_board()
    try:
        said = tighten(identity)
        bound = bound_to(identity)
        if bound is None:
            bind(identity, here)
        elif not bound.is_same_board(here):
            aside = quarantine(identity)
            what = f"the identity belongs to another board and was put aside as {aside.name}"
            return [*said, ("error", f"{what}; enrol this board with a token of its own; inference goes on")]
        elif here != bound:
            bind(identity, BoardIdentity(here.soc or bound.soc, here.machine or bound.machine))
    except OSError as error:  # a read-only or failing disk must not keep the agent from its work
        return [("error", f"the identity cannot be checked: {error}")]
    return said


def quarantine(identity: Path) -> Path:
    """Put an identity aside under a name that is free, and return it."""
    number = 1
    while (aside := identity.with_name(f"{identity.name}.quarantined-{number}")).exists():
        number += 1
    identity.rename(aside)
    durable.sync_folder(identity.parent)
    return aside


def tighten(identity: Path) -> list[tuple[str, str]]:
    """Take away what others may do with keys (0600) and folder (0700); say what was open."""
    said = []
    folders = [identity, *(path for path in identity.rglob("*") if path.is_dir() and not path.is_symlink())]
    for path, allowed in [(one, 0o700) for one in folders] + [(one, 0o600) for one in identity.rglob("*.key")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & ~allowed:
            path.chmod(mode & allowed)
            what = f"{path.relative_to(identity.parent)} was open to others (mode {mode:o}) and is closed now"
            said.append(("warning", f"{what}; if somebody else uses this board, enrol it anew"))
    return said
