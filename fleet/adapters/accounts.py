# SPDX-License-Identifier: Apache-2.0
"""What is asked about accounts and tokens: add, list, role, remove, password, one-time links."""

from dataclasses import replace
from typing import Final

from edge_contract.errors import UsageError
from fleet.adapters import account_tables
from fleet.adapters.database import Connection
from fleet.adapters.desk import Desk
from fleet.core.accounts import (
    FILE_ACTOR,
    Account,
    ApiToken,
    Invitation,
    Person,
    Role,
    account_name,
    digest_of,
    token_name,
)
from fleet.core.passwords import Cost, check_password, hash_password, is_password

__all__ = ["LINK_TTL_S", "AccountVerbs"]

LINK_TTL_S: Final = 86_400.0
_LONGEST_TOKEN_S: Final = 5 * 365 * 86_400.0


class AccountVerbs:
    """Verbs on accounts; each is one transaction with its audit entry. Safe to call from any thread."""

    def __init__(self, desk: Desk, cost: Cost | None = None) -> None:
        self._desk, self.cost = desk, cost or Cost()

    def exist(self) -> bool:
        """True once anybody has an account."""
        return bool(self._desk.store.read(account_tables.accounts))

    def first_link(self) -> str:
        """Return a fresh secret of the link by which the first admin comes in; the one before is void.

        Empty when there is an account already.
        """
        if self.exist():
            return ""
        secret = self._desk.random_bytes(32).hex()
        link = Invitation(digest_of(secret), "", Role.ADMIN, self._desk.clock() + LINK_TTL_S)

        def job(db: Connection) -> str:
            account_tables.put_invitation(db, link)
            self._desk.audit(db, "server", "account.first_link", "", {"expires_at": link.expires_at})
            return secret

        return self._desk.store.write(job)

    def add(self, name: str, role: Role, actor: str) -> str:
        """Make an account without a password and return the secret of its one-time link.

        Raises:
            UsageError: A name that is taken or may not be had.
        """
        made = Account(account_name(name), role, "", self._desk.clock())

        def job(db: Connection) -> str:
            if account_tables.account(db, name) is not None:
                raise UsageError(f"account '{name}' exists already", fix=f"strop fleet user passwd {name}")
            account_tables.put_account(db, made)
            self._desk.audit(db, actor, "account.add", name, {"role": role.word})
            return self._link(db, made)

        return self._desk.store.write(job)

    def reset(self, name: str, actor: str) -> str:
        """Return the secret of a link that sets a new password; the old one works until it is used.

        Raises:
            UsageError: Nobody has this account.
        """

        def job(db: Connection) -> str:
            secret = self._link(db, _known(db, name))
            self._desk.audit(db, actor, "account.link", name, {})
            return secret

        return self._desk.store.write(job)

    def _link(self, db: Connection, account: Account) -> str:
        secret = self._desk.random_bytes(32).hex()
        ends = self._desk.clock() + LINK_TTL_S
        account_tables.put_invitation(db, Invitation(digest_of(secret), account.name, account.role, ends))
        return secret

    def invited(self, secret: str) -> Invitation | None:
        """Return what an open link is for, None when it was used, has ended or never was."""
        found = self._desk.store.read(lambda db: account_tables.invitation(db, digest_of(secret)))
        return found if found and found.is_open(self._desk.clock()) else None

    def accept(self, secret: str, name: str, password: str) -> Account:
        """Take a link up: set the password of its account, or make the first admin's.

        Raises:
            UsageError: The link is void, or name or password may not be had.
        """
        now = self._desk.clock()
        stored = self._hashed(password, name)

        def job(db: Connection) -> Account:
            link = account_tables.invitation(db, digest_of(secret))
            if link is None or not link.is_open(now) or (not link.account and account_tables.accounts(db)):
                raise UsageError("this link was used or has ended", fix="strop fleet user passwd NAME makes another")
            chosen = link.account or account_name(name)
            known = account_tables.account(db, chosen) or Account(chosen, link.role, "", now)
            account_tables.put_invitation(db, replace(link, used_at=now))
            account_tables.delete_sessions(db, account=chosen)
            account_tables.put_account(db, made := replace(known, password=stored))
            action = "account.password" if link.account else "account.first_admin"
            self._desk.audit(db, chosen, action, chosen, {"role": made.role.word})
            return made

        return self._desk.store.write(job)

    def change_password(self, person: Person, old: str, new: str) -> None:
        """Set one's own password; every session of the account ends.

        Raises:
            UsageError: The old one is wrong, or the new one may not be had.
        """
        account = self._desk.store.read(lambda db: _known(db, person.name))
        if not is_password(old, account.password):
            raise UsageError("the present password is wrong")
        stored = self._hashed(new, person.name)

        def job(db: Connection) -> None:
            account_tables.put_account(db, replace(_known(db, person.name), password=stored))
            account_tables.delete_sessions(db, account=person.name)
            self._desk.audit(db, person.name, "account.password", person.name, {})

        self._desk.store.write(job)

    def _hashed(self, password: str, name: str) -> str:
        return hash_password(check_password(password, name), self._desk.random_bytes(16), self.cost)

    def all(self) -> list[Account]:
        """Return all accounts by name."""
        return self._desk.store.read(account_tables.accounts)

    def set_role(self, name: str, role: Role, actor: str) -> Account:
        """Give an account another role; raises UsageError if nobody has it or no admin would be left."""

        def job(db: Connection) -> Account:
            known = _known(db, name)
            _keep_an_admin(db, known, role)
            changed = replace(known, role=role)
            account_tables.put_account(db, changed)
            self._desk.audit(db, actor, "account.role", name, {"from": known.role.word, "to": role.word})
            return changed

        return self._desk.store.write(job)

    def remove(self, name: str, actor: str) -> None:
        """Delete an account, its sessions and its tokens; raises UsageError as ``set_role``."""

        def job(db: Connection) -> None:
            _keep_an_admin(db, _known(db, name), None)
            account_tables.delete_account(db, name)
            self._desk.audit(db, actor, "account.remove", name, {})

        self._desk.store.write(job)

    def new_token(self, name: str, role: Role, ttl_s: float, person: Person) -> str:
        """Return a fresh token's text; the database keeps only a digest.

        Raises:
            UsageError: The name is taken, the role is above one's own, or the life is out of range.
        """
        if role > person.role:
            raise UsageError(f"a {person.role.word} cannot give the role {role.word}")
        if not 1.0 <= ttl_s <= _LONGEST_TOKEN_S:
            raise UsageError(f"a token cannot live for {ttl_s:g} s", fix="use 1 s to 5 years")
        now, token_id, secret = self._desk.clock(), self._desk.random_bytes(4).hex(), self._desk.random_bytes(32).hex()
        account = person.name.partition("/")[0] or FILE_ACTOR
        made = ApiToken(token_id, token_name(name), role, digest_of(secret), account, now, now + ttl_s)

        def job(db: Connection) -> str:
            if any(one.name == name for one in account_tables.api_tokens(db)):
                raise UsageError(f"token '{name}' exists already", fix=f"strop fleet api-token revoke {name}")
            account_tables.put_api_token(db, made)
            detail = {"role": role.word, "expires_at": made.expires_at}
            self._desk.audit(db, person.name, "api_token.new", name, detail)
            return f"stp_{token_id}_{secret}"

        return self._desk.store.write(job)

    def tokens(self) -> list[ApiToken]:
        """Return all tokens by name, those that have ended, too."""
        return self._desk.store.read(account_tables.api_tokens)

    def revoke_token(self, name: str, actor: str) -> None:
        """Refuse a token from now on; raises UsageError if there is none of this name."""

        def job(db: Connection) -> None:
            found = next((one for one in account_tables.api_tokens(db) if one.name == name), None)
            if found is None:
                raise UsageError(f"token '{name[:40]}' is not known", fix="strop fleet api-token list")
            account_tables.delete_api_token(db, found.id)
            self._desk.audit(db, actor, "api_token.revoke", name, {})

        self._desk.store.write(job)


def _known(db: Connection, name: str) -> Account:
    found = account_tables.account(db, name)
    if found is None:
        raise UsageError(f"account '{name[:40]}' is not known", fix="strop fleet user list")
    return found


def _keep_an_admin(db: Connection, account: Account, role: Role | None) -> None:
    """Refuse what would leave accounts behind of which none is an admin's."""
    others = [one for one in account_tables.accounts(db) if one.name != account.name]
    if account.role is Role.ADMIN and role is not Role.ADMIN and not any(o.role is Role.ADMIN for o in others):
        raise UsageError(f"'{account.name}' is the last admin", fix="make somebody else an admin first")
