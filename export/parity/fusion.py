# SPDX-License-Identifier: Apache-2.0
"""What ONNX Runtime makes of a quantized file: which operators are still computed in float?

A file whose operators stand between DequantizeLinear and QuantizeLinear says nothing about speed: ONNX Runtime fuses
what it can into integer operators, and runs the rest in float, silently. int8 activations on x86 lose their additions
and part of their convolutions that way and are then slower than the float model; uint8 ones fuse. So its own optimised
graph is read, with the optimisations that a device's session has.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_contract.errors import MissingDependencyError, ModelError
from export.onnx.model import OnnxModel, OnnxNode
from export.onnx.reader import read_file

__all__ = ["Leftover", "float_operators", "optimised"]

_INTEGER: Final = ("QLinear", "QGemm", "QAttention", "ConvInteger", "MatMulInteger")  # read float scales only
_FLOATS: Final = (1, 10, 11, 16)  # float32, float16, float64, bfloat16 in onnx.proto
_REAL: Final = ("float32", "float16", "float64", "bfloat16")
_ERRORS_ONLY: Final = 3


@dataclass(frozen=True)
class Leftover:
    """A node of the optimised graph that computes with real numbers or converts them; without a name, by its output."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}'"


def float_operators(path: Path, *, int8_allowed: bool = False) -> tuple[Leftover, ...]:
    """Return the operators that ONNX Runtime does not compute in integers on this computer.

    Conversions at the edge, of a float input or to a float output, are not counted; those inside are, since each
    stands for a part that was not fused.

    Args:
        path: An ONNX file.
        int8_allowed: Set ``session.qdqisint8allowed``, which is the default on ARM and not on x86: signed activations
            are then fused here too.

    Raises:
        ModelError: ONNX Runtime refuses the file.
        MissingDependencyError: It is not installed.
    """
    graph = optimised(path, int8_allowed=int8_allowed).graph
    real = {value.name for value in graph.inputs if value.dtype in _REAL}
    edges = {value.name for value in (*graph.inputs, *graph.outputs) if value.dtype in _REAL}
    constants = {name for name, constant in graph.constants.items() if constant.dtype in _REAL}
    found = []
    for node in graph.nodes:
        if not _is_real(node, real, constants):
            continue
        if node.kind != "QuantizeLinear":
            real.update(node.outputs)
        if not _is_edge(node, edges):
            found.append(Leftover(node.kind, node.name or node.outputs[0]))
    return tuple(found)


def _is_real(node: OnnxNode, real: set[str], constants: set[str]) -> bool:
    if node.kind.startswith(_INTEGER):
        return False
    if node.kind == "DequantizeLinear":
        return True
    if node.kind == "Cast":
        return node.attributes.get("to") in _FLOATS
    return any(name in real for name in node.inputs) or any(name in constants for name in node.inputs[:1])


def _is_edge(node: OnnxNode, edges: set[str]) -> bool:
    if node.kind == "QuantizeLinear":
        return node.inputs[0] in edges
    return node.kind == "DequantizeLinear" and node.outputs[0] in edges


def optimised(path: Path, *, int8_allowed: bool = False) -> OnnxModel:
    """Return the graph that ONNX Runtime's CPU provider runs for a file; raises as ``float_operators`` does."""
    ort = _onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = _ERRORS_ONLY, 1
    options.add_session_config_entry("session.qdqisint8allowed", "1" if int8_allowed else "0")
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        try:
            ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no base class
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"onnxruntime {ort.__version__} refuses the file: {reason}", where=str(path)) from error
        return read_file(Path(options.optimized_model_filepath))


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        fix = 'pip install "strop[workstation]"'
        raise MissingDependencyError("the package 'onnxruntime' is not installed", fix=fix) from error
    return onnxruntime
