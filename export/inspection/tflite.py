# SPDX-License-Identifier: Apache-2.0
"""The facts of a TFLite file, from ``export.tflite.reader``'s safe reading of it."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from export.inspection.facts import ModelFacts, Scales, Weight
from export.onnx.writer import PLAN_KEY
from export.tflite.reader import Operator, Subgraph, Tensor, TFLiteModel

__all__ = ["constants", "facts", "places"]

_REAL: Final = frozenset({"float32", "float16", "float64", "bfloat16"})
_EDGES: Final = ("QUANTIZE", "DEQUANTIZE")
_TEXT_BYTES: Final = 200  # of a metadata entry, shown


def facts(model: TFLiteModel) -> ModelFacts:
    """Return what the file says of itself, of all its subgraphs."""
    counts = Counter((op.kind, op.version) for graph in model.subgraphs for op in graph.operators)
    real = Counter(
        op.kind for graph in model.subgraphs for op in graph.operators if _is_real(op.kind, op.outputs, graph)
    )
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    return ModelFacts(
        "tflite",
        model.size,
        _plan_digest(model),
        tuple((kind, version, count) for (kind, version), count in sorted(counts.items())),
        _named(model.main, model.main.inputs),
        _named(model.main, model.main.outputs),
        tuple(sorted({op.kind for graph in model.subgraphs for op in graph.operators if op.is_custom})),
        tuple(sorted(real.items())),
        tuple(Weight(t.name, t.dtype, t.shape, len(t.data)) for t in tensors if t.data is not None),
        tuple(_scales(tensor) for tensor in tensors if tensor.scales),
        tuple((name, _shown(data)) for name, data in model.metadata.items()),
        makers=tuple(_makers(model.main)),
    )


def _makers(graph: Subgraph) -> Iterator[tuple[str, str]]:
    writer = {index: op for op in graph.operators for index in op.outputs}
    for index in graph.outputs:
        op = writer.get(index)
        if op is not None and op.kind in _EDGES and op.inputs:
            op = writer.get(op.inputs[0], op)
        if op is not None:
            yield graph.tensors[index].name, op.kind


def _is_real(kind: str, outputs: tuple[int, ...], graph: Subgraph) -> bool:
    return kind != "DEQUANTIZE" and any(graph.tensors[i].dtype in _REAL for i in outputs if i >= 0)


def _named(graph: Subgraph, indices: tuple[int, ...]) -> dict[str, tuple[str, tuple[int, ...]]]:
    chosen = [graph.tensors[index] for index in indices]
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in chosen}


def _scales(tensor: Tensor) -> Scales:
    axis = tensor.axis if len(tensor.scales) > 1 else None
    return Scales(tensor.name, tensor.dtype, tensor.data is not None, tensor.scales, tensor.zero_points, axis)


def _shown(data: bytes) -> str:
    try:
        text = data.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        return f"{len(data)} bytes"
    return text if text.isprintable() and len(text) <= _TEXT_BYTES else f"{len(data)} bytes"


def _plan_digest(model: TFLiteModel) -> str:
    try:
        document = json.loads(model.metadata.get(PLAN_KEY, b"{}"))
        return str(document["digest"]) if isinstance(document, dict) and "digest" in document else ""
    except (ValueError, RecursionError):  # somebody else's entry of that name
        return ""


def constants(model: TFLiteModel) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield (name, numbers) of every constant; its bytes, uint8 [n], where numpy does not know the type.

    A name that stands twice is told apart by the tensor's number.
    """
    for _, tensor, name in _constant_tensors(model):
        if tensor.data is not None:
            yield name, _array(tensor, tensor.data)


def places(model: TFLiteModel) -> dict[str, str]:
    """Return tensor → the operator that reads it first (a constant; behind its DEQUANTIZE) or that writes it."""
    first: dict[tuple[int, int], Operator] = {}
    for graph in model.subgraphs:
        for op in graph.operators:
            for index in op.inputs:
                first.setdefault((id(graph), index), op)
    found = {}
    for graph, tensor, name in _constant_tensors(model):
        reader = first.get((id(graph), tensor.index))
        if reader is not None and reader.kind == "DEQUANTIZE" and reader.outputs:
            reader = first.get((id(graph), reader.outputs[0]), reader)
        found[name] = _numbered(reader) if reader is not None else ""
    for graph in model.subgraphs:
        for op in graph.operators:
            for index in op.outputs:
                found.setdefault(graph.tensors[index].name, _numbered(op))
    return found


def _numbered(op: Operator) -> str:
    return f"{op.kind} {op.index}"


def _constant_tensors(model: TFLiteModel) -> Iterator[tuple[Subgraph, Tensor, str]]:
    seen = set[str]()
    for number, graph in enumerate(model.subgraphs):
        for tensor in graph.tensors:
            if tensor.data is not None:
                name = tensor.name if tensor.name not in seen else f"{tensor.name} #{number}.{tensor.index}"
                seen.add(name)
                yield graph, tensor, name


def _array(tensor: Tensor, data: bytes) -> NDArray[Any]:
    raw = np.frombuffer(data, np.uint8)
    try:
        kind = np.dtype(tensor.dtype).newbyteorder("<")
        return raw.view(kind).reshape(tensor.shape)
    except (TypeError, ValueError):  # int4, strings, sparse storage
        return raw
