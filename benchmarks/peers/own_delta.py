# SPDX-License-Identifier: Apache-2.0
"""Our own delta codec on a file of 2 MB from a seed: ``python -m benchmarks.peers.own_delta FOLDER`` prints figures."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final

import numpy as np

from edge_contract.errors import DeltaError
from export.delta import maker

__all__ = ["main", "measure", "pair"]

SIZE: Final = 2_000_000
_ROOT: Final = Path(__file__).parents[2]


def pair(size: int = SIZE) -> tuple[bytes, bytes]:
    """Return integers like a model's weights, and the same with one in ten moved by one step.

    Example:
        >>> old, new = pair(1000)
        >>> len(old), 50 < sum(a != b for a, b in zip(old, new)) < 150
        (1000, True)
    """
    draw = np.random.default_rng(0)
    old = np.clip(np.rint(draw.normal(0, 25, size)), -126, 126).astype(np.int8)
    moved = old + draw.choice(np.array([-1, 1], np.int8), size) * (draw.random(size) < 0.1)
    return old.tobytes(), moved.astype(np.int8).tobytes()


def measure(folder: Path, applications: int = 5) -> dict[str, list[float]]:
    """Return the figures of one launch.

    Raises:
        DeltaError: The patch did not give its file.
    """
    old, new = pair()
    began = perf_counter_ns()
    patch = maker.with_prefix(old, new)
    made_ms = (perf_counter_ns() - began) / 1e6
    files = {name: folder / f"delta-{name}" for name in ("base", "patch", "out")}
    files["base"].write_bytes(old)
    files["patch"].write_bytes(patch)
    times = [_applied(files, old, new) for _ in range(applications)]
    return {
        "delta: patch of 2 MB made": [made_ms],
        "delta: patch of 2 MB applied, process and all": times,
        "delta: its bytes": [float(len(patch))],
    }


def _applied(files: dict[str, Path], old: bytes, new: bytes) -> float:
    """Apply the patch in the device's helper; return milliseconds."""
    files["out"].unlink(missing_ok=True)
    digests = {"base_sha256": hashlib.sha256(old).hexdigest(), "sha256": hashlib.sha256(new).hexdigest()}
    request: dict[str, Any] = {name: str(path) for name, path in files.items()} | {"size": len(new), **digests}
    began = perf_counter_ns()
    command = [sys.executable, "-m", "edge_agent.delta"]
    done = subprocess.run(command, input=json.dumps(request).encode(), capture_output=True, check=True, cwd=_ROOT)
    spent = (perf_counter_ns() - began) / 1e6
    if files["out"].read_bytes() != new:
        raise DeltaError(f"the patch does not give its file: {done.stdout[:200]!r}", where=str(files["patch"]))
    return spent


def main() -> None:
    """Measure and print."""
    print(json.dumps(measure(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
