# SPDX-License-Identifier: Apache-2.0
"""Who asks: a browser's session or a program's token becomes a person; logins are counted and slowed down."""

import hmac
import threading
from dataclasses import replace
from functools import cached_property
from typing import Final

from fleet.adapters import account_tables
from fleet.adapters.database import Connection
from fleet.adapters.desk import Desk
from fleet.core.accounts import (
    FILE_ACTOR,
    Account,
    ApiToken,
    Person,
    Role,
    Session,
    SessionRules,
    csrf_of,
    digest_of,
    is_account_name,
)
from fleet.core.passwords import Cost, hash_password, is_password
from fleet.core.throttle import Allowance, Throttle

__all__ = ["Doors", "LoginRefused"]

_TOUCH_S: Final = 60.0
"""How stale ``seen_at`` may become: a write for every request would keep the disk busy for nothing."""

_AT_ONCE: Final = 2
"""Passwords that are hashed at a time: each takes 16 MiB and a core."""


class LoginRefused(Exception):  # noqa: N818 - a refusal, shown as a page
    """A login that is not let in; ``wait_s`` > 0 where there were too many."""

    def __init__(self, words: str, wait_s: float = 0.0) -> None:
        super().__init__(words)
        self.words, self.wait_s = words, wait_s


class Doors:
    """Turns secrets into persons.

    Args:
        desk: Database, clock, audit.
        file_token: What stands in ``operator.token``.
        rules: When sessions end.
        cost: Of the hash that is computed for names that nobody has.
    """

    def __init__(
        self, desk: Desk, file_token: str, rules: SessionRules | None = None, cost: Cost | None = None
    ) -> None:
        self._desk, self._file_token, self.rules = desk, file_token, rules or SessionRules()
        self._throttle, self._lock = Throttle(), threading.Lock()
        self._hashing = threading.BoundedSemaphore(_AT_ONCE)
        self._told = Allowance(most=30, period_s=60.0)
        self._cost = cost or Cost()

    @cached_property
    def _nobody(self) -> str:
        """Compared with where there is no account, so that the time to refuse does not tell which names exist."""
        return hash_password("nobody", self._desk.random_bytes(16), self._cost)

    def login(self, name: str, password: str, address: str) -> str:
        """Return the secret of a new session.

        Raises:
            LoginRefused: Wrong name or password, or too many of them.
        """
        now, keys = self._desk.clock(), (f"name {name}", f"address {address}")
        with self._lock:
            wait = max(self._throttle.wait_s(key, now) for key in keys)
        if wait > 0:
            raise LoginRefused(f"too many attempts; try again in {wait:.0f} s", wait)
        account = self._desk.store.read(lambda db: account_tables.account(db, name))
        with self._hashing:
            is_right = is_password(password, (account.password if account else "") or self._nobody)
        if account is None or not account.password or not is_right:
            self._refused(keys, name, address)
            raise LoginRefused("wrong name or password")
        with self._lock:
            self._throttle.succeeded(keys[0])
        return self._open(account, address)

    def _refused(self, keys: tuple[str, ...], name: str, address: str) -> None:
        with self._lock:
            for key in keys:
                self._throttle.failed(key, self._desk.clock())
        # Other words than names may be passwords that went into the wrong field.
        shown = name if is_account_name(name) else "(no name)"
        self.denied("anonymous", "login.denied", address, {"name": shown})

    def _open(self, account: Account, address: str) -> str:
        secret, now = self._desk.random_bytes(32).hex(), self._desk.clock()

        def job(db: Connection) -> str:
            account_tables.prune(db, created_before=now - self.rules.absolute_s, now=now)
            account_tables.put_session(db, Session(digest_of(secret), account.name, now, now))
            account_tables.put_account(db, replace(account, seen_at=now))
            self._desk.audit(db, account.name, "login", account.name, {"address": address})
            return secret

        return self._desk.store.write(job)

    def logout(self, secret: str) -> None:
        """End a session; one that is not there is no fault."""
        digest = digest_of(secret)

        def job(db: Connection) -> None:
            found = account_tables.session(db, digest)
            if found is not None:
                account_tables.delete_sessions(db, digest=digest)
                self._desk.audit(db, found.account, "logout", found.account, {})

        self._desk.store.write(job)

    def of_session(self, secret: str, *, is_doing: bool = True) -> Person | None:
        """Return whose session it is, None when it has ended; ``is_doing`` puts its idle end off."""
        now = self._desk.clock()

        def read(db: Connection) -> tuple[Session | None, Account | None]:
            found = account_tables.session(db, digest_of(secret))
            return found, account_tables.account(db, found.account) if found else None

        session, account = self._desk.store.read(read)
        if session is None or account is None or not session.is_open(now, self.rules):
            return None
        if is_doing and now - session.seen_at > _TOUCH_S:
            seen = replace(session, seen_at=now)
            self._desk.store.submit(lambda db: _touch(db, seen))
        return Person(account.name, account.role, csrf_of(secret))

    def of_token(self, text: str) -> Person | None:
        """Return for whom a program asks, None when its token is wrong or has ended."""
        if hmac.compare_digest(text.encode("utf-8", "replace"), self._file_token.encode()):
            return Person(FILE_ACTOR, Role.ADMIN)
        mark, _, rest = text.partition("_")
        token_id, _, secret = rest.partition("_")
        if mark != "stp" or not secret:
            return None
        return self._of_api_token(token_id, secret)

    def _of_api_token(self, token_id: str, secret: str) -> Person | None:
        now = self._desk.clock()

        def read(db: Connection) -> tuple[ApiToken | None, Account | None]:
            found = account_tables.api_token(db, token_id)
            return found, account_tables.account(db, found.account) if found else None

        token, account = self._desk.store.read(read)
        if token is None or now >= token.expires_at or not hmac.compare_digest(digest_of(secret), token.digest):
            return None
        if account is None and token.account != FILE_ACTOR:
            return None
        if now - token.used_at > _TOUCH_S:
            used = replace(token, used_at=now)
            self._desk.store.submit(lambda db: _used(db, used))
        role = min(token.role, account.role) if account else token.role
        return Person(f"{token.account}/{token.name}", role)

    def denied(self, actor: str, action: str, subject: str, detail: dict[str, object]) -> None:
        """Write a refusal down; at most thirty a minute, so that nobody can fill the log from outside."""
        with self._lock:
            left_out = self._told.take(self._desk.clock())
        if left_out is None:
            return
        told = {**detail, "left_out": left_out} if left_out else detail
        self._desk.store.submit(lambda db: self._desk.audit(db, actor, action, subject, told))


def _touch(db: Connection, session: Session) -> None:
    if account_tables.session(db, session.digest) is not None:  # not one that was ended meanwhile
        account_tables.put_session(db, session)


def _used(db: Connection, token: ApiToken) -> None:
    if account_tables.api_token(db, token.id) is not None:
        account_tables.put_api_token(db, token)
