# SPDX-License-Identifier: Apache-2.0
"""tflite-runtime, the older name of LiteRT: for boards whose system is old, and for the Edge TPU delegate."""

from pathlib import Path
from typing import Final

import numpy as np

from edge_agent.runner.runtimes.base import import_runtime
from edge_agent.runner.runtimes.litert import InterpreterSession, open_interpreter
from edge_contract.errors import MissingDependencyError
from edge_contract.manifest import Artefact

__all__ = ["open_file", "version"]

_PACKAGE: Final = ("tflite-runtime", "agent-tflite")


def version() -> str:
    """Return the installed tflite-runtime's version.

    Raises:
        MissingDependencyError: It is not installed, or numpy 2 is: it imports beside it and fails at the first model.
    """
    found = str(import_runtime("tflite_runtime", *_PACKAGE).__version__)
    if int(np.__version__.split(".", maxsplit=1)[0]) >= 2:
        what = f"tflite-runtime {found} cannot work with numpy {np.__version__}"
        raise MissingDependencyError(what, fix="pip install 'numpy<2' in an environment of its own")
    return found


def open_file(path: Path, artefact: Artefact, threads: int) -> InterpreterSession:
    """Load a TFLite file in tflite-runtime; raises as ``version`` and ``open_interpreter`` do."""
    found = version()
    module = import_runtime("tflite_runtime.interpreter", *_PACKAGE)
    return open_interpreter(module.Interpreter, path, artefact, threads, ("tflite-runtime", found))
