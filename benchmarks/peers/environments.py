# SPDX-License-Identifier: Apache-2.0
"""Build the peers' environments: ``python -m benchmarks.peers.environments [google] [nncf] [agents]``.

Each has exact pins in a file beside this one, because a quantizer's result depends on all of them. ``TORCH_OPTIONS``
chooses where pip takes torch from, as for ``make venv``. ONNX Runtime's quantizer needs nothing beyond our own
environment.
"""

import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

from edge_contract.errors import MissingDependencyError, UsageError

__all__ = ["ENVIRONMENTS", "ROOT", "build", "digest", "python"]

ROOT: Final = Path(__file__).resolve().parents[2]
ENVIRONMENTS: Final = {
    "main": "our own: ONNX Runtime's quantizer, and ours",
    "google": "litert-torch, ai-edge-quantizer and torchao",
    "nncf": "NNCF with its ONNX backend",
    "agents": "device clients of other fleets",
}


def _pins(name: str) -> Path:
    return ROOT / "constraints.txt" if name == "main" else Path(__file__).with_name(f"pins-{name}.txt")


def digest(name: str) -> str:
    """Return a digest of an environment's pins; a row depends on it."""
    if name not in ENVIRONMENTS:
        raise UsageError(f"unknown environment '{name}'", fix=f"use one of {', '.join(ENVIRONMENTS)}")
    return hashlib.sha256(_pins(name).read_bytes()).hexdigest()[:16]


def _folder(name: str) -> Path:
    return ROOT / f".venv-peers-{name}"


def _stamp(name: str) -> Path:
    return _folder(name) / f".strop-{digest(name)}"


def python(name: str) -> Path:
    """Return the interpreter of an environment that was built with today's pins.

    Raises:
        MissingDependencyError: It was not built, or with other pins.
        UsageError: An unknown environment.
    """
    if name == "main":
        return Path(sys.executable)
    if not _stamp(name).exists():
        fix = f"python -m benchmarks.peers.environments {name}"
        raise MissingDependencyError(f"the environment of {ENVIRONMENTS[name]} is not built", fix=fix)
    return _folder(name) / "bin/python"


def build(name: str) -> None:
    """Build one environment from its pins, unless it is there already; torch first and alone, as in the Makefile.

    Raises:
        MissingDependencyError: pip failed; its own words are on stderr.
        UsageError: An unknown environment.
    """
    if name == "main" or _stamp(name).exists():
        return
    pip = [str(_folder(name) / "bin/python"), "-m", "pip", "install", "--quiet"]
    torch = [line for line in _pins(name).read_text(encoding="utf-8").splitlines() if line.startswith("torch==")]
    steps = [[sys.executable, "-m", "venv", "--clear", str(_folder(name))]]
    steps += [[*pip, *shlex.split(os.environ.get("TORCH_OPTIONS", "")), pin] for pin in torch]
    steps += [[*pip, "--requirement", str(_pins(name))], [*pip[:3], "check"]]
    for step in steps:
        print(shlex.join(step), file=sys.stderr)
        if subprocess.run(step, check=False).returncode != 0:
            raise MissingDependencyError(
                f"cannot be built: {shlex.join(step)}", where=name, fix="see pip's words above"
            )
    _stamp(name).touch()


if __name__ == "__main__":
    for wanted in sys.argv[1:] or [name for name in ENVIRONMENTS if name != "main"]:
        build(wanted)
