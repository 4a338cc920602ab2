# SPDX-License-Identifier: Apache-2.0
"""Folders of unpacked Debian packages and wheels: a computer's files without that computer, and nothing installed.

A folder is built part by part in a draft under ``build/`` and renamed when it is whole, so that a build that was
interrupted goes on where it stopped and nobody meets half a folder. Package archives are the ones that this computer's
apt and pip are set up with.
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "ROOT",
    "CannotBuildError",
    "Place",
    "debian",
    "host_architecture",
    "pins",
    "require_tools",
    "script",
    "tell",
    "wheels",
]

ROOT = Path(__file__).resolve().parents[2]
FACTS = "made-of.json"
Part = Callable[[Path], None]


class CannotBuildError(Exception):
    """Something is missing; one line says what, and what to run."""


@dataclass(frozen=True)
class Place:
    """A built folder and what it is made of.

    Attributes:
        folder: Where it lies, such as ``.arm64`` in the repository.
        module: What builds it, such as ``tests.machines.arm64``.
        command: What a person runs to have it, such as ``make machines``.
        recipe: All that decides its content; another recipe means another build.
    """

    folder: Path
    module: str
    command: str
    recipe: Mapping[str, Any]

    @property
    def facts(self) -> str:
        """The recipe and the code that follows it, as text."""
        sources = (Path(__file__), ROOT / Path(*self.module.split(".")).with_suffix(".py"))
        code = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
        return json.dumps({**self.recipe, "code": code}, indent=1, sort_keys=True)

    def missing(self) -> str:
        """Return why the folder cannot be used, with the line to run; empty if it can."""
        try:
            found = (self.folder / FACTS).read_text("utf-8")
        except FileNotFoundError:
            return f"{self.folder.name} is missing: {self.command}"
        return "" if found == self.facts else f"{self.folder.name} is of another version: {self.command}"

    def build(self, parts: Mapping[str, Part], check: Part) -> None:
        """Make what is missing and put it in place; ``check`` looks at the finished draft first.

        Raises:
            CannotBuildError: A part could not be had, or the check failed; what was had stays for the next time.
        """
        digest = hashlib.sha256(self.facts.encode()).hexdigest()
        draft = self.folder.parent / "build" / f"{self.folder.name.strip('.')}-{digest[:12]}"
        with _alone(draft.parent / f"{self.folder.name.strip('.')}.lock"):
            if not self.missing():
                return  # another build was faster
            draft.mkdir(exist_ok=True)
            for name, make in parts.items():
                _part(draft, name, make)
            check(draft)
            (draft / FACTS).write_text(self.facts, "utf-8")
            self._put(draft)

    def _put(self, draft: Path) -> None:
        old = draft.with_name(f"{draft.name}.old")
        if self.folder.exists():
            self.folder.rename(old)
        draft.rename(self.folder)
        for left in draft.parent.glob(f"{draft.name.rpartition('-')[0]}-*"):  # the old one, and drafts of other recipes
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock; the system lets go of it when this process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _part(draft: Path, name: str, make: Part) -> None:
    if (draft / name).exists():
        return tell(f"{name}: is there")
    unfinished, start = draft / f"{name}.unfinished", time.monotonic()
    if unfinished.is_dir():
        shutil.rmtree(unfinished)
    make(unfinished)
    unfinished.rename(draft / name)
    return tell(f"{name}: {time.monotonic() - start:.1f} s")


def tell(text: str) -> None:
    """Say how far it is, on stderr."""
    print(text, file=sys.stderr, flush=True)


def require_tools(module: str) -> None:
    """Raise CannotBuildError without mmdebstrap or root, which it needs to unpack with the packages' own owners."""
    if shutil.which("mmdebstrap") is None:
        raise CannotBuildError("mmdebstrap is missing; run: apt-get install --no-install-recommends mmdebstrap")
    if os.geteuid() != 0:
        raise CannotBuildError(f"unpacking Debian packages needs root; run: sudo {sys.executable} -m {module}")


def host_architecture() -> str:
    """Return Debian's name of this computer's instruction set.

    Raises:
        CannotBuildError: Neither x86-64 nor ARM64.
    """
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    if platform.machine() not in names:
        raise CannotBuildError(f"this is a {platform.machine()} computer; use x86-64 or ARM64")
    return names[platform.machine()]


def debian(suite: str, architecture: str, packages: Sequence[str], folder: Path, only: str = "") -> None:
    """Unpack packages of a Debian suite with all that they need, running none of their scripts.

    Args:
        suite: Such as ``bookworm``.
        architecture: Debian's name, such as ``arm64``.
        packages: Their names.
        folder: Is made.
        only: Keep one file alone, such as ``/usr/bin/qemu-aarch64``.

    Raises:
        CannotBuildError: mmdebstrap failed; repeats its last line.
    """
    options = ["--quiet", "--variant=extract", f"--architectures={architecture}", f"--include={','.join(packages)}"]
    options += ["--dpkgopt=path-exclude=*", f"--dpkgopt=path-include={only}"] if only else []
    _run(
        ["mmdebstrap", *options, '--aptopt=Acquire::Retries "3"', suite, str(folder)], f"Debian {suite} {architecture}"
    )


def wheels(requirements: Sequence[str], folder: Path, python: str, platforms: Sequence[str]) -> None:
    """Unpack pinned wheels of another Python and platform, without what they depend on; raises as ``debian`` does."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--root-user-action=ignore", "--target", str(folder)]
    command += ["--implementation", "cp", "--python-version", python, *(f"--platform={name}" for name in platforms)]
    _run([*command, *requirements], f"wheels for Python {python}")


def _run(command: Sequence[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = [line for line in done.stderr.strip().splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        errors = [line for line in said if "E:" in line or line.startswith("ERROR")]
        raise CannotBuildError(f"{what} could not be had: {(errors or said)[-1].strip()[:300]}")


def pins(*names: str) -> tuple[str, ...]:
    """Return the lines of constraints.txt for packages, such as ``numpy==2.4.6``."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    found = {line.split("==")[0]: line for line in lines if "==" in line}
    return tuple(found[name] for name in names)


def script(path: Path, *lines: str) -> None:
    """Write an executable shell script that knows its own folder as ``$here``, wherever that is moved."""
    head = ("#!/bin/sh", "# Written by tests/machines.", 'here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)')
    path.write_text("\n".join((*head, *lines)) + "\n", "utf-8")
    path.chmod(0o755)
