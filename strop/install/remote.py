# SPDX-License-Identifier: Apache-2.0
"""A board behind OpenSSH: run a program there, send files there. Nothing is asked, and host keys are always checked.

Only the programs ``ssh`` and its configuration know keys and hosts; no secret ever stands on a command line, since
everything that is sent goes through stdin.
"""

import io
import json
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_contract.errors import DownloadError, MissingDependencyError, StropError, UsageError

__all__ = ["Board", "Remote"]

_PROBE: Final = (
    "import json,os,shutil,sys;m=os.uname().machine;"
    "m='armv7l' if m=='aarch64' and sys.maxsize<1<<32 else m;"
    "print(json.dumps({'python':'%d.%d'%sys.version_info[:2],'machine':m,'root':os.geteuid()==0,"
    "'sudo':bool(shutil.which('sudo')),'home':os.path.expanduser('~'),'free':shutil.disk_usage('/').free}))"
)
_UNREACHED: Final = 255
"""Exit code by which ssh says that it could not connect, or was not let in."""


@dataclass(frozen=True)
class Board:
    """What a board says of itself: Python and processor, whether we are root there or may become it, free bytes."""

    python: str
    machine: str
    is_root: bool
    has_sudo: bool
    home: str
    free: int


@dataclass(frozen=True)
class Remote:
    """One board.

    Attributes:
        target: ``user@host``, or a name of the ssh configuration.
        config: Another configuration file than the user's own.
    """

    target: str
    config: Path | None = None

    def __post_init__(self) -> None:
        if not self.target or self.target.startswith("-") or any(sign.isspace() for sign in self.target):
            raise UsageError(f"'{self.target}' is no host", fix="write user@host")
        if shutil.which("ssh") is None:
            raise MissingDependencyError("ssh is not installed", fix="apt-get install openssh-client")

    def words(self, command: str) -> list[str]:
        """Return the command line that runs a shell command there."""
        own = ["-F", str(self.config)] if self.config else []
        return ["ssh", *own, "-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "--", self.target, command]

    def run(self, command: Iterable[str], data: bytes = b"") -> str:
        """Run a program there with bytes on its stdin; return its stdout.

        Raises:
            DownloadError: No way to the board, or it does not let us in.
            StropError: The program failed there.
        """
        words = list(command)
        done = subprocess.run(self.words(shlex.join(words)), input=data, capture_output=True, check=False)
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        if done.returncode == _UNREACHED:
            fix = f"make 'ssh {self.target}' work without a question: key, known host key"
            raise DownloadError(said[0], where=f"ssh {self.target}", fix=fix)
        if done.returncode != 0:
            raise StropError(f"code {done.returncode}: {said[0]}", where=f"{self.target}: {words[0]}")
        return done.stdout.decode(errors="replace")

    def follow(self, command: Iterable[str]) -> int:
        """Run a program there, let its words be seen here, and return its exit code."""
        return subprocess.run(self.words(shlex.join(command)), stdin=subprocess.DEVNULL, check=False).returncode

    def probe(self) -> Board:
        """Return what the board is; raises as ``run``, and UsageError for one without Python 3."""
        try:
            found = json.loads(self.run(["python3", "-I", "-c", _PROBE]).strip().splitlines()[-1])
        except (ValueError, IndexError) as error:
            raise UsageError(
                "python3 does not answer there", where=self.target, fix="apt-get install python3"
            ) from error
        facts = (found["python"], found["machine"], found["root"], found["sudo"], found["home"])
        return Board(*(facts), int(found["free"]))

    def digests(self, folder: str, names: Iterable[str]) -> dict[str, str]:
        """Return name → SHA-256 of the files that are there already."""
        script = 'cd "$1" 2>/dev/null || exit 0; shift; for f; do [ -f "$f" ] && sha256sum -- "$f"; done; exit 0'
        told = self.run(["sh", "-c", script, "sh", folder, *names])
        pairs = (line.split("  ", 1) for line in told.splitlines() if "  " in line)
        return {name: digest for digest, name in pairs}

    def send(self, folder: str, files: Mapping[str, bytes | Path]) -> None:
        """Write files below a folder there, for its owner alone; raises as ``run``."""
        script = 'umask 077; mkdir -p "$1" && tar -x -f - -C "$1"'
        self.run(["sh", "-c", script, "sh", folder], _packed(files))


def _packed(files: Mapping[str, bytes | Path]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.read_bytes()
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o600
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()
