# SPDX-License-Identifier: Apache-2.0
"""Ask a program in another interpreter: one JSON line on stdout, or its complaint as an error."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Final

from edge_contract.errors import MissingDependencyError, RuntimeAdapterError

__all__ = ["ask", "environment"]

_TIMEOUT_S: Final = 600
_OURS: Final = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "PYTHONWARNINGS")


def environment(**added: str) -> dict[str, str]:
    """Return this process's environment without what would point another Python at our packages."""
    return {key: value for key, value in os.environ.items() if key not in _OURS} | added


def ask(command: Sequence[str], env: Mapping[str, str], *, where: str) -> dict[str, Any]:
    """Return the last line that a command prints, a JSON object.

    Args:
        command: Program and arguments.
        env: Its environment.
        where: Names it in errors.

    Raises:
        MissingDependencyError: It cannot be started.
        RuntimeAdapterError: It fails (its last line on stderr is repeated), takes ten minutes, or prints no JSON.
    """
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except OSError as error:
        raise MissingDependencyError(f"cannot be started ({error.strerror})", where=where) from error
    except subprocess.TimeoutExpired as error:
        raise RuntimeAdapterError(f"gave no answer in {_TIMEOUT_S} s", where=where) from error
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        raise RuntimeAdapterError(_reason(done), where=where, fix="run the same command by hand")
    try:
        found = json.loads(lines[-1])
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RuntimeAdapterError(f"answers {lines[-1][:100]!r}, which is no JSON object", where=where)
    return found


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    said = [line for line in done.stderr.strip().splitlines() if line]
    if done.returncode < 0:  # the runtime crashed; what it wrote before is no complaint
        return f"was killed by signal {-done.returncode}"
    return said[-1].removeprefix("error: ")[:500] if said else f"exit code {done.returncode}"
