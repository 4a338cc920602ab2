# SPDX-License-Identifier: Apache-2.0
"""Passwords as scrypt hashes (RFC 7914) that carry their own cost, so that a later cost does not lock anybody out."""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from edge_contract.errors import UsageError

__all__ = ["MIN_LENGTH", "Cost", "check_password", "hash_password", "is_password"]

MIN_LENGTH: Final = 10
_MAX_LENGTH: Final = 1000
_COMMON: Final = ("password", "passwort", "1234567890", "qwertyuiop", "administrator")


@dataclass(frozen=True)
class Cost:
    """scrypt's parameters: memory = 128 · n · r bytes (16 MiB), time grows with p."""

    n: int = 2**14
    r: int = 8
    p: int = 5


def check_password(password: str, name: str = "") -> str:
    """Return a password that may be taken.

    Raises:
        UsageError: Too short or too long, the account's name, one character, or among the most guessed.

    Example:
        >>> check_password("three grey herons")
        'three grey herons'
    """
    lowered = password.lower()
    is_weak = len(set(password)) < 4 or lowered == name or any(word == lowered.rstrip("0123456789") for word in _COMMON)
    if not MIN_LENGTH <= len(password) <= _MAX_LENGTH:
        raise UsageError(f"the password has {len(password)} characters", fix=f"use {MIN_LENGTH} to {_MAX_LENGTH}")
    if is_weak or lowered in _COMMON:
        raise UsageError("the password is among the first that are guessed", fix="use several words")
    return password


def _derive(password: str, salt: bytes, cost: Cost) -> bytes:
    memory = 256 * cost.n * cost.r  # twice what it needs: OpenSSL counts its own tables, too
    return hashlib.scrypt(password.encode(), salt=salt, n=cost.n, r=cost.r, p=cost.p, maxmem=memory, dklen=32)


def hash_password(password: str, salt: bytes, cost: Cost) -> str:
    """Return ``scrypt$n$r$p$salt$hash``.

    Example:
        >>> stored = hash_password("three grey herons", bytes(16), Cost(n=16, r=1, p=1))
        >>> stored[:13], is_password("three grey herons", stored), is_password("three gray herons", stored)
        ('scrypt$16$1$1', True, False)
    """
    parts = (salt, _derive(password, salt, cost))
    return "$".join(["scrypt", *map(str, (cost.n, cost.r, cost.p)), *(base64.b64encode(p).decode() for p in parts)])


def is_password(password: str, stored: str) -> bool:
    """True if a password has this hash; takes the same time for right and wrong ones."""
    try:
        _, n, r, p, salt, wanted = stored.split("$")
        found = _derive(password, base64.b64decode(salt), Cost(int(n), int(r), int(p)))
    except (ValueError, UnicodeEncodeError):
        return False
    return hmac.compare_digest(found, base64.b64decode(wanted))
