# SPDX-License-Identifier: Apache-2.0
"""What every inference runtime looks like to us, and the one door to them."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from numpy.typing import NDArray

from edge_agent.runner.runtimes.lending import Lent
from edge_contract.errors import MissingDependencyError, RuntimeAdapterError
from edge_contract.manifest import Artefact, TensorSpec

__all__ = ["Session", "import_runtime", "open_session", "require", "runtime_version"]

Array = NDArray[Any]

_ADAPTERS: Final = {
    "litert": "edge_agent.runner.runtimes.litert",
    "onnxruntime": "edge_agent.runner.runtimes.onnx",
    "tflite-runtime": "edge_agent.runner.runtimes.tflite",
    "edgetpu": "edge_agent.runner.runtimes.edgetpu",
}
_WITH_DELEGATES: Final = ("onnxruntime", "edgetpu")


class Session(Protocol):
    """A model file loaded in a runtime. Not thread-safe.

    Attributes:
        runtime: ``litert``, ``onnxruntime``, ``tflite-runtime`` or ``edgetpu``.
        version: The runtime's own version: it decides the integers, together with the delegate.
        delegate: Which kernels run: ``xnnpack``, ``builtin`` (the interpreter's own), ``edgetpu``, ``cpu`` (ONNX
            Runtime's own) or another provider of ONNX Runtime by its short name.
    """

    runtime: str
    version: str
    delegate: str

    room: Callable[[], Array] | None
    """Gives the runtime's own memory of the input [1, …], to be written before ``run(None)``; None: it has none to
    give. Hold what it gives in no variable: LiteRT does not run while one does."""

    def run(self, x: Array | None, /) -> dict[str, Array]:
        """Return output name → array for one input in the artefact's type and layout; None: it stands in ``room``.

        Raises:
            RuntimeAdapterError: The runtime failed.
        """
        ...

    def lend(self, names: Mapping[str, str], /) -> Lent:
        """Lend the memory of the input, and of the outputs in ``names`` (output name → key)."""
        ...


def open_session(path: Path, artefact: Artefact, runtime: str, threads: int = 1, delegate: str = "") -> Session:
    """Load a model file in a runtime.

    Args:
        path: The file.
        artefact: What the file says to be; the runtime must find the same tensors in it.
        runtime: ``litert``, ``onnxruntime``, ``tflite-runtime`` or ``edgetpu``.
        threads: Threads for one inference.
        delegate: Of onnxruntime the execution provider, such as ``openvino``; of edgetpu the delegate's library.

    Raises:
        RuntimeAdapterError: No such runtime, it refuses the file, or the file has other tensors than described.
        MissingDependencyError: The runtime is not installed.
    """
    adapter = _adapter(runtime)
    if not path.is_file():  # each runtime would word it in its own way
        raise RuntimeAdapterError("no such model file", where=str(path))
    if delegate and runtime not in _WITH_DELEGATES:
        fix = f"leave it out, or use {' or '.join(_WITH_DELEGATES)}"
        raise RuntimeAdapterError(f"{runtime} takes no delegate '{delegate}'", where=str(path), fix=fix)
    words = (delegate,) if delegate else ()
    session: Session = adapter.open_file(path, artefact, threads, *words)
    return session


def runtime_version(runtime: str) -> str:
    """Return the version of an installed runtime; raises as ``open_session`` does."""
    return str(_adapter(runtime).version())


def _adapter(runtime: str) -> Any:
    if runtime not in _ADAPTERS:
        fix = f"use one of {', '.join(_ADAPTERS)}"
        raise RuntimeAdapterError(f"no adapter for runtime '{runtime}'", fix=fix)
    return importlib.import_module(_ADAPTERS[runtime])


def import_runtime(module: str, package: str, extra: str) -> Any:
    """Return an imported runtime module.

    Raises:
        MissingDependencyError: It is not installed, or does not fit the numpy beside it.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, AttributeError) as error:
        what = f"{package} cannot be imported ({error})"
        raise MissingDependencyError(what, fix=f"pip install 'strop[{extra}]'") from error


def require(spec: TensorSpec, shape: tuple[int, ...], dtype: str, where: str) -> None:
    """Compare a described tensor with the one that the runtime found; 0 or -1 marks a free dimension.

    Raises:
        RuntimeAdapterError: Another type, rank or size.
    """
    free = {0, -1}
    same = len(shape) == len(spec.shape) and all(
        a == b or a in free or b in free for a, b in zip(shape, spec.shape, strict=True)
    )
    if not same or dtype != spec.dtype:
        what = f"tensor '{spec.name}' is {dtype} {list(shape)} in the file, {spec.dtype} {list(spec.shape)} by its word"
        raise RuntimeAdapterError(what, where=where, fix="export the artefact again")
