# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server of Debian's package for tests and measurements: a folder of its own, a Unix socket, no port.

It ends with the process that started it, and runs as somebody else where that is root.
"""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

__all__ = ["INSTALL", "USER", "Postgres", "find"]

INSTALL = "install it: sudo apt-get install postgresql"
USER = "postgres"
START_S = 30.0

_SETTINGS = """
listen_addresses = ''
max_connections = 40
shared_buffers = 16MB
fsync = {fsync}
logging_collector = off
log_min_messages = fatal
autovacuum_naptime = 600
"""


def find(program: str) -> str | None:
    """Return the newest installed version of one of PostgreSQL's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: int(path.parts[4]))
    return str(found[-1]) if found else shutil.which(program)


def _program(name: str) -> str:
    found = find(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed; {INSTALL}")
    return found


def _as_user() -> list[str]:
    """Return what runs a program as somebody whom PostgreSQL accepts, and ends it when we die."""
    deathly = ["setpriv", "--pdeathsig", "KILL"]
    return [*deathly, f"--reuid={USER}", f"--regid={USER}", "--init-groups"] if os.geteuid() == 0 else deathly


class Postgres:
    """One server; ``url()`` makes an empty place on it."""

    def __init__(self, *, fsync: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="strop-pg-"))
        if os.geteuid() == 0:
            shutil.chown(self.folder, USER, USER)
        self._names, self._free = itertools.count(1), list[str]()
        self._process: subprocess.Popen[bytes] | None = None
        command = [*_as_user(), _program("initdb"), "-D", self.data, "-U", "strop", "-A", "trust", "-N", "-E", "UTF8"]
        subprocess.run([*command, "--locale=C"], check=True, capture_output=True, cwd="/", timeout=120)
        with Path(self.data, "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(_SETTINGS.format(fsync="on" if fsync else "off"))
        self.start()

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [*_as_user(), _program("postgres"), "-D", self.data, "-k", str(self.folder)]
        deadline = time.monotonic() + START_S
        self._process = None
        while not self._answers():
            if time.monotonic() > deadline:
                raise RuntimeError(Path(self.folder, "log").read_text(encoding="utf-8")[-2000:])
            if self._process is None or self._process.poll() is not None:
                # Refused while a process of a killed server still holds its memory: soon it does not.
                with Path(self.folder, "log").open("ab") as log:
                    self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
            time.sleep(0.02)

    def _answers(self) -> bool:
        import psycopg

        with contextlib.suppress(psycopg.Error):
            psycopg.connect(self._address("postgres"), connect_timeout=2).close()
            return True
        return False

    def _address(self, name: str) -> str:
        return f"postgresql://strop@/{name}?host={self.folder}"

    def url(self, *, own: bool = False) -> str:
        """Make a new schema, which costs far less than a database, and return the URL of whoever works in it.

        ``own``: a database for itself, as the lock of a leader asks for.
        """
        import psycopg

        if self._free and not own:
            return self._free.pop()
        name = f"t{next(self._names)}"
        with psycopg.connect(self._address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}" if own else f"CREATE SCHEMA {name}")
        if own:
            return self._address(name)
        return f"{self._address('postgres')}&options=-csearch_path%3D{name}"

    def give_back(self, url: str) -> None:
        """Empty the tables of a place that ``url`` made, for the next who asks: much cheaper than new ones."""
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            tables = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
            ).fetchall()
            connection.execute(";".join(f"DELETE FROM {name}" for (name,) in tables if name != "migrations") or ";")
        self._free.append(url)

    def kill(self) -> None:
        """SIGKILL to the server and to every process that it started."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in (self._process.pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Stop at once and remove the folder."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
