# SPDX-License-Identifier: Apache-2.0
"""The words of certificate renewal, and of the board that an identity is bound to.

A renewal goes to the listener that asks for no client certificate, because an expired one must still be able to ask.
The proof is a signature by the *present* key over the request for the next one: who replays it gets a certificate
for a key that only the device has.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from edge_contract import canonical
from edge_contract.errors import ContractError, MessageError
from edge_contract.fields import Fields

__all__ = ["BoardIdentity", "RenewalAnswer", "RenewalRequest", "proof_bytes"]

_PREFIX: Final = b"strop renewal 1\n"


@dataclass(frozen=True)
class BoardIdentity:
    """Digests of the SoC's serial number and of the system's machine id; empty where the board tells none.

    Digests, because nobody needs the numbers themselves, only whether they are the same.
    """

    soc: str = ""
    machine: str = ""

    @classmethod
    def of(cls, soc_serial: str, machine_id: str) -> "BoardIdentity":
        """Return the digests of two texts.

        Example:
            >>> BoardIdentity.of("", "0a1b").soc, len(BoardIdentity.of("", "0a1b").machine)
            ('', 32)
        """
        return cls(_digest("soc", soc_serial), _digest("machine", machine_id))

    def is_same_board(self, other: "BoardIdentity") -> bool:
        """True unless both sides tell what shows another board.

        The SoC's serial decides where both know it: a card that was installed anew keeps its board. Else the machine
        id decides where both know it. A board that tells neither is never called another one.

        Example:
            >>> one = BoardIdentity.of("10000000a", "m")
            >>> one.is_same_board(BoardIdentity.of("10000000b", "m")), one.is_same_board(BoardIdentity.of("", "m"))
            (False, True)
        """
        if self.soc and other.soc:
            return self.soc == other.soc
        return not (self.machine and other.machine) or self.machine == other.machine

    def to_json(self) -> dict[str, Any]:
        return {"soc": self.soc, "machine": self.machine}

    @classmethod
    def from_json(cls, document: Any, where: str = "board identity") -> "BoardIdentity":
        f = Fields(document, where, MessageError)
        return cls(f.text("soc", "")[:64], f.text("machine", "")[:64])


def _digest(kind: str, text: str) -> str:
    return hashlib.sha256(f"strop {kind} {text}".encode()).hexdigest()[:32] if text else ""


def proof_bytes(csr_pem: str) -> bytes:
    """Return what the present key signs (ECDSA with SHA-256): a prefix of our own, and the request for the next key."""
    return _PREFIX + csr_pem.encode()


@dataclass(frozen=True)
class RenewalRequest:
    """What a device sends: its present certificate, a request for the next key, the proof (hex), its board."""

    certificate: str
    csr: str
    proof: str
    board: BoardIdentity

    def to_json(self) -> dict[str, Any]:
        return {
            "certificate": self.certificate,
            "csr": self.csr,
            "proof": self.proof,
            "board": self.board.to_json(),
        }

    @classmethod
    def from_bytes(cls, data: bytes) -> "RenewalRequest":
        f = _object(data, "renewal request")
        board = BoardIdentity.from_json(f.object("board", {}))
        return cls(f.text("certificate"), f.text("csr"), f.text("proof"), board)


@dataclass(frozen=True)
class RenewalAnswer:
    """What the server answers: the next certificate in PEM, and the job keys that count now."""

    certificate: str
    job_public_key: str

    def to_json(self) -> dict[str, Any]:
        return {"certificate": self.certificate, "job_public_key": self.job_public_key}

    @classmethod
    def from_bytes(cls, data: bytes) -> "RenewalAnswer":
        f = _object(data, "renewal answer")
        return cls(f.text("certificate"), f.text("job_public_key"))


def _object(data: bytes, where: str) -> Fields:
    try:
        return Fields(canonical.loads(data, where=where), where, MessageError)
    except MessageError:
        raise
    except ContractError as error:
        raise MessageError(error.what, where=where) from error
