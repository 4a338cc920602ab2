# SPDX-License-Identifier: Apache-2.0
"""What a person can do about an error of the database: each engine has its own causes.

Result codes: sqlite.org/rescode.html. SQLSTATE: PostgreSQL's documentation, appendix A; a class is its first two signs.
"""

import sqlite3
from typing import Final

__all__ = ["of_postgres", "of_sqlite"]

_FILE: Final = {
    sqlite3.SQLITE_FULL: "free space on the disk of the data folder",
    sqlite3.SQLITE_IOERR: "check the disk of the data folder",
    sqlite3.SQLITE_READONLY: "let the server's user write the database and its folder",
    sqlite3.SQLITE_PERM: "let the server's user write the database and its folder",
    sqlite3.SQLITE_CANTOPEN: "let the server's user write the database and its folder",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: stop the server and restore a backup",
    sqlite3.SQLITE_NOTADB: "the file is damaged: stop the server and restore a backup",
    sqlite3.SQLITE_BUSY: "another process holds the database: end it",
}
_STATE: Final = {
    "53100": "free space on the disk of PostgreSQL's server",
    "53200": "give PostgreSQL's server more memory",
    "53300": "raise max_connections of PostgreSQL, or run fewer workers",
    "25006": "this PostgreSQL only reads: name the primary in --database",
    "42501": "grant the server's role the rights on its database",
    "3D000": "create the database, or look at --database",
    "28P01": "look at user and password of --database",
    "XX001": "PostgreSQL's files are damaged: restore a backup",
    "XX002": "PostgreSQL's index is damaged: REINDEX it, or restore a backup",
}
_CLASS: Final = {
    "08": "see whether PostgreSQL runs and is reached",
    "28": "look at user and password of --database, and at pg_hba.conf",
    "42": "schema and program do not fit: start the server of this version once, which brings the schema up to date",
    "53": "PostgreSQL is short of something: see its log",
    "57": "PostgreSQL stops or ended the statement: see its log",
    "58": "check the disk of PostgreSQL's server",
}
_LOG: Final = "see PostgreSQL's log"


def of_sqlite(error: Exception) -> str:
    """Return what to do about an error of SQLite; empty where only a programmer can.

    Example:
        >>> error = sqlite3.OperationalError("database or disk is full")
        >>> error.sqlite_errorcode = sqlite3.SQLITE_FULL
        >>> of_sqlite(error)
        'free space on the disk of the data folder'
    """
    code = getattr(error, "sqlite_errorcode", 0)
    return _FILE.get(code & 0xFF, "")  # the low byte is the primary code


def of_postgres(state: str | None) -> str:
    """Return what to do about an SQLSTATE; None is a connection that was lost.

    Example:
        >>> of_postgres("53100"), of_postgres(None)
        ("free space on the disk of PostgreSQL's server", 'see whether PostgreSQL runs and is reached')
    """
    if state is None:
        return _CLASS["08"]
    return _STATE.get(state) or _CLASS.get(state[:2], _LOG)
