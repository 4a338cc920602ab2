# SPDX-License-Identifier: Apache-2.0
"""Passwords as a card may carry them: a salted hash for a user, a derived key for Wi-Fi. The plain text stays here.

SHA-512-crypt: U. Drepper, "Unix crypt using SHA-256 and SHA-512", version 0.6, section "Algorithm", whose step
numbers stand in the comments. Every C library of a Debian since 2009 reads it; yescrypt, which newer ones prefer for
new passwords, is not known to all images. WPA key: IEEE 802.11-2020, J.4.1: PBKDF2-HMAC-SHA1, 4096 rounds, 32 bytes.
"""

import hashlib
import secrets
from typing import Final

from edge_contract.errors import UsageError

__all__ = ["hash_password", "make_salt", "wpa_key"]

_LETTERS: Final = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ROUNDS: Final = 5000
_SIZE: Final = 64


def make_salt() -> str:
    """Return 16 random letters, 96 bits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(16))


def _repeat(digest: bytes, length: int) -> bytes:
    return (digest * (length // _SIZE + 1))[:length]


def _first_digest(key: bytes, salt: bytes) -> bytes:
    """Steps 1 to 12."""
    inner = hashlib.sha512(key + salt + key).digest()
    outer = hashlib.sha512(key + salt + _repeat(inner, len(key)))
    bits = len(key)
    while bits:
        outer.update(inner if bits & 1 else key)
        bits >>= 1
    return outer.digest()


def _round(number: int, digest: bytes, p: bytes, s: bytes) -> bytes:
    """Step 21, one round."""
    odd = number % 2 == 1
    middle = (s if number % 3 else b"") + (p if number % 7 else b"")
    return hashlib.sha512((p if odd else digest) + middle + (digest if odd else p)).digest()


def _to_text(digest: bytes) -> str:
    """Step 22: three bytes of a fixed order become four letters, the last byte two."""
    text = []
    a, b, c = 0, 21, 42
    for _ in range(21):
        value = digest[a] << 16 | digest[b] << 8 | digest[c]
        text += [_LETTERS[value >> shift & 63] for shift in (0, 6, 12, 18)]
        a, b, c = b + 1, c + 1, a + 1
    value = digest[63]
    return "".join([*text, _LETTERS[value & 63], _LETTERS[value >> 6]])


def hash_password(password: str, salt: str) -> str:
    """Return a password as ``/etc/shadow`` holds it, by SHA-512-crypt with 5000 rounds.

    Args:
        password: In plain text, at least one letter.
        salt: At most 16 letters of ``make_salt``.

    Raises:
        UsageError: An empty password, or one with a line break, which nobody could type.

    Example:
        >>> hash_password("Hello world!", "saltstring")[:40]
        '$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8'
    """
    if not password or any(ord(letter) < 32 for letter in password):
        raise UsageError("an empty password, or one with a line break", fix="put one line into the password's file")
    key, salted = password.encode(), salt.encode("ascii")[:16]
    digest = _first_digest(key, salted)
    p = _repeat(hashlib.sha512(key * len(key)).digest(), len(key))  # steps 13 to 16
    s = _repeat(hashlib.sha512(salted * (16 + digest[0])).digest(), len(salted))  # steps 17 to 20
    for number in range(_ROUNDS):
        digest = _round(number, digest, p, s)
    return f"$6${salted.decode()}${_to_text(digest)}"


def wpa_key(ssid: str, passphrase: str) -> str:
    """Return the pre-shared key of a Wi-Fi network as 64 hexadecimal digits.

    Args:
        ssid: The network's name, 1 to 32 bytes of UTF-8.
        passphrase: 8 to 63 printable ASCII letters; 64 hexadecimal digits are a key already.

    Raises:
        UsageError: Neither.

    Example:
        >>> wpa_key("IEEE", "password")
        'f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e'
    """
    if len(passphrase) == 64 and not set(passphrase.lower()) - set("0123456789abcdef"):
        return passphrase.lower()
    if not 8 <= len(passphrase) <= 63 or any(not 32 <= ord(letter) < 127 for letter in passphrase):
        fix = "write 8 to 63 letters, or the 64 hexadecimal digits of a key"
        raise UsageError("no WPA passphrase", where=f"Wi-Fi '{ssid}'", fix=fix)
    return hashlib.pbkdf2_hmac("sha1", passphrase.encode("ascii"), ssid.encode(), 4096, 32).hex()
