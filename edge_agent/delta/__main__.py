# SPDX-License-Identifier: Apache-2.0
"""``python -m edge_agent.delta``: apply one patch, say how it went in one line of JSON, and end.

One JSON request on stdin, one JSON answer on stdout::

    {"base": PATH, "patch": PATH, "out": PATH, "base_sha256": HEX, "sha256": HEX, "size": BYTES}
        → {"ok": true, "size": BYTES, "peak_rss_kb": KB, "seconds": S}
        → {"ok": false, "blame": "patch" | "base" | "here", "what": …, "where": …, "fix": …}

``blame`` tells whether another device would fail as well: the patch itself, this device's base, or this device
(disk, memory, a package that is missing).
"""

import contextlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any, Final

from edge_contract import canonical
from edge_contract.errors import BundleError, DeltaError, MessageError, MissingDependencyError, StropError
from edge_contract.fields import Fields

__all__ = ["answer", "main"]

_MAX_REQUEST_BYTES: Final = 100_000
_ADDRESS_SPACE: Final = 512 << 20
"""A net below the bounds of the format: whatever a hostile patch finds, the board's memory is not it."""


def _applied(data: bytes) -> dict[str, Any]:
    request = Fields(canonical.loads(data, where="request"), "request", MessageError)
    began = time.monotonic()
    try:
        from edge_agent.delta.apply import Wanted, apply
    except ImportError as error:
        fix = "pip install 'strop[agent]'"
        raise MissingDependencyError(f"{error.name or error} is not installed", fix=fix) from error
    wanted = Wanted(request.digest("base_sha256"), request.digest("sha256"), request.integer("size", minimum=0))
    base, patch, out = (Path(request.text(name)) for name in ("base", "patch", "out"))
    size = apply(base, patch, out, wanted)
    return {"ok": True, "size": size, "peak_rss_kb": _peak_kb(), "seconds": round(time.monotonic() - began, 3)}


def _peak_kb() -> int:
    """Return the most memory that this process held; ``ru_maxrss`` would count the parent's, from before exec, too."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def answer(data: bytes) -> dict[str, Any]:
    """Return the answer to a request; whatever goes wrong is an answer, too.

    Example:
        >>> answer(b"{}")["blame"]
        'here'
    """
    try:
        return _applied(data)
    except StropError as error:
        blame = "patch" if isinstance(error, DeltaError) else "base" if isinstance(error, BundleError) else "here"
        return {"ok": False, "blame": blame, "what": error.what, "where": error.where, "fix": error.fix}
    except Exception as error:
        return {"ok": False, "blame": "here", "what": f"{type(error).__name__}: {error}", "where": "delta", "fix": ""}


def main() -> int:
    """Answer one request; exit code 0 if the result is there."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, resource.getrlimit(resource.RLIMIT_AS)[1]))
    with contextlib.suppress(OSError):  # if the board runs out of memory, this process goes, and not the inference
        Path("/proc/self/oom_score_adj").write_text("1000")
    reply = answer(sys.stdin.buffer.read(_MAX_REQUEST_BYTES))
    sys.stdout.buffer.write(json.dumps(reply, sort_keys=True).encode())
    sys.stdout.flush()
    return 0 if reply["ok"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
