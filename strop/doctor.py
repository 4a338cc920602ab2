# SPDX-License-Identifier: Apache-2.0
"""``strop doctor``: what is installed, what is missing, and the line that installs it.

A role is judged if it was asked for by name, or if it is in use: the package that stands for it is installed.
So a device with the agent extra is healthy without torch, and a workstation is not told to install a broker
before it has the fleet extra.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from edge_contract.errors import UsageError
from strop.requirements import extras_of, installed_version, satisfies

__all__ = ["Diagnosis", "Package", "Program", "Role", "examine"]

# The package whose presence says that somebody wanted the role: the others may be there for another one.
_STANDS_FOR: Final = {
    "workstation": "torch",
    "search": "optuna",
    "ray": "ray",
    "tensorflow": "tensorflow-cpu",
    "agent": "paho-mqtt",
    "agent-litert": "ai-edge-litert",
    "agent-onnx": "onnxruntime",
    "agent-tflite": "tflite-runtime",
    "agent-camera": "opencv-python-headless",
    "agent-microphone": "pyalsaaudio",
    "fleet": "fastapi",
    "flash": "segno",
    "postgres": "psycopg",
    "s3": "boto3",
    "parquet": "pyarrow",
    "examples": "mlxtend",
    "dev": "pytest",
}
_PROGRAM_FOLDERS: Final = ("/usr/sbin", "/usr/local/sbin")  # Debian keeps brokers there, outside a user's PATH
_CHROMIUM: Final = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Package:
    """One Python package: what is asked for, what is there (empty: nothing)."""

    name: str
    bounds: str
    installed: str
    is_ok: bool


@dataclass(frozen=True)
class Role:
    """One extra. ``state`` is ready, incomplete or absent; ``install`` completes it."""

    name: str
    state: str
    is_judged: bool
    packages: tuple[Package, ...]
    install: str


@dataclass(frozen=True)
class Program:
    """One program outside Python. ``found`` is a path or version, empty if there is none."""

    name: str
    purpose: str
    found: str
    is_needed: bool
    install: str


@dataclass(frozen=True)
class Diagnosis:
    """Everything that the doctor saw."""

    strop: str
    python: str
    machine: str
    roles: tuple[Role, ...]
    programs: tuple[Program, ...]

    @property
    def is_healthy(self) -> bool:
        """True if every judged role is complete and every needed program is there."""
        return not self.install_lines

    @property
    def install_lines(self) -> tuple[str, ...]:
        """What to run to become healthy, in order."""
        roles = [role.install for role in self.roles if role.is_judged and role.state != "ready"]
        programs = [program.install for program in self.programs if program.is_needed and not program.found]
        return tuple(dict.fromkeys(programs + roles))

    def to_json(self) -> str:
        """Return one JSON object."""
        document = {**asdict(self), "healthy": self.is_healthy, "install": self.install_lines}
        return json.dumps(document, indent=2)

    def to_text(self) -> str:
        """Return a table for people."""
        lines = [f"strop {self.strop} · python {self.python} · {self.machine}", ""]
        for role in self.roles:
            lines.append(f"{role.name:<13} {role.state}")
            if role.state != "absent" or role.is_judged:
                lines += [
                    f"  {_mark(p.is_ok)} {p.name:<18} {p.installed or 'missing':<14} {p.bounds}" for p in role.packages
                ]
        lines += ["", "programs"]
        for program in self.programs:
            mark = _mark(program.found) if program.is_needed or program.found else "·"
            lines.append(f"  {mark} {program.name:<18} {program.found or 'missing'}   ({program.purpose})")
        lines += ["", *(f"run: {line}" for line in self.install_lines)]
        return "\n".join(lines + (["healthy"] if self.is_healthy else [])).rstrip()


def _mark(found: object) -> str:
    return "✓" if found else "✗"


def _role(name: str, asked: tuple[str, ...]) -> Role:
    packages = tuple(
        Package(r.name, r.bounds, version := installed_version(r.name), satisfies(version, r.bounds))
        for r in extras_of().get(name, ())
    )
    stands_for = _STANDS_FOR.get(name, "")
    in_use = any(package.name == stands_for and package.installed for package in packages)
    is_complete = all(package.is_ok for package in packages)
    state = "ready" if is_complete else "incomplete" if in_use else "absent"
    return Role(name, state, name in asked if asked else in_use, packages, f"pip install 'strop[{name}]'")


def _which(*names: str) -> str:
    path = os.pathsep.join((os.environ.get("PATH", ""), *_PROGRAM_FOLDERS))
    return next((found for name in names if (found := shutil.which(name, path=path))), "")


def _answer(*command: str) -> str:
    """Return what a program prints, empty if it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def _mosquitto() -> str:
    path = _which("mosquitto")
    version = re.search(r"mosquitto version (\S+)", _answer(path, "-h")) if path else None
    return f"{path} {version[1]}" if version else path


def _old_tflite() -> str:
    """Return the interpreter of the second environment with its runtime's version."""
    places = [base / ".venv-tflite/bin/python" for base in (Path.cwd(), Path(__file__).resolve().parents[1])]
    beside = next((place for place in places if place.exists()), places[0])
    python = os.environ.get("STROP_TFLITE_PYTHON", str(beside))
    question = "from importlib.metadata import version as v; print(v('tflite-runtime'), 'numpy', v('numpy'))"
    found = _answer(python, "-c", question).strip() if Path(python).exists() else ""
    return f"{python} {found}" if re.match(r"\d", found) else ""


def _programs(judged: frozenset[str]) -> tuple[Program, ...]:
    return (
        Program("mosquitto", "the fleet server's broker", _mosquitto(), "fleet" in judged, "apt-get install mosquitto"),
        Program(
            "chromium", "tests that open the web page", _which(*_CHROMIUM), "dev" in judged, "apt-get install chromium"
        ),
        Program(
            "tflite-runtime", "old boards; its own environment, numpy < 2", _old_tflite(), "dev" in judged, "make venv"
        ),
        Program(
            "edgetpu_compiler", "optional: compiles for a Coral", _which("edgetpu_compiler"), False, "see coral.ai"
        ),
    )


def examine(asked: tuple[str, ...] = ()) -> Diagnosis:
    """Look at this Python and this machine.

    Args:
        asked: Roles to judge; empty judges the roles in use.

    Raises:
        UsageError: A role that this distribution does not have.
    """
    known = [extra for extra in extras_of() if extra]
    for name in asked:
        if name not in known:
            raise UsageError(f"unknown role '{name}'", where="strop doctor", fix=f"use one of {', '.join(known)}")
    roles = tuple(_role(name, asked) for name in known)
    judged = frozenset(role.name for role in roles if role.is_judged)
    machine = f"{platform.system()} {platform.machine()}"
    return Diagnosis(installed_version("strop"), sys.version.split()[0], machine, roles, _programs(judged))
