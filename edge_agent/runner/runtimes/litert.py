# SPDX-License-Identifier: Apache-2.0
"""LiteRT (ai-edge-litert), and what tflite-runtime shares with it: one interpreter class under two names."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from edge_agent.runner.runtimes.base import import_runtime, require
from edge_agent.runner.runtimes.lending import Lent
from edge_contract.errors import RuntimeAdapterError
from edge_contract.manifest import Artefact, TensorSpec

__all__ = ["InterpreterSession", "open_file", "open_interpreter", "version"]

Array = NDArray[Any]
_PACKAGE: Final = ("ai-edge-litert", "agent-litert")
_TOLERANCE: Final = 1e-6
"""Relative: the file keeps scales in float32, the manifest in double."""


class InterpreterSession:
    """A TFLite file in an interpreter: see ``Session``. An input of a whole batch is run one by one by the caller."""

    def __init__(self, interpreter: Any, artefact: Artefact, runtime: str, version: str) -> None:
        self.runtime, self.version = runtime, version
        self._where = f"{artefact.path} in {runtime} {version}"
        self._set, self._invoke, self._get = interpreter.set_tensor, interpreter.invoke, interpreter.get_tensor
        self._view = interpreter.tensor
        (source,) = interpreter.get_input_details()
        _check(artefact.input, source, self._where)
        self._input = int(source["index"])
        self.room: Callable[[], Array] | None = self._view(self._input)
        found = {str(detail["name"]): detail for detail in interpreter.get_output_details()}
        self._outputs = [(spec.name, _index(spec, found, self._where)) for spec in artefact.outputs]
        self.delegate = _delegate(interpreter)

    def run(self, x: Array | None, /) -> dict[str, Array]:
        """Return output name → array (a copy) for one input; raises RuntimeAdapterError when the runtime fails."""
        try:
            if x is not None:
                self._set(self._input, x)
            self._invoke()
            return {name: self._get(index) for name, index in self._outputs}
        except (RuntimeError, ValueError) as error:
            raise RuntimeAdapterError(f"inference failed: {error}", where=self._where) from error

    def lend(self, names: Mapping[str, str], /) -> Lent:
        """Lend views of the interpreter's tensors."""
        sinks = {names[name]: self._view(index) for name, index in self._outputs if name in names}
        return Lent(self._view(self._input), sinks, self._invoke, self._where)


def version() -> str:
    """Return the installed LiteRT's version."""
    return str(import_runtime("ai_edge_litert", *_PACKAGE).__version__)


def open_file(path: Path, artefact: Artefact, threads: int) -> InterpreterSession:
    """Load a TFLite file in LiteRT, with XNNPACK where LiteRT can use it."""
    module = import_runtime("ai_edge_litert.interpreter", *_PACKAGE)
    return open_interpreter(module.Interpreter, path, artefact, threads, ("litert", version()))


def open_interpreter(
    kind: Any, path: Path, artefact: Artefact, threads: int, name: tuple[str, str]
) -> InterpreterSession:
    """Load a file in an interpreter class of either package; ``name`` is (runtime, version).

    Raises:
        RuntimeAdapterError: The interpreter refuses the file, or finds other tensors than described.
    """
    runtime, release = name
    try:
        # By path, not by content: the interpreter maps the file, and weights need no second copy in memory.
        interpreter = kind(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
        return InterpreterSession(interpreter, artefact, runtime, release)
    except (RuntimeError, ValueError, KeyError, SystemError) as error:
        what = f"{runtime} {release} refuses the file: {error}"
        fix = "copy or export the artefact again"
        raise RuntimeAdapterError(what, where=str(path), fix=fix) from error


def _check(spec: TensorSpec, detail: Mapping[str, Any], where: str) -> None:
    shape, dtype = tuple(int(size) for size in detail["shape"]), str(detail["dtype"]().dtype)
    require(spec, shape, dtype, where)
    scale, zero = detail["quantization"]
    if spec.dtype != "float32" and (abs(scale - spec.scale) > _TOLERANCE * spec.scale or zero != spec.zero_point):
        found, told = f"{scale:.9g} × (q - {zero})", f"{spec.scale:.9g} × (q - {spec.zero_point})"
        raise RuntimeAdapterError(f"tensor '{spec.name}' means {found} in the file, {told} by its word", where=where)


def _index(spec: TensorSpec, found: Mapping[str, Mapping[str, Any]], where: str) -> int:
    if spec.name not in found:
        raise RuntimeAdapterError(f"no output '{spec.name}'; the file has {', '.join(found)}", where=where)
    _check(spec, found[spec.name], where)
    return int(found[spec.name]["index"])


def _delegate(interpreter: Any) -> str:
    """Return ``xnnpack`` when a delegate has taken over operators, ``builtin`` when the interpreter's kernels run.

    LiteRT drops XNNPACK without an exception when it cannot read the CPU's properties, and then computes other
    integers, so this must be asked and not assumed. There is no public question; the list of operators tells, because
    a delegate's node is appended to it. tflite-runtime 2.14 says "created XNNPACK" on stderr and yet gives int8 models
    to its own kernels.
    """
    try:
        names = [str(op["op_name"]) for op in interpreter._get_ops_details()]  # noqa: SLF001
    except (AttributeError, KeyError, ValueError):
        return "unknown"
    return "xnnpack" if any("DELEGATE" in name.upper() for name in names) else "builtin"
