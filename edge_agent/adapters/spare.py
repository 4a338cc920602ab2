# SPDX-License-Identifier: Apache-2.0
"""What a device with an accelerator runs when that is gone: the bundle's file for a runtime of the CPU."""

import subprocess
from collections.abc import Container
from pathlib import Path
from typing import Final

from edge_contract.errors import ManifestError
from edge_contract.manifest import MANIFEST_NAME, Artefact, Manifest

__all__ = ["SPARES", "artefacts_for", "installed", "spare_runtime"]

SPARES: Final = ("litert", "tflite-runtime", "onnxruntime")
"""Runtimes of the CPU in the order in which they stand in for an accelerator."""
_MODULES: Final = {"litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime", "onnxruntime": "onnxruntime"}
_LOOK: Final = "import sys, importlib.util as u; print(*[m for m in sys.argv[1:] if u.find_spec(m)])"
_TIMEOUT_S: Final = 5.0


def artefacts_for(manifest: Manifest, runtime: str) -> tuple[Artefact, ...]:
    """Return what a device needs of a bundle: its runtime's artefact; of an Edge TPU's also the CPU's.

    Raises:
        ManifestError: No artefact for this runtime.
    """
    own = manifest.artefact_for(runtime)
    if runtime != "edgetpu":
        return (own,)
    spare = next((name for name in SPARES if any(name in a.runtimes for a in manifest.artefacts)), "")
    return tuple(dict.fromkeys((own, manifest.artefact_for(spare)))) if spare else (own,)


def spare_runtime(folder: Path, installed: Container[str]) -> str:
    """Return the first installed runtime of the CPU for which a slot holds a file; empty if there is none.

    Args:
        folder: A bundle's folder.
        installed: Runtimes that the runner's interpreter has.
    """
    try:
        manifest = Manifest.from_bytes((folder / MANIFEST_NAME).read_bytes())
    except (OSError, ManifestError):
        return ""
    for name in SPARES:
        able = [a for a in manifest.artefacts if name in a.runtimes]
        if name in installed and able and (folder / able[0].path).is_file():
            return name
    return ""


def installed(python: str) -> frozenset[str]:
    """Return the runtimes of the CPU that an interpreter could import; it is asked, since it need not be ours."""
    words = [python, "-P", "-c", _LOOK, *_MODULES.values()]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return frozenset()
    found = done.stdout.split()
    return frozenset(name for name, module in _MODULES.items() if module in found)
