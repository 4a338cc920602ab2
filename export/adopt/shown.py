# SPDX-License-Identifier: Apache-2.0
"""Let a classifier of another maker show its embedding, what enters its last layer, as a second output.

Nothing of the network changes; a tensor that is computed anyway is listed among the outputs, by the name ``embedding``.
Drift then sees the features, which move before the answers do.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from edge_contract.errors import ModelError
from export.tflite.encoder import encode
from export.tflite.schema import OPERATORS
from export.tflite.walk import decode

__all__ = ["NAME", "with_embedding"]

NAME: Final = "embedding"
_LAYERS: Final = ("FULLY_CONNECTED", "CONV_2D", "Gemm", "MatMul", "Conv", "QGemm", "QLinearMatMul", "QLinearConv")
_PASSED: Final = (
    *("SOFTMAX", "LOGISTIC", "QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE", "ADD"),
    *("Softmax", "Sigmoid", "QuantizeLinear", "DequantizeLinear", "Reshape", "Squeeze", "Flatten", "Identity", "Add"),
)
"""Operators between the last layer and the answer: its first input leads on."""


def with_embedding(path: Path, out: Path) -> bool:
    """Write a copy of a model file that shows its embedding; return False, and write nothing, where there is none.

    There is none where the layer that gives the classes reads the input itself, where no such layer is found behind the
    first output, or where the file shows its embedding already.

    Args:
        path: An ``.onnx`` or ``.tflite`` file.
        out: The file to write.

    Raises:
        ModelError: It cannot be read.
    """
    data = path.read_bytes()
    made = _tflite(data, path.name) if path.suffix == ".tflite" else _onnx(data, path.name)
    if made is None:
        return False
    out.write_bytes(made)
    return True


def _tflite(data: bytes, where: str) -> bytes | None:
    root, _ = decode(data, where)
    graphs = root["subgraphs"] or []
    if len(graphs) != 1:
        return None
    graph, codes = graphs[0], root["operator_codes"] or []
    writers = {tensor: op for op in graph["operators"] or [] for tensor in op["outputs"] or ()}
    shown, tensors = list(graph["outputs"] or ()), graph["tensors"] or []

    def step(tensor: int) -> tuple[str, Sequence[int]] | None:
        op = writers.get(tensor)
        if op is None:
            return None
        code = codes[op["opcode_index"] or 0]
        number = max(code["builtin_code"] or 0, code["deprecated_builtin_code"] or 0)
        return OPERATORS[number], op["inputs"] or ()

    found = _source(shown[0], step) if shown else None
    if found is None or found not in writers or found in shown or any(t["name"] == NAME.encode() for t in tensors):
        return None
    tensors[found]["name"] = NAME.encode()
    graph["outputs"] = (*shown, found)
    root["signature_defs"] = None  # they would name the old outputs alone
    return encode(root, where)


def _source(tensor: Any, step: Any) -> Any:
    """Follow the answer back to the last layer; return what enters that."""
    for _ in range(len(_PASSED)):
        found = step(tensor)
        if found is None or not found[1]:
            return None
        kind, inputs = found
        if kind in _LAYERS:
            return inputs[0] if _is_computed(inputs[0], step) else None
        if kind not in _PASSED:
            return None
        tensor = inputs[0]
    return None


def _is_computed(tensor: Any, step: Any) -> bool:
    """Tell whether a tensor is more than the input in another form."""
    while (found := step(tensor)) is not None and found[1]:
        if found[0] not in _PASSED:
            return True
        tensor = found[1][0]
    return False


def _onnx(data: bytes, where: str) -> bytes | None:
    import onnx
    import onnx.shape_inference

    try:
        model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(data))
    except Exception as error:  # protobuf's own class is not ours to import, and it reads whatever it is given
        raise ModelError(f"no ONNX file: {error}", where=where) from error
    graph = model.graph
    writers = {name: node for node in graph.node for name in node.output}

    def step(tensor: str) -> tuple[str, Sequence[str]] | None:
        node = writers.get(tensor)
        return None if node is None else (node.op_type, list(node.input))

    found = _source(graph.output[0].name, step) if graph.output else None
    node = writers.get(found)
    if node is not None and node.op_type == "DequantizeLinear" and node.input[0] in writers:
        found = node.input[0]  # the codes, which need no float in memory
    known = {info.name: info for info in graph.value_info}
    if found not in writers or found not in known or any(o.name in (found, NAME) for o in graph.output):
        return None
    for one in graph.node:
        one.input[:] = [NAME if name == found else name for name in one.input]
        one.output[:] = [NAME if name == found else name for name in one.output]
    info = graph.output.add()
    info.CopyFrom(known[found])
    info.name = NAME
    del graph.value_info[:]
    return bytes(model.SerializeToString(deterministic=True))
