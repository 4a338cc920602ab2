# SPDX-License-Identifier: Apache-2.0
"""What a board is to be: its name, its user, its network and its language. Checked where it is made."""

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Final

from edge_contract.errors import UsageError

__all__ = ["Customisation", "Wifi"]

_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_LOCALE: Final = re.compile(r"[a-z]{2,3}_[A-Z]{2}(\.UTF-8)?|C\.UTF-8")
_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}")
_KEYBOARD: Final = re.compile(r"[a-z]{2,5}")
_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_HASH: Final = re.compile(r"\$(5|6|y|gy|7)\$[./A-Za-z0-9=,$]{10,200}")
_KEY: Final = re.compile(r"[0-9a-f]{64}")
_SSH_KINDS: Final = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-", "sk-ssh-ed25519@", "sk-ecdsa-sha2-")


def _must(fits: object, what: str, where: str, fix: str) -> None:
    if not fits:
        raise UsageError(what, where=where, fix=fix)


@dataclass(frozen=True)
class Wifi:
    """A wireless network.

    Attributes:
        ssid: Its name, 1 to 32 bytes of UTF-8.
        key: The derived key, 64 hexadecimal digits; empty for an open network.
        country: Two capitals; without it a board may not use its radio.
        is_hidden: Whether it does not tell its name.

    Raises:
        UsageError: A name, key or country that is none.
    """

    ssid: str
    key: str = field(default="", repr=False)
    country: str = ""
    is_hidden: bool = False

    def __post_init__(self) -> None:
        where = "wifi"
        plain = all(ord(letter) >= 32 and letter != "\x7f" for letter in self.ssid)
        _must(1 <= len(self.ssid.encode()) <= 32 and plain, "no name of a network", where, "write 1 to 32 letters")
        _must(not self.key or _KEY.fullmatch(self.key), "a key that is not derived", where, "use wpa_key")
        fix = 'write country = "DE", or that of the site'
        _must(_COUNTRY.fullmatch(self.country), f"country {self.country!r} is not two capitals", where, fix)


@dataclass(frozen=True)
class Customisation:
    """One board.

    Attributes:
        hostname: Its name in the network.
        user: Login name of its administrator; empty for none.
        password_hash: As in ``/etc/shadow``; empty: no password login.
        ssh_keys: Public keys of that user, as lines of ``authorized_keys``.
        ssh_password: Whether a password may be used over SSH.
        wifi: A wireless network; None for a cable.
        locale, timezone, keyboard: Such as ``de_DE.UTF-8``, ``Europe/Berlin``, ``de``; empty: as the image has it.

    Raises:
        UsageError: A value that is none of its kind, or a user who could never log in.

    Example:
        >>> Customisation("cam-7", user="ops", ssh_keys=("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== ops",)).hostname
        'cam-7'
        >>> Customisation("cam 7")
        Traceback (most recent call last):
        edge_contract.errors.UsageError: board.hostname: 'cam 7' is no host name; use letters, digits and '-', at most 63
    """  # noqa: E501 - the error is one line

    hostname: str
    user: str = ""
    password_hash: str = field(default="", repr=False)
    ssh_keys: tuple[str, ...] = ()
    ssh_password: bool = False
    wifi: Wifi | None = None
    locale: str = ""
    timezone: str = ""
    keyboard: str = ""

    def __post_init__(self) -> None:
        fix = "use letters, digits and '-', at most 63"
        _must(_HOST.fullmatch(self.hostname), f"'{self.hostname}' is no host name", "board.hostname", fix)
        self._check_user()
        for key in self.ssh_keys:
            _check_ssh_key(key)
        words = (
            ("locale", self.locale, _LOCALE, "such as de_DE.UTF-8"),
            ("timezone", self.timezone, _ZONE, "such as Europe/Berlin"),
            ("keyboard", self.keyboard, _KEYBOARD, "such as de"),
        )
        for name, value, pattern, fix in words:
            _must(not value or pattern.fullmatch(value), f"'{value}' is no {name}", f"board.{name}", f"write one {fix}")

    def _check_user(self) -> None:
        name = self.user
        fix = "use small letters, digits, '_' and '-', at most 32, and not root"
        _must(not name or (_USER.fullmatch(name) and name != "root"), f"'{name}' is no user name", "board.user", fix)
        _must(not self.password_hash or _HASH.fullmatch(self.password_hash), "no password hash", "board.user", "")
        given = bool(self.password_hash or self.ssh_keys)
        _must(name or not given, "a password or SSH key without a user", "board.user", "name the user")
        fix = "give a password file or an SSH key"
        _must(given or not name, f"user '{name}' could never log in", "board.user", fix)
        fix = "give a password file, or leave ssh_password out"
        _must(self.password_hash or not self.ssh_password, "SSH by password without a password", "board.user", fix)

    @property
    def has_ssh(self) -> bool:
        """Whether the SSH server is to run."""
        return bool(self.ssh_keys) or self.ssh_password


def _check_ssh_key(line: str) -> None:
    words = line.split()
    good = len(words) >= 2 and words[0].startswith(_SSH_KINDS) and line.isprintable()
    if good:
        try:
            good = base64.b64decode(words[1], validate=True)[4:7] in {b"ssh", b"ecd", b"sk-"} or len(words[1]) > 16
        except binascii.Error:
            good = False
    fix = "name the .pub file, one key a line"
    _must(good, f"'{line[:30]}…' is no public SSH key", "board.ssh_keys", fix)
