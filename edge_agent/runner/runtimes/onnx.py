# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime with its CPU provider."""

import platform
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from edge_agent.runner.runtimes.base import import_runtime, require
from edge_contract.errors import RuntimeAdapterError
from edge_contract.manifest import Artefact, TensorSpec

__all__ = ["OnnxSession", "open_file", "version"]

Array = NDArray[Any]
_TYPES: Final = {"tensor(int8)": "int8", "tensor(uint8)": "uint8", "tensor(float)": "float32"}
_PACKAGE: Final = ("onnxruntime", "agent-onnx")
_ERRORS_ONLY: Final = 3


class OnnxSession:
    """An ONNX file in ONNX Runtime: see ``Session``."""

    runtime = "onnxruntime"
    delegate = "cpu"

    def __init__(self, session: Any, artefact: Artefact) -> None:
        self.version = version()
        self._where = f"{artefact.path} in onnxruntime {self.version}"
        self._run, self._input = session.run, artefact.input.name
        self._names = [spec.name for spec in artefact.outputs]
        found = {node.name: node for node in (*session.get_inputs(), *session.get_outputs())}
        for spec in (artefact.input, *artefact.outputs):
            _check(spec, found, self._where)

    def run(self, x: Array, /) -> dict[str, Array]:
        """Return output name → array for one input; raises RuntimeAdapterError when the runtime fails."""
        try:
            return dict(zip(self._names, self._run(self._names, {self._input: x}), strict=True))
        except Exception as error:  # its errors share no base class but RuntimeError or Exception
            raise RuntimeAdapterError(f"inference failed: {error}", where=self._where) from error


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


def open_file(path: Path, artefact: Artefact, threads: int) -> OnnxSession:
    """Load an ONNX file.

    Raises:
        RuntimeAdapterError: ONNX Runtime refuses the file, or finds other tensors than described.
    """
    ort = import_runtime("onnxruntime", *_PACKAGE)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERRORS_ONLY
    # A waiting pool must not burn the core that the control process shares.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if artefact.input.dtype == "uint8" and _may_saturate():
        options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # see run
        what = f"onnxruntime {ort.__version__} refuses the file: {error}"
        raise RuntimeAdapterError(what, where=str(path), fix="copy or export the artefact again") from error
    return OnnxSession(session, artefact)


def _check(spec: TensorSpec, found: dict[str, Any], where: str) -> None:
    if spec.name not in found:
        raise RuntimeAdapterError(f"no tensor '{spec.name}'; the file has {', '.join(found)}", where=where)
    node = found[spec.name]
    shape = tuple(size if isinstance(size, int) else 0 for size in node.shape)
    require(spec, shape, _TYPES.get(node.type, str(node.type)), where)
