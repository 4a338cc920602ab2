# SPDX-License-Identifier: Apache-2.0
"""Count what an integer model still computes in float: in ONNX Runtime's optimised graph, or in a TFLite file."""

from collections import Counter
from pathlib import Path
from typing import Any, Final

from benchmarks.peers.sessions import options

__all__ = ["float_operators", "stripped_size"]

# What changes a type, or moves values, computes nothing.
_CASTS: Final = {"QuantizeLinear", "DequantizeLinear", "QUANTIZE", "DEQUANTIZE"}
_MOVES: Final = {
    *("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Concat", "Slice", "Gather", "Identity", "Constant"),
    *("ReorderInput", "ReorderOutput", "Shape"),
    *("RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "CONCATENATION", "SLICE", "STRIDED_SLICE"),
}
_FLOAT: Final = {"float16", "float32", "float64"}


def float_operators(path: Path) -> dict[str, int]:
    """Return kind → number of operators that compute on float, and of conversions under ``casts``.

    For ONNX, the graph is ONNX Runtime's after all its optimisations, with default session options on this machine:
    other processors have other fusions.
    """
    operators = _onnx(path) if path.suffix == ".onnx" else _tflite(path)
    computing = Counter(kind for kind, is_float in operators if is_float and kind not in _CASTS | _MOVES)
    return dict(sorted(computing.items())) | {"casts": sum(kind in _CASTS for kind, _ in operators)}


def _onnx(path: Path) -> list[tuple[str, bool]]:
    """Kind of every node, and whether it has a float activation; types are followed from the input on."""
    import onnx
    import onnxruntime

    optimised = path.with_name("optimised.onnx")
    chosen = options()
    chosen.optimized_model_filepath = str(optimised)
    session = onnxruntime.InferenceSession(str(path), chosen, providers=["CPUExecutionProvider"])
    graph = onnx.load(str(optimised)).graph
    optimised.unlink()
    real = {one.name for one in session.get_inputs() if one.type == "tensor(float)"}
    constants = {one.name for one in graph.initializer}
    found = []
    for node in graph.node:
        is_read = any(name in real for name in node.input if name not in constants)
        is_written = _writes_float(node, is_read=is_read)
        real.update(node.output if is_written else ())
        found.append((node.op_type, is_read or is_written))
    return found


def _writes_float(node: Any, *, is_read: bool) -> bool:
    kind = node.op_type
    if kind == "QGemm":  # without a scale of its output it returns float
        return len(node.input) < 8 or not node.input[7]
    if kind.startswith("QLinear") or kind in ("QuantizeLinear", "DynamicQuantizeLinear"):
        return False
    return kind == "DequantizeLinear" or is_read


def _tflite(path: Path) -> list[tuple[str, bool]]:
    from export.tflite.reader import read_file

    main = read_file(path).main
    kinds = {tensor.index: tensor.dtype for tensor in main.tensors}
    used = [(op.kind, [i for i in (*op.inputs, *op.outputs) if i >= 0]) for op in main.operators]
    return [(kind, any(kinds[i] in _FLOAT for i in tensors)) for kind, tensors in used]


def stripped_size(path: Path) -> int:
    """Return an ONNX file's bytes without documentation, metadata and inferred shapes, which no runtime needs.

    PyTorch's exporter writes a hundred kilobytes of them: a comparison of sizes should say how much it is.
    """
    import onnx

    model = onnx.load(str(path))
    for field in ("doc_string", "metadata_props"):
        model.ClearField(field)
        model.graph.ClearField(field)
        for node in model.graph.node:
            node.ClearField(field)
        for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
            value.ClearField(field)
    model.graph.ClearField("value_info")
    model.ClearField("functions")
    return len(model.SerializeToString())
