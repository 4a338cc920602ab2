# SPDX-License-Identifier: Apache-2.0
"""What the control process can tell the runner: one JSON object a line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_contract import canonical
from edge_contract.errors import ContractError, MessageError
from edge_contract.fields import Fields

__all__ = ["MAX_LINE_BYTES", "Command", "Load", "Pause", "Resume", "Stop", "Unload", "UseSource", "parse"]

MAX_LINE_BYTES: Final = 64 * 1024
_HEX: Final = frozenset("0123456789abcdef")
ROLES: Final = ("active", "shadow")


@dataclass(frozen=True)
class Load:
    """Load a bundle folder into a role. A slot's folder is named by the bundle's id, which it then must hold."""

    role: str
    folder: Path

    @property
    def name(self) -> str:
        """What to call it when its manifest cannot be read."""
        return self.folder.name

    @property
    def expected(self) -> str:
        """The bundle's id by the folder's name, empty when it has another name."""
        return self.name if len(self.name) == 64 and not set(self.name) - _HEX else ""


@dataclass(frozen=True)
class Unload:
    """Let go of the shadow."""


@dataclass(frozen=True)
class UseSource:
    """Take inputs from a source; ``spec`` is its own affair."""

    name: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class Pause:
    """Stop to infer until ``Resume``."""


@dataclass(frozen=True)
class Resume:
    """Go on where the source stood."""


@dataclass(frozen=True)
class Stop:
    """Send what is left and end."""


Command = Load | Unload | UseSource | Pause | Resume | Stop

_NAMES: Final = ("load", "unload", "source", "pause", "resume", "stop")
_BARE: Final[dict[str, Command]] = {"pause": Pause(), "resume": Resume(), "stop": Stop()}


def parse(line: bytes) -> Command:
    """Return the command in a line.

    Raises:
        MessageError: Not one JSON object, an unknown command, or a field missing or of another type.

    Example:
        >>> parse(b'{"cmd":"load","role":"shadow","folder":"/models/ab"}').name
        'ab'
        >>> parse(b'{"cmd":"load"}')
        Traceback (most recent call last):
        edge_contract.errors.MessageError: command: field 'role' is missing
    """
    if len(line) > MAX_LINE_BYTES:
        raise MessageError(f"{len(line)} bytes, more than {MAX_LINE_BYTES}", where="command")
    try:
        document = canonical.loads(line, where="command")
    except ContractError as error:
        raise MessageError(error.what, where=error.where) from error
    fields = Fields(document, "command", MessageError)
    word = fields.text("cmd", among=_NAMES)
    if word == "load":
        return Load(fields.text("role", among=ROLES), Path(fields.text("folder")))
    if word == "unload":
        fields.text("role", "shadow", among=("shadow",))
        return Unload()
    if word == "source":
        return UseSource(fields.text("name"), fields.object("spec"))
    return _BARE[word]
