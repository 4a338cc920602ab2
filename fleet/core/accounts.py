# SPDX-License-Identifier: Apache-2.0
"""Who may do what: three roles, accounts of people, tokens of programs, sessions of browsers, one-time links.

Only digests of secrets are kept. A secret here has 256 random bits, so that a plain SHA-256 of it says nothing; a
password has fewer, and goes through ``fleet.core.passwords``.
"""

import enum
import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final

from edge_contract.errors import UsageError

__all__ = [
    "FILE_ACTOR",
    "Account",
    "ApiToken",
    "Invitation",
    "Person",
    "Role",
    "Session",
    "SessionRules",
    "account_name",
    "csrf_of",
    "digest_of",
    "is_account_name",
    "read_role",
    "same_person",
    "token_name",
]

FILE_ACTOR: Final = "operator"
"""The name of whoever holds the data folder's ``operator.token``: the people of this machine."""

_RESERVED: Final = frozenset({FILE_ACTOR, "anonymous", "server", "strop", "device"})
_NAME: Final = re.compile(r"[a-z][a-z0-9._-]{1,31}")


class Role(enum.IntEnum):
    """What somebody may do; each role may what the one before may.

    Example:
        >>> Role.OPERATOR > Role.VIEWER, Role.ADMIN.word, Role.of("viewer") is Role.VIEWER
        (True, 'admin', True)
    """

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> "Role":
        return cls[word.upper()]


@dataclass(frozen=True)
class Person:
    """Who asks.

    Attributes:
        name: The name in the audit log: ``alice``, ``alice/ci`` for her token ``ci``; empty for an unnamed viewer.
        role: What they may do.
        csrf: What a form of theirs must carry; empty for programs, which no page can make ask.
    """

    name: str
    role: Role
    csrf: str = ""


@dataclass(frozen=True)
class Account:
    """A person with a password; times in seconds since 1970, 0 is never."""

    name: str
    role: Role
    password: str
    created_at: float
    seen_at: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return what may be shown: no hash."""
        return {"name": self.name, "role": self.role.word, "created_at": self.created_at, "seen_at": self.seen_at}


@dataclass(frozen=True)
class ApiToken:
    """A program's token: ``stp_<id>_<secret>``. ``account`` made it, and bounds what it may."""

    id: str
    name: str
    role: Role
    digest: str
    account: str
    created_at: float
    expires_at: float
    used_at: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return what may be shown: no digest."""
        return {
            "id": self.id,
            "name": self.name,
            "role": self.role.word,
            "account": self.account,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "used_at": self.used_at,
        }


@dataclass(frozen=True)
class Invitation:
    """A one-time link: whoever opens it chooses a password. An empty account lets them choose a name, too."""

    digest: str
    account: str
    role: Role
    expires_at: float
    used_at: float = 0.0

    def is_open(self, now: float) -> bool:
        """True if it may be used."""
        return not self.used_at and now < self.expires_at


@dataclass(frozen=True)
class SessionRules:
    """When a browser must log in again, in seconds.

    Attributes:
        idle_s: After so long without a person's doing; a page that follows by itself does not count.
        absolute_s: After so long in any case.
    """

    idle_s: float = 3600.0
    absolute_s: float = 43_200.0


@dataclass(frozen=True)
class Session:
    """One browser that has logged in."""

    digest: str
    account: str
    created_at: float
    seen_at: float

    def is_open(self, now: float, rules: SessionRules) -> bool:
        """True while neither end has come.

        Example:
            >>> one = Session("d", "alice", created_at=0.0, seen_at=5000.0)
            >>> [one.is_open(now, SessionRules()) for now in (5100.0, 9000.0, 43_300.0)]
            [True, False, False]
        """
        return now - self.seen_at < rules.idle_s and now - self.created_at < rules.absolute_s


def digest_of(secret: str) -> str:
    """Return what is stored of a random secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def csrf_of(secret: str) -> str:
    """Return what a form of a session carries; it does not give the session's secret away."""
    return hashlib.sha256(b"csrf:" + secret.encode()).hexdigest()


def account_name(name: str) -> str:
    """Return a name that an account may have.

    Raises:
        UsageError: Other characters than a-z, 0-9, dot, dash and underscore, too long, or reserved.

    Example:
        >>> account_name("alice")
        'alice'
    """
    if not is_account_name(name) or name in _RESERVED:
        fix = "2 to 32 of a-z, 0-9, '.', '-', '_', a letter first"
        raise UsageError(f"{name[:40]!r} is not a name for an account", fix=fix)
    return name


def is_account_name(name: str) -> bool:
    """True if a word has the form of an account's name."""
    return _NAME.fullmatch(name) is not None


def token_name(name: str) -> str:
    """Return a name that a token may have; raises UsageError as ``account_name``."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name[:40]!r} is not a name for a token", fix="2 to 32 of a-z, 0-9, '.', '-', '_'")
    return name


def read_role(word: str) -> Role:
    """Return a role by its word; raises UsageError for another.

    Example:
        >>> read_role("admin").name
        'ADMIN'
    """
    try:
        return Role.of(word)
    except KeyError as error:
        raise UsageError(f"{word[:40]!r} is not a role", fix="use viewer, operator or admin") from error


def same_person(one: str, other: str) -> bool:
    """True if two actors of the audit log are one person: a token acts for the account that made it.

    Example:
        >>> same_person("alice", "alice/ci"), same_person("alice", "bob")
        (True, False)
    """
    return one.partition("/")[0] == other.partition("/")[0]
