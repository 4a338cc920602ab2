# SPDX-License-Identifier: Apache-2.0
"""Where everything goes on a board. Every path begins at a root, which is ``/`` but in tests and image builders."""

import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_contract.errors import StropError

__all__ = ["USER", "Place", "Ran"]

USER: Final = "strop"
_PATIENCE_S: Final = 600.0


@dataclass(frozen=True)
class Ran:
    """How a program ended: its exit code, the last line that it said, and the last one on stdout."""

    code: int
    said: str
    answer: str = ""


@dataclass(frozen=True)
class Place:
    """A file system to be set up.

    Attributes:
        root: Where it begins.
        systemctl: The program that manages services; empty: systemd, where it runs this very system.
    """

    root: Path = Path("/")
    systemctl: str = ""

    @property
    def is_this_system(self) -> bool:
        """False in an image or a test: then no user is made and no owner is changed."""
        return self.root == Path("/")

    @property
    def data(self) -> Path:
        """The agent's data folder."""
        return self.root / "var/lib/strop"

    @property
    def software(self) -> Path:
        """The environment with the agent and its runtime."""
        return self.root / "opt/strop"

    @property
    def python(self) -> Path:
        """The interpreter of that environment."""
        return self.software / "bin" / "python"

    @property
    def memory(self) -> Path:
        """What the first boot remembers: on the root file system, never on FAT."""
        return self.root / "var/lib/strop-first-boot"

    @property
    def units(self) -> Path:
        """Units of the administrator."""
        return self.root / "etc/systemd/system"

    @property
    def rules(self) -> Path:
        """Rules of udev."""
        return self.root / "etc/udev/rules.d"

    def service(self, *words: str) -> Ran:
        """Run ``systemctl``; code 127 where services begin at the next start, or are somebody else's affair."""
        is_here = self.is_this_system and Path("/run/systemd/system").is_dir()  # as sd_booted(3) asks
        program = self.systemctl or ("systemctl" if is_here else "")
        if not program or shutil.which(program) is None:
            return Ran(127, "systemd does not run this system")
        return self.run([program, *words])

    def run(self, words: Sequence[str]) -> Ran:
        """Run a program to its end; return how it ended.

        Raises:
            StropError: It cannot be started, or takes too long.
        """
        try:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=_PATIENCE_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StropError(f"cannot run: {error}", where=words[0]) from error
        return Ran(done.returncode, _last(f"{done.stdout}\n{done.stderr}")[:300], _last(done.stdout))

    def give(self, paths: Iterable[Path]) -> None:
        """Let the agent's user own paths and all that is in them."""
        if not self.is_this_system or os.geteuid() != 0:
            return
        owner = pwd.getpwnam(USER)
        for top in paths:
            for folder, names, files in os.walk(top):
                for name in ("", *names, *files):
                    with contextlib.suppress(FileNotFoundError):  # the agent works in there meanwhile
                        os.chown(Path(folder, name), owner.pw_uid, owner.pw_gid, follow_symlinks=False)


def _last(text: str) -> str:
    """Return the last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
