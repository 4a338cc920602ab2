# SPDX-License-Identifier: Apache-2.0
"""The Edge TPU through its delegate: a shared library that takes over what was compiled for it.

``delegate`` names the library, with options behind a question mark: ``libedgetpu.so.1?device=usb:0``. The interpreter
is tflite-runtime's where that is installed (Coral's own pairing), else LiteRT's: both load delegates by one interface.
"""

import ctypes
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

from edge_agent.runner.runtimes import litert, tflite
from edge_agent.runner.runtimes.base import import_runtime
from edge_agent.runner.runtimes.litert import InterpreterSession, open_interpreter
from edge_contract.errors import DeviceError, MissingDependencyError
from edge_contract.manifest import Artefact

__all__ = ["LIBRARY", "open_file", "version", "with_delegate"]

LIBRARY: Final = "libedgetpu.so.1"


def version() -> str:
    """Return the interpreter that loads the delegate, and its version, such as ``tflite-runtime 2.14.0``."""
    return _interpreter()[1]


def _interpreter() -> tuple[Any, str]:
    """Return the interpreter's module and its name with version; raises MissingDependencyError without any."""
    try:
        release = tflite.version()
        return import_runtime(
            "tflite_runtime.interpreter", "tflite-runtime", "agent-tflite"
        ), f"tflite-runtime {release}"
    except MissingDependencyError:
        release = litert.version()
        return import_runtime("ai_edge_litert.interpreter", "ai-edge-litert", "agent-litert"), f"litert {release}"


def open_file(path: Path, artefact: Artefact, threads: int, delegate: str = "") -> InterpreterSession:
    """Load a file for the Edge TPU.

    Raises:
        MissingDependencyError: No interpreter, or the library is not installed.
        DeviceError: The delegate finds no device.
        RuntimeAdapterError: The interpreter refuses the file.
    """
    kind, name = with_delegate(path, delegate)
    session = open_interpreter(kind, path, artefact, threads, ("edgetpu", name))
    session.delegate = "edgetpu"
    return session


def with_delegate(path: Path, delegate: str = "") -> tuple[Any, str]:
    """Return an interpreter class that has the delegate in it, and its name; raises as ``open_file`` does."""
    module, name = _interpreter()
    library, _, words = (delegate or LIBRARY).partition("?")
    try:
        ctypes.PyDLL(
            library
        )  # load_delegate of a library that is not there leaves half an object, which cannot be freed
        loaded = module.load_delegate(library, dict(parse_qsl(words)))
    except OSError as error:
        fix = "install libedgetpu1-std, or name the library: --delegate /path/libedgetpu.so.1"
        raise MissingDependencyError(f"{library} cannot be loaded ({error})", fix=fix) from error
    except (ValueError, RuntimeError) as error:
        fix = "is the Coral plugged in? after a re-plug wait a second"
        raise DeviceError(f"{library} gives no delegate: {error}", where=str(path), fix=fix) from error
    return partial(module.Interpreter, experimental_delegates=[loaded]), name
