# SPDX-License-Identifier: Apache-2.0
"""``python -m export.delta BASE TARGET OUT``: make one patch, print its facts in one line of JSON, and end.

What the fleet server runs, at low priority and in a process of its own, so that a large model costs it neither
memory nor time. ``OUT`` appears only if the patch is worth it. BASE may be ``-`` for an empty one.
"""

import json
import os
import sys
from pathlib import Path

from edge_contract.errors import StropError, UsageError

USAGE = "python -m export.delta BASE TARGET OUT"


def main(words: list[str]) -> int:
    """Make the patch; return the exit code."""
    try:
        if len(words) != 3:
            raise UsageError(f"{len(words)} words", fix=USAGE)
        from export.delta.maker import make

        base, target = (Path(word).read_bytes() if word != "-" else b"" for word in words[:2])
        patch = make(base, target)
    except StropError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except ImportError as error:
        sys.stderr.write(f"error: {error.name or error} is not installed; pip install 'strop[fleet]'\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    if patch.is_worth_it:
        Path(words[2]).write_bytes(patch.data)
    sys.stdout.write(json.dumps({key: value for key, value in patch.to_json().items() if key != "tensors"}) + "\n")
    return 0


if __name__ == "__main__":
    os.nice(10)  # here and not in main: whoever calls that in a process of his own keeps his priority
    raise SystemExit(main(sys.argv[1:]))
