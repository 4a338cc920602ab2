# SPDX-License-Identifier: Apache-2.0
"""``python -m edge_agent.provision.proof FOLDER RUNTIME``: does a bundle answer right on this very board?

Started by the first boot with the interpreter that was just installed, before anything relies on it. The last line of
stdout is one JSON object: ``golden`` (``exact``, ``steps`` or ``tolerance``), ``detail``, ``delegate``, ``ms`` and
``bundle``.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from edge_contract.errors import StropError

__all__ = ["main", "prove"]


def prove(folder: Path, runtime: str) -> dict[str, Any]:
    """Load a bundle, let it answer its golden inputs, and return how that went.

    Raises:
        StropError: It cannot be loaded, or answers otherwise than it should.
    """
    from edge_agent.runner.commands import Load
    from edge_agent.runner.proving import Settings, proved

    start = time.perf_counter()
    model, tested = proved(Load("active", folder), Settings(runtime, None))
    took = (time.perf_counter() - start) * 1e3
    return {
        "golden": tested.how, "detail": tested.detail, "delegate": model.session.delegate,
        "bundle": model.bundle, "ms": round(took, 1),
    }  # fmt: skip


def main(words: list[str]) -> int:
    """Print the proof; exit code 0 if the model answers right."""
    if len(words) != 2:
        sys.stderr.write("error: usage: python -m edge_agent.provision.proof FOLDER RUNTIME\n")
        return 2
    try:
        print(json.dumps(prove(Path(words[0]), words[1]), sort_keys=True))
    except StropError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except ImportError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
