# SPDX-License-Identifier: Apache-2.0
"""What stands above every table of a measurement: the machine, and the command that makes it again."""

import shlex
import sys
from collections.abc import Sequence

from benchmarks.machine import describe

__all__ = ["header"]


def header(module: str, words: Sequence[str] | None = None) -> tuple[str, str]:
    """Return machine and command of a measurement.

    Args:
        module: Its module, as after ``python -m``.
        words: Its arguments; those of this process if not given.

    Example:
        >>> header("benchmarks.fleet.page", ["--devices", "10"])[1]
        'python -m benchmarks.fleet.page --devices 10'
    """
    given = sys.argv[1:] if words is None else list(words)
    return str(describe()), shlex.join(["python", "-m", module, *given])
