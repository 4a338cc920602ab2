# SPDX-License-Identifier: Apache-2.0
"""The words of enrolment: the one-time token, the request and the answer.

A token is one line of text that a person can copy: ``strop1.<id>.<secret>.<SHA-256 of the CA's DER>``. It
carries the digest of the server's CA, so that a device without any certificate knows whom to believe.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from edge_contract import canonical
from edge_contract.errors import ContractError, EnrolmentError, MessageError
from edge_contract.fields import Fields
from edge_contract.renewal import BoardIdentity
from edge_contract.topics import is_name

__all__ = ["SERVER_NAME", "EnrolmentAnswer", "EnrolmentRequest", "Token", "check_device_name", "parse_token"]

SERVER_NAME: Final = "strop-server"
"""Certificate name of the server itself at the broker, where it may do everything: no device may have it."""

TOKEN_PREFIX: Final = "strop1"  # noqa: S105 - the name of a format, not a secret
_HEX: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class Token:
    """A parsed token: its public id, its secret, and the SHA-256 of the CA certificate's DER, all in hex."""

    id: str
    secret: str
    ca_digest: str

    def __str__(self) -> str:
        return f"{TOKEN_PREFIX}.{self.id}.{self.secret}.{self.ca_digest}"

    def __repr__(self) -> str:  # a token in a traceback or a log must not give itself away
        return f"Token(id={self.id!r}, secret=…, ca_digest={self.ca_digest[:16]!r}…)"


def parse_token(text: str) -> Token:
    """Return the parts of a token's text; spaces around it are forgiven.

    Raises:
        EnrolmentError: Not a token of ours, or cut short in copying.

    Example:
        >>> token = parse_token("strop1.0a0b." + "c" * 40 + "." + "d" * 64)
        >>> token.id, len(token.ca_digest)
        ('0a0b', 64)
        >>> parse_token("strop1.0a0b.cc")
        Traceback (most recent call last):
        edge_contract.errors.EnrolmentError: this is not an enrolment token; copy the whole line that 'strop fleet enrol new' printed
    """  # noqa: E501 - the error is one line
    parts = text.strip().split(".")
    well_formed = len(parts) == 4 and parts[0] == TOKEN_PREFIX and all(p and set(p) <= _HEX for p in parts[1:])
    if not well_formed or len(parts[2]) < 32 or len(parts[3]) != 64:
        fix = "copy the whole line that 'strop fleet enrol new' printed"
        raise EnrolmentError("this is not an enrolment token", fix=fix)
    return Token(parts[1], parts[2], parts[3])


def check_device_name(device: str) -> None:
    """Refuse a device name that no certificate may carry.

    Raises:
        EnrolmentError: Not a topic name, or the server's own name.
    """
    if not is_name(device):
        fix = "use letters, digits, '.', '_' and '-', at most 63"
        raise EnrolmentError(f"{device[:80]!r} is not a device name", fix=fix)
    if device == SERVER_NAME:
        raise EnrolmentError(f"the name '{device}' is the server's own", fix="choose another device name")


def _object(data: bytes, where: str) -> Fields:
    try:
        return Fields(canonical.loads(data, where=where), where, MessageError)
    except MessageError:
        raise
    except ContractError as error:
        raise MessageError(error.what, where=where) from error


@dataclass(frozen=True)
class EnrolmentRequest:
    """What a device sends: its token's text, the name it wants, a certificate signing request in PEM, its board."""

    token: str
    device: str
    csr: str
    board: BoardIdentity = field(default_factory=BoardIdentity)

    def to_json(self) -> dict[str, Any]:
        return {"token": self.token, "device": self.device, "csr": self.csr, "board": self.board.to_json()}

    @classmethod
    def from_bytes(cls, data: bytes) -> "EnrolmentRequest":
        f = _object(data, "enrolment request")
        board = BoardIdentity.from_json(f.object("board", {}), "enrolment request.board")
        return cls(f.text("token"), f.text("device"), f.text("csr"), board)


@dataclass(frozen=True)
class EnrolmentAnswer:
    """What the server answers.

    Attributes:
        certificate: The device's certificate, PEM.
        ca: The CA's certificate, PEM; the device compares it with the one that its token names.
        job_public_key: Raw ed25519 public keys that may sign jobs, in hex, separated by spaces.
        tuf_root: The trusted ``root.json`` as text.
        tenant: First level of the device's topics.
        broker: ``{"host": …, "port": …}``.
        device_url: ``https://…`` of TUF metadata and blobs.
    """

    certificate: str
    ca: str
    job_public_key: str
    tuf_root: str
    tenant: str
    broker: dict[str, Any]
    device_url: str

    def to_json(self) -> dict[str, Any]:
        return {
            "certificate": self.certificate,
            "ca": self.ca,
            "job_public_key": self.job_public_key,
            "tuf_root": self.tuf_root,
            "tenant": self.tenant,
            "broker": self.broker,
            "device_url": self.device_url,
        }

    @classmethod
    def from_bytes(cls, data: bytes) -> "EnrolmentAnswer":
        f = _object(data, "enrolment answer")
        broker = Fields(f.object("broker"), "enrolment answer.broker", MessageError)
        return cls(
            f.text("certificate"),
            f.text("ca"),
            f.text("job_public_key"),
            f.text("tuf_root"),
            f.text("tenant"),
            {"host": broker.text("host"), "port": broker.integer("port", minimum=1)},
            f.text("device_url"),
        )
