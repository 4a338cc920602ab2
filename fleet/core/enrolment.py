# SPDX-License-Identifier: Apache-2.0
"""One-time enrolment tokens: made, checked and used up. Pure: randomness and time come in.

The server keeps only the SHA-256 of a token's secret: who reads its database cannot enrol a device. A secret
of 160 random bits needs no slow hash.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from edge_contract.enrolment import Token, parse_token
from edge_contract.errors import ContractError, EnrolmentError, UsageError
from edge_contract.fields import Fields
from edge_contract.topics import is_name
from fleet.core.groups import check_labels

__all__ = [
    "DEFAULT_TTL_S",
    "MAX_BATCH",
    "RANDOM_BYTES",
    "Token",
    "TokenRecord",
    "Wishes",
    "check_name",
    "check_token",
    "check_wishes",
    "name_in_batch",
    "new_token",
    "parse_token",
    "revoke_token",
    "state_of_token",
    "use_token",
]

RANDOM_BYTES: Final = 26
"""How much randomness a token needs: 6 bytes of id, 20 bytes of secret."""
DEFAULT_TTL_S: Final = 24 * 3600.0
MAX_TTL_S: Final = 10 * 366 * 86_400.0
MAX_BATCH: Final = 1000
_MAX_NAME: Final = 100
_PLACE: Final = re.compile(r"\{n(?::(\d))?\}")


@dataclass(frozen=True)
class Wishes:
    """What a token gives to the device that it enrols.

    Attributes:
        batch: Name of the batch that it belongs to, or "".
        name: The only name that it may enrol, with ``*`` and ``?`` as wildcards; "" for any.
        labels: Labels and tags that the device gets.
    """

    batch: str = ""
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TokenRecord:
    """What the server remembers of a token.

    Attributes:
        id: Public name, hex.
        secret_sha256: Digest of the secret's text.
        created_at, expires_at: Seconds since 1970.
        used_at: When it enrolled a device; 0 while unused.
        device: The device that it enrolled, or "".
        key_digest: SHA-256 of that device's public key, or "": the same key may ask again, because a device
            that lost power between asking and storing would otherwise be locked out.
        wishes: What the device gets, and what it may be called.
        revoked_at: When an operator took it back; 0 while it counts.
    """

    id: str
    secret_sha256: str
    created_at: float
    expires_at: float
    used_at: float = 0.0
    device: str = ""
    key_digest: str = ""
    wishes: Wishes = field(default_factory=Wishes)
    revoked_at: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "secret_sha256": self.secret_sha256,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "used_at": self.used_at,
            "device": self.device,
            "key_digest": self.key_digest,
            "batch": self.wishes.batch,
            "name": self.wishes.name,
            "labels": dict(self.wishes.labels),
            "revoked_at": self.revoked_at,
        }

    @classmethod
    def from_json(cls, document: Any) -> "TokenRecord":
        f = Fields(document, "token record", ContractError)
        return cls(
            f.text("id"),
            f.digest("secret_sha256"),
            f.number("created_at"),
            f.number("expires_at"),
            f.number("used_at", 0.0),
            f.text("device", ""),
            f.text("key_digest", ""),
            Wishes(f.text("batch", ""), f.text("name", ""), f.object("labels", {})),
            f.number("revoked_at", 0.0),
        )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def new_token(
    random_bytes: bytes, ca_digest: str, now: float, ttl_s: float = DEFAULT_TTL_S, wishes: Wishes = Wishes()
) -> tuple[Token, TokenRecord]:
    """Return a token to hand out (``str(token)`` is the line to copy) and the record to keep.

    Args:
        random_bytes: At least RANDOM_BYTES from the system's generator.
        ca_digest: SHA-256 of the CA certificate's DER, 64 hex digits.
        now: Seconds since 1970.
        ttl_s: How long the token lives, in seconds.
        wishes: What the device gets, and what it may be called.

    Raises:
        EnrolmentError: Too little randomness, or a life that is not positive.

    Example:
        >>> token, record = new_token(bytes(range(26)), "d" * 64, now=100.0, ttl_s=60.0)
        >>> str(token)[:30], record.expires_at
        ('strop1.000102030405.060708090a', 160.0)
        >>> token.secret in str(record)
        False
    """
    if len(random_bytes) < RANDOM_BYTES:
        raise EnrolmentError(f"{len(random_bytes)} random bytes, a token needs {RANDOM_BYTES}")
    if ttl_s <= 0:
        raise EnrolmentError(f"a token cannot live for {ttl_s} s", fix="give a positive number of seconds")
    token = Token(random_bytes[:6].hex(), random_bytes[6:RANDOM_BYTES].hex(), ca_digest)
    return token, TokenRecord(token.id, _hash(token.secret), now, now + ttl_s, wishes=wishes)


def check_token(record: TokenRecord | None, secret: str, now: float, *, key_digest: str = "") -> None:
    """Refuse a token that may not enrol a device now.

    Args:
        record: What the store has under the token's id, or None.
        secret: The token's secret, as the device sent it.
        now: Seconds since 1970.
        key_digest: SHA-256 of the public key in the device's request (``ca.csr_key_digest``).

    Raises:
        EnrolmentError: Unknown, used by another key, taken back, or expired; each in its own words. A wrong secret is
            answered like an unknown token, so that ids cannot be tried out.

    Example:
        >>> token, record = new_token(bytes(26), "d" * 64, now=100.0, ttl_s=60.0)
        >>> check_token(record, token.secret, now=159.0)
        >>> check_token(record, token.secret, now=160.0)
        Traceback (most recent call last):
        edge_contract.errors.EnrolmentError: token 000000000000: expired; ask the operator for a new one: strop fleet enrol new
    """  # noqa: E501 - the error is one line
    fix = "ask the operator for a new one: strop fleet enrol new"
    if record is None or not hmac.compare_digest(record.secret_sha256, _hash(secret)):
        raise EnrolmentError("unknown token", fix=fix)
    where = f"token {record.id}"
    if record.used_at and not (key_digest and hmac.compare_digest(record.key_digest, key_digest)):
        raise EnrolmentError(f"already used by device '{record.device}'", where=where, fix=fix)
    if record.revoked_at and not record.used_at:
        raise EnrolmentError("was taken back", where=where, fix=fix)
    if now >= record.expires_at:
        raise EnrolmentError("expired", where=where, fix=fix)


def use_token(record: TokenRecord, device: str, key_digest: str, now: float) -> TokenRecord:
    """Return the record of a token that has enrolled a device.

    Call ``check_token`` first, and store the result in the transaction that stores the device.

    Raises:
        EnrolmentError: The token enrolled another device before.
    """
    if record.used_at and record.device != device:
        raise EnrolmentError(f"already used by device '{record.device}'", where=f"token {record.id}")
    return replace(record, used_at=now, device=device, key_digest=key_digest)


def check_name(record: TokenRecord, device: str) -> None:
    """Refuse a device that may not have the name that it asks for.

    Raises:
        EnrolmentError: The token is for another name.

    Example:
        >>> check_name(TokenRecord("1", "", 0.0, 1.0, wishes=Wishes(name="cam-*")), "cam-7")
        >>> check_name(TokenRecord("1", "", 0.0, 1.0, wishes=Wishes(name="cam-*")), "gate-7")
        Traceback (most recent call last):
        edge_contract.errors.EnrolmentError: token 1: enrols 'cam-*' only, not 'gate-7'; give the device a name that fits, or ask the operator for another token
    """  # noqa: E501 - the error is one line
    wanted = record.wishes.name
    parts = (re.escape(part) for part in re.split(r"([*?])", wanted))
    form = "".join({r"\*": "[^/]*", r"\?": "[^/]"}.get(part, part) for part in parts)
    if wanted and re.fullmatch(form, device) is None:
        fix = "give the device a name that fits, or ask the operator for another token"
        raise EnrolmentError(f"enrols '{wanted}' only, not '{device}'", where=f"token {record.id}", fix=fix)


def check_wishes(wishes: Wishes, ttl_s: float) -> None:
    """Refuse what no token may give.

    Raises:
        UsageError: A batch that is no name, a pattern of names or a life that is too long, labels that are none.

    Example:
        >>> check_wishes(Wishes("truck 7"), 60.0)
        Traceback (most recent call last):
        edge_contract.errors.UsageError: tokens: 'truck 7' is not a batch name; use letters, digits, '.', '_' and '-', at most 63
    """  # noqa: E501 - the error is one line
    if wishes.batch and not is_name(wishes.batch):
        fix = "use letters, digits, '.', '_' and '-', at most 63"
        raise UsageError(f"{wishes.batch[:70]!r} is not a batch name", where="tokens", fix=fix)
    if len(wishes.name) > _MAX_NAME or not wishes.name.isprintable():
        raise UsageError(f"names that are no line of at most {_MAX_NAME} letters", where="tokens")
    if ttl_s > MAX_TTL_S:
        raise UsageError(f"a life of {ttl_s:g} s, at most {MAX_TTL_S:g}", where="tokens")
    check_labels(wishes.labels)


def name_in_batch(pattern: str, number: int) -> str:
    """Return the name of one token of a batch: ``{n}`` is its number, ``{n:3}`` the same with three digits.

    Example:
        >>> name_in_batch("cam-{n:3}", 7), name_in_batch("cam-*", 7)
        ('cam-007', 'cam-*')
    """
    return _PLACE.sub(lambda found: str(number).zfill(int(found[1] or 1)), pattern)


def revoke_token(record: TokenRecord, now: float) -> TokenRecord:
    """Return the record of a token that an operator took back; one that was used stays as it is."""
    return record if record.used_at or record.revoked_at else replace(record, revoked_at=now)


def state_of_token(record: TokenRecord, now: float) -> str:
    """Return ``used``, ``revoked``, ``expired`` or ``open``."""
    if record.used_at:
        return "used"
    if record.revoked_at:
        return "revoked"
    return "expired" if now >= record.expires_at else "open"
