# SPDX-License-Identifier: Apache-2.0
"""Which certificates a device has, which of them may renew, and whether two machines live on one identity. Pure.

A clone shows itself in three ways, and each is told with its evidence:

- *two live starts*: the agent draws a random boot id at each start, so an id that comes back after another one had
  taken over belongs to a second machine. Twice, because packets of a start that was killed may arrive late.
- *another board*: the SoC's serial or the machine id is not that of the enrolment.
- *a superseded key renews*: each renewal makes a new key, so of two copies the second to renew shows an old one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from edge_contract.errors import ContractError, EnrolmentError
from edge_contract.fields import Fields
from edge_contract.renewal import BoardIdentity

__all__ = ["Certificate", "DeviceIdentity", "check_renewal", "hear_board", "hear_boot", "suspect"]

_REMEMBERED_BOOTS: Final = 8
_RETURNS: Final = 2
_MAX_EVIDENCE: Final = 8


@dataclass(frozen=True)
class Certificate:
    """One certificate that the server has issued; times in seconds since 1970, 0 = never.

    Attributes:
        serial: Its number in hex.
        key_digest: SHA-256 of its public key.
        seen_at: When the device first used it.
        revoked_at, reason: When and why it was denied.
    """

    serial: str
    device: str
    key_digest: str
    issued_at: float
    not_after: float
    seen_at: float = 0.0
    revoked_at: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class DeviceIdentity:
    """What the server has noticed of one device's identity.

    Attributes:
        board: Of the enrolment or, where that told none, of the first one who said.
        boots: Start ids that were heard, newest last.
        returns: How often a start came back after another one had taken over.
        suspected_at: When it was first taken for cloned; 0 = never.
        evidence: Why, in words, newest last.
    """

    board: BoardIdentity = field(default_factory=BoardIdentity)
    boots: tuple[str, ...] = ()
    returns: int = 0
    suspected_at: float = 0.0
    evidence: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "board": self.board.to_json(),
            "boots": list(self.boots),
            "returns": self.returns,
            "suspected_at": self.suspected_at,
            "evidence": list(self.evidence),
        }

    @classmethod
    def from_json(cls, document: Any) -> "DeviceIdentity":
        f = Fields(document, "device identity", ContractError)
        board = BoardIdentity.from_json(f.object("board", {}))
        counted = f.integer("returns", 0, minimum=0)
        return cls(board, f.texts("boots", ()), counted, f.number("suspected_at", 0.0), f.texts("evidence", ()))


def suspect(identity: DeviceIdentity, why: str, now: float) -> DeviceIdentity:
    """Return the identity under suspicion; the same reason again changes nothing."""
    if why in identity.evidence:
        return identity
    evidence = (*identity.evidence, why)[-_MAX_EVIDENCE:]
    return replace(identity, suspected_at=identity.suspected_at or now, evidence=evidence)


def hear_boot(identity: DeviceIdentity, boot: str, now: float) -> DeviceIdentity:
    """Return the identity after a live message of a start.

    Example:
        >>> heard = DeviceIdentity()
        >>> for boot in ["a", "a", "b", "c"]:  # restarts
        ...     heard = hear_boot(heard, boot, 1.0)
        >>> heard.suspected_at
        0.0
        >>> for boot in ["b", "c", "b"]:  # two machines
        ...     heard = hear_boot(heard, boot, 2.0)
        >>> heard.evidence
        ('two machines speak: starts b and c take turns',)
    """
    last = identity.boots[-1] if identity.boots else ""
    if boot == last:
        return identity
    came_back = boot in identity.boots
    boots = (*(b for b in identity.boots if b != boot), boot)[-_REMEMBERED_BOOTS:]
    # A start that is really new begins the count anew: the late packets of years do not add up to a suspicion.
    after = replace(identity, boots=boots, returns=identity.returns + 1 if came_back else 0)
    if after.returns < _RETURNS or not came_back or identity.returns >= _RETURNS:
        return after
    pair = " and ".join(sorted((boot[:16], last[:16])))
    return suspect(after, f"two machines speak: starts {pair} take turns", now)


def hear_board(identity: DeviceIdentity, board: BoardIdentity, now: float) -> DeviceIdentity:
    """Return the identity after a board told who it is; the first one that tells anything is the owner."""
    if board == BoardIdentity() or board == identity.board:
        return identity
    if identity.board.is_same_board(board):
        known = BoardIdentity(identity.board.soc or board.soc, board.machine or identity.board.machine)
        return replace(identity, board=known)
    what = "SoC serial" if identity.board.soc and board.soc else "machine id"
    return suspect(identity, f"another board uses this identity: its {what} is not the enrolled one", now)


def check_renewal(held: Iterable[Certificate], presented: Certificate) -> None:
    """Refuse a renewal by a certificate that may not: revoked, or superseded by a newer one that was used.

    Args:
        held: Every certificate that the server has issued to the device.
        presented: The one that the device shows.

    Raises:
        EnrolmentError: Why.
    """
    where, fix = f"certificate of '{presented.device}'", "enrol the device again with a new token"
    held = list(held)
    mine = next((one for one in held if one.serial == presented.serial), None)
    if mine is not None and mine.revoked_at:
        raise EnrolmentError(f"was revoked: {mine.reason}", where=where, fix=fix)
    issued = mine.issued_at if mine else 0.0  # older than this list: any that is in it is newer
    newer = [one for one in held if one.seen_at and one.issued_at > issued and one.key_digest != presented.key_digest]
    if newer:
        raise EnrolmentError("was superseded: a newer one of this device is in use", where=where, fix=fix)
