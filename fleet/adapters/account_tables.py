# SPDX-License-Identifier: Apache-2.0
"""Accounts, sessions, tokens and one-time links in and out of their tables."""

from fleet.adapters.database import Connection, Row
from fleet.core.accounts import Account, ApiToken, Invitation, Role, Session

__all__ = [
    "account",
    "accounts",
    "api_token",
    "api_tokens",
    "delete_account",
    "delete_api_token",
    "delete_sessions",
    "invitation",
    "prune",
    "put_account",
    "put_api_token",
    "put_invitation",
    "put_session",
    "session",
]


def _account(row: Row) -> Account:
    return Account(row["name"], Role.of(row["role"]), row["password"], row["created_at"], row["seen_at"])


def account(db: Connection, name: str) -> Account | None:
    """Return an account, or None."""
    row = db.execute("SELECT * FROM accounts WHERE name = ?", (name,)).fetchone()
    return _account(row) if row else None


def accounts(db: Connection) -> list[Account]:
    """Return all accounts by name."""
    return [_account(row) for row in db.execute("SELECT * FROM accounts ORDER BY name")]


def put_account(db: Connection, one: Account) -> None:
    """Insert or replace an account."""
    db.execute(
        "INSERT INTO accounts (name, role, password, created_at, seen_at) VALUES (?,?,?,?,?) ON CONFLICT (name) "
        "DO UPDATE SET role = excluded.role, password = excluded.password, seen_at = excluded.seen_at",
        (one.name, one.role.word, one.password, one.created_at, one.seen_at),
    )


def delete_account(db: Connection, name: str) -> None:
    """Delete an account with its sessions, tokens and links."""
    db.execute("DELETE FROM accounts WHERE name = ?", (name,))
    for table in ("sessions", "api_tokens", "invitations"):
        db.execute(f"DELETE FROM {table} WHERE account = ?", (name,))


def session(db: Connection, digest: str) -> Session | None:
    """Return a session, or None."""
    row = db.execute("SELECT * FROM sessions WHERE digest = ?", (digest,)).fetchone()
    return Session(row["digest"], row["account"], row["created_at"], row["seen_at"]) if row else None


def put_session(db: Connection, one: Session) -> None:
    """Insert a session, or store when it was seen."""
    db.execute(
        "INSERT INTO sessions (digest, account, created_at, seen_at) VALUES (?,?,?,?) "
        "ON CONFLICT (digest) DO UPDATE SET seen_at = excluded.seen_at",
        (one.digest, one.account, one.created_at, one.seen_at),
    )


def delete_sessions(db: Connection, *, digest: str = "", account: str = "") -> None:
    """Delete one session, or all of an account."""
    db.execute("DELETE FROM sessions WHERE digest = ? OR account = ?", (digest, account))


def _token(row: Row) -> ApiToken:
    return ApiToken(
        row["id"],
        row["name"],
        Role.of(row["role"]),
        row["digest"],
        row["account"],
        row["created_at"],
        row["expires_at"],
        row["used_at"],
    )


def api_token(db: Connection, token_id: str) -> ApiToken | None:
    """Return a token by its id, or None."""
    row = db.execute("SELECT * FROM api_tokens WHERE id = ?", (token_id,)).fetchone()
    return _token(row) if row else None


def api_tokens(db: Connection) -> list[ApiToken]:
    """Return all tokens by name."""
    return [_token(row) for row in db.execute("SELECT * FROM api_tokens ORDER BY name")]


def put_api_token(db: Connection, one: ApiToken) -> None:
    """Insert a token, or store when it was used."""
    db.execute(
        "INSERT INTO api_tokens (id, name, role, digest, account, created_at, expires_at, used_at) "
        "VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET used_at = excluded.used_at",
        (one.id, one.name, one.role.word, one.digest, one.account, one.created_at, one.expires_at, one.used_at),
    )


def delete_api_token(db: Connection, token_id: str) -> None:
    """Delete a token: it is refused from now on."""
    db.execute("DELETE FROM api_tokens WHERE id = ?", (token_id,))


def invitation(db: Connection, digest: str) -> Invitation | None:
    """Return a one-time link, or None."""
    row = db.execute("SELECT * FROM invitations WHERE digest = ?", (digest,)).fetchone()
    if row is None:
        return None
    return Invitation(row["digest"], row["account"], Role.of(row["role"]), row["expires_at"], row["used_at"])


def put_invitation(db: Connection, one: Invitation) -> None:
    """Store a one-time link in place of those that its account had before; or that it was used."""
    db.execute("DELETE FROM invitations WHERE account = ?", (one.account,))
    db.execute(
        "INSERT INTO invitations (digest, account, role, expires_at, used_at) VALUES (?,?,?,?,?)",
        (one.digest, one.account, one.role.word, one.expires_at, one.used_at),
    )


def prune(db: Connection, *, created_before: float, now: float) -> None:
    """Delete sessions and links that have ended."""
    db.execute("DELETE FROM sessions WHERE created_at < ?", (created_before,))
    db.execute("DELETE FROM invitations WHERE expires_at < ?", (now,))
