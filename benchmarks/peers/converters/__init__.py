# SPDX-License-Identifier: Apache-2.0
"""One quantizer each, run as ``python -m benchmarks.peers.converters.NAME MATERIAL OUTPUT SETTING`` in its environment.

MATERIAL is a folder with ``float.onnx``, ``float.tflite``, ``calibration.npy`` and ``net.json``; files go into OUTPUT;
SETTING is a JSON object. They import nothing of Strop but this package, because a peer's environment has none of our
dependencies; ``ours`` is the exception.
"""

import contextlib
import importlib
import importlib.metadata
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Convert", "main", "peak_mib"]

Convert = Callable[[Path, Path, dict[str, Any]], tuple[str, ...]]


def peak_mib() -> float:
    """Return the largest resident memory of this process so far in MiB: ``VmHWM``."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def main(convert: Convert, *modules: str) -> None:
    """Run one conversion from the command line; it returns the packages on which its result depends.

    What it cost after the import of ``modules``, and the packages' versions, go into ``facts.json``.
    """
    material, output, setting = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    for module in modules:
        importlib.import_module(module)
    start = time.process_time()
    with contextlib.redirect_stdout(sys.stderr):  # some report their progress on stdout
        packages = convert(material, output, setting)
    facts = {
        "convert_cpu_s": time.process_time() - start,
        "peak_mib": peak_mib(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    (output / "facts.json").write_text(json.dumps(facts, sort_keys=True), encoding="utf-8")
