# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL's own tools for a backup: ``pg_dump`` as of one moment, ``pg_restore`` whole or not at all.

A password goes to them by the environment: the words of a process are for everybody on the machine to read.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from edge_contract.errors import MissingDependencyError, StoreError, UsageError

__all__ = ["dump", "load"]

_TOOLS: Final = "install it: sudo apt-get install postgresql-client"
_TABLES: Final = (
    "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('r', 'p', 'v', 'S') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'"
)


def dump(url: str, target: Path) -> None:
    """Write a database as of one moment into a file.

    Raises:
        MissingDependencyError: pg_dump is not installed.
        StoreError: The database does not answer, or the disk is full.
    """
    _run([_tool("pg_dump"), "--format=custom", "--no-owner", "--no-privileges", f"--file={target}"], url)


def load(source: Path, url: str) -> None:
    """Fill an empty database from a file; where that fails it stays empty.

    Raises:
        UsageError: The database holds something.
        MissingDependencyError: pg_restore or psycopg is not installed.
        StoreError: The database does not answer, or the file is not of pg_dump.
    """
    words = [_tool("pg_restore"), "--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges"]
    if held := _count(url):
        fix = "make an empty one (createdb) and give that"
        raise UsageError(f"the database is not empty: it holds {held} tables", where="--database", fix=fix)
    _run([*words, str(source)], url)


def _count(url: str) -> int:
    psycopg = _psycopg()
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            return int(connection.execute(_TABLES).fetchone()[0])
    except psycopg.Error as error:
        fix = "start PostgreSQL, or look at --database"
        raise StoreError(f"the database cannot be opened: {str(error).strip()}", where="PostgreSQL", fix=fix) from error


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError as error:  # pragma: no cover - the tests' environment has it
        raise MissingDependencyError("psycopg is not installed", fix="pip install 'strop[postgres]'") from error
    return psycopg


def _run(words: Sequence[str], url: str) -> None:
    conninfo = _psycopg().conninfo
    parts = conninfo.conninfo_to_dict(url)
    password = parts.pop("password", None)
    environ = {**os.environ, **({"PGPASSWORD": str(password)} if password else {})}
    command = [*words[:1], f"--dbname={conninfo.make_conninfo(**parts)}", *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise StoreError(f"{Path(words[0]).name}: {_reason(done)}", where="PostgreSQL", fix="see PostgreSQL's log")


def _reason(done: "subprocess.CompletedProcess[str]") -> str:
    if done.returncode == -signal.SIGXFSZ:
        return "the file grew over what this process may write"
    if done.returncode < 0:
        return f"ended by signal {-done.returncode}"
    return " ".join(done.stderr.split())[:300] or f"exit code {done.returncode}"


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise MissingDependencyError(f"{name} is not installed", fix=_TOOLS)
    return found
