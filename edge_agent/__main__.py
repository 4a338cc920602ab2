# SPDX-License-Identifier: Apache-2.0
"""``python -m edge_agent --data DIR``: the control process. Its arguments are few, so that argparse is not loaded."""

import sys
from pathlib import Path

from edge_contract.errors import StropError, UsageError

USAGE = "usage: python -m edge_agent --data DIR [--quiet] [--debug] [--check]"


def _options(words: list[str]) -> tuple[Path, bool]:
    """Return the data folder and whether stderr stays silent.

    Raises:
        UsageError: Unknown or missing words.
    """
    data, rest = "", list(words)
    while rest:
        word = rest.pop(0)
        if word == "--data" and rest:
            data = rest.pop(0)
        elif word.startswith("--data="):
            data = word.removeprefix("--data=")
        elif word not in ("--quiet", "--debug", "--check"):
            raise UsageError(f"unknown word '{word}'", fix=USAGE)
    if not data:
        raise UsageError("--data is missing", fix=USAGE)
    return Path(data).resolve(), "--quiet" in words


def main(words: list[str]) -> int:
    """Run the agent; return the exit code."""
    if "--help" in words or "-h" in words:
        sys.stdout.write(USAGE + "\n")
        return 0
    try:
        data, is_quiet = _options(words)
        if "--check" in words:
            from edge_agent.software.check import main as check

            return check(data)
        from edge_agent.lean import postpone

        postpone("urllib.request")  # before paho, which imports it and does not use it here
        from edge_agent.process import run

        return run(data, is_quiet=is_quiet)
    except StropError as error:
        if "--debug" in words:
            raise
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except ImportError as error:
        sys.stderr.write(f"error: {error.name or error} is not installed; pip install 'strop[agent]'\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
