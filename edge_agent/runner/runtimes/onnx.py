# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime, with its CPU provider or another one by name."""

import platform
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.runtimes.base import import_runtime, require
from edge_agent.runner.runtimes.lending import Lent
from edge_contract.errors import RuntimeAdapterError
from edge_contract.manifest import Artefact, TensorSpec

__all__ = ["OnnxSession", "open_file", "options_for", "start", "version", "wants_precision"]

Array = NDArray[Any]
_TYPES: Final = {"tensor(int8)": "int8", "tensor(uint8)": "uint8", "tensor(float)": "float32"}
_PACKAGE: Final = ("onnxruntime", "agent-onnx")
_ERRORS_ONLY: Final = 3
_SUFFIX: Final = "ExecutionProvider"
_CPU: Final = f"CPU{_SUFFIX}"


class OnnxSession:
    """An ONNX file in ONNX Runtime: see ``Session``."""

    runtime = "onnxruntime"

    def __init__(self, session: Any, artefact: Artefact, delegate: str = "cpu") -> None:
        self.delegate = delegate
        self.version = version()
        self._where = f"{artefact.path} in onnxruntime {self.version}"
        self._session, self._run, self._input = session, session.run, artefact.input.name
        self._specs = {spec.name: spec for spec in (artefact.input, *artefact.outputs)}
        self._names = [spec.name for spec in artefact.outputs]
        self._held: dict[str, Array] = {}
        self._bound: Callable[[], object] = self._session.run
        found = {node.name: node for node in (*session.get_inputs(), *session.get_outputs())}
        for spec in (artefact.input, *artefact.outputs):
            _check(spec, found, self._where)
        is_fixed = all(min(spec.shape[1:], default=0) > 0 for spec in self._specs.values())
        self.room: Callable[[], Array] | None = self._own_input if is_fixed else None

    def run(self, x: Array | None, /) -> dict[str, Array]:
        """Return output name → array for one input; raises RuntimeAdapterError when the runtime fails."""
        try:
            if x is None:
                self._bound()
                return {name: self._held[name].copy() for name in self._names}
            return dict(zip(self._names, self._run(self._names, {self._input: x}), strict=True))
        except Exception as error:  # its errors share no base class but RuntimeError or Exception
            raise RuntimeAdapterError(f"inference failed: {error}", where=self._where) from error

    def _own_input(self) -> Array:
        """Return an array that the session is bound to; made when it is first asked for."""
        if not self._held:
            self._held, self._bound = self._bind(self._names)
        return self._held[self._input]

    def lend(self, names: Mapping[str, str], /) -> Lent:
        """Lend arrays of ours that the session is bound to; a free dimension is 1."""
        held, run = self._bind(names)
        sinks = {key: partial(held.__getitem__, name) for name, key in names.items()}
        return Lent(partial(held.__getitem__, self._input), sinks, run, self._where)

    def _bind(self, outputs: Iterable[str]) -> tuple[dict[str, Array], Callable[[], object]]:
        """Return arrays that a binding reads and writes, and what runs it; they must live as long as it is used.

        The binding knows their addresses only.
        """
        held = {name: _blank(self._specs[name]) for name in (self._input, *outputs)}
        binding = self._session.io_binding()
        for name, array in held.items():
            bind = binding.bind_input if name == self._input else binding.bind_output
            bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        return held, partial(self._session.run_with_iobinding, binding)


def _blank(spec: TensorSpec) -> Array:
    return np.zeros([size if size > 0 else 1 for size in spec.shape], spec.dtype)


def version() -> str:
    """Return the installed ONNX Runtime's version."""
    return str(import_runtime("onnxruntime", *_PACKAGE).__version__)


def _may_saturate(cpu_facts: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether uint8 × int8 kernels may saturate in 16 bits here: on x86 without VNNI, or if nobody can tell.

    ONNX Runtime then has exact but slower kernels, which it takes only when told (its key in the session's options).

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w") as file:
        ...     _ = file.write("flags : sse4_2 avx2 avx512_vnni")
        ...     file.flush()
        ...     _may_saturate(Path(file.name))
        False
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        return "vnni" not in cpu_facts.read_text(encoding="ascii", errors="replace")
    except OSError:
        return True


def _short(provider: str) -> str:
    return provider.removesuffix(_SUFFIX).lower()


def _provider(ort: Any, delegate: str) -> str:
    """Return a provider's full name; raises RuntimeAdapterError where this ONNX Runtime was built without it."""
    here = {_short(name): name for name in ort.get_available_providers()}
    if delegate.lower() not in here:
        where, fix = (
            f"onnxruntime {ort.__version__}",
            f"it has {', '.join(sorted(here))}; others come in packages of their own",
        )
        raise RuntimeAdapterError(f"no execution provider '{delegate}'", where=where, fix=fix)
    return str(here[delegate.lower()])


def open_file(path: Path, artefact: Artefact, threads: int, delegate: str = "cpu") -> OnnxSession:
    """Load an ONNX file.

    Args:
        path, artefact, threads: As ``open_session`` takes them.
        delegate: An execution provider by its short name: ``cpu``, ``openvino``, ``xnnpack``, ``cuda`` …; what it does
            not take over runs on the CPU.

    Raises:
        RuntimeAdapterError: No such provider here, or it did not start; ONNX Runtime refuses the file, or finds other
            tensors than described.
    """
    return OnnxSession(start(path, options_for(threads, artefact.input.dtype), delegate), artefact, delegate.lower())


def wants_precision(dtype: str) -> bool:
    """Return whether ONNX Runtime must be told to keep 8-bit products exact for an input of this type, on this CPU."""
    return dtype == "uint8" and _may_saturate()


def options_for(threads: int, dtype: str) -> Any:
    """Return the options of a session: those that the agent and every measurement use."""
    ort = import_runtime("onnxruntime", *_PACKAGE)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERRORS_ONLY
    # A waiting pool must not burn the core that the control process shares.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if wants_precision(dtype):
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def start(path: Path, options: Any, delegate: str = "cpu") -> Any:
    """Return an ``InferenceSession`` of a file; raises RuntimeAdapterError as ``open_file`` does."""
    ort = import_runtime("onnxruntime", *_PACKAGE)
    provider = _provider(ort, delegate)
    try:
        session = ort.InferenceSession(str(path), options, providers=list(dict.fromkeys([provider, _CPU])))
    except Exception as error:  # see run
        what = f"onnxruntime {ort.__version__} refuses the file: {error}"
        raise RuntimeAdapterError(what, where=str(path), fix="copy or export the artefact again") from error
    if session.get_providers()[0] != provider:  # it falls back to the CPU with a line on stderr and no exception
        fix = "see stderr for its reason: a driver or library is missing"
        raise RuntimeAdapterError(f"the execution provider '{delegate}' did not start", where=str(path), fix=fix)
    return session


def _check(spec: TensorSpec, found: dict[str, Any], where: str) -> None:
    if spec.name not in found:
        raise RuntimeAdapterError(f"no tensor '{spec.name}'; the file has {', '.join(found)}", where=where)
    node = found[spec.name]
    shape = tuple(size if isinstance(size, int) else 0 for size in node.shape)
    require(spec, shape, _TYPES.get(node.type, str(node.type)), where)
