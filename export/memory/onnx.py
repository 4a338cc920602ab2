# SPDX-License-Identifier: Apache-2.0
"""Predict from an ONNX file how much memory running it takes: weights, and activations by the lives in the graph.

Shapes come from onnx's own inference, free dimensions as 1. ONNX Runtime fuses operators first and takes memory from
an arena that grows by doubling; it does not tell the arena's size. What it tells, the bytes of each operator's result
in its profile, is what tests compare. So the number is honest for the graph and a lower bound for the process.
"""

import math
from collections.abc import Iterator
from typing import Any

from edge_contract.errors import MissingDependencyError, ModelError
from export.memory.arena import FOREVER, Block, arena_bytes
from export.memory.prediction import MemoryReport

__all__ = ["inferred", "predict", "sizes"]


def predict(data: bytes, where: str) -> MemoryReport:
    """Return the memory that an ONNX file takes at batch 1.

    Raises:
        ModelError: Not an ONNX file, or its shapes cannot be inferred.
        MissingDependencyError: The package onnx is not installed.
    """
    graph, bytes_of = inferred(data, where)
    blocks, names = _lives(graph, bytes_of)
    alive = [sum(b.size for b in blocks if b.first <= at <= b.last) for at in range(len(graph.node))]
    at = alive.index(max(alive)) if alive else -1
    peak = sorted((b for b in blocks if b.first <= at <= b.last), key=lambda b: -b.size)
    weights = sum(_initializer_bytes(tensor) for tensor in graph.initializer)
    kind = graph.node[at].op_type if at >= 0 else ""
    return MemoryReport(
        arena_bytes(blocks), max(alive, default=0), weights, 0, at, kind, tuple(names[b.tensor] for b in peak)
    )


def sizes(data: bytes, where: str) -> dict[str, int]:
    """Return activation → bytes for each result whose shape is inferred; raises as ``predict``."""
    return inferred(data, where)[1]


def inferred(data: bytes, where: str) -> tuple[Any, dict[str, int]]:
    """Return the graph with inferred shapes, and activation → bytes; raises as ``predict``."""
    try:
        import onnx
    except ImportError as error:
        fix = 'pip install "strop[workstation]"'
        raise MissingDependencyError("the package 'onnx' is not installed", fix=fix) from error
    try:
        model = onnx.load_model_from_string(data)
        for value in model.graph.input:
            _fix(value)
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:  # protobuf and onnx raise many kinds for a damaged file
        raise ModelError(f"shapes cannot be inferred: {type(error).__name__}", where=where) from error
    return graph, {value.name: _bytes(value) for value in (*graph.value_info, *graph.input, *graph.output)}


def _fix(value: Any) -> None:
    """Give a free dimension the size 1, so that inference can count."""
    for dimension in value.type.tensor_type.shape.dim:
        if dimension.dim_value <= 0:
            dimension.dim_value = 1


def _bytes(value: Any) -> int:
    """Bytes of one tensor; an unknown dimension counts as 1."""
    import onnx

    kind = value.type.tensor_type
    if not kind.elem_type or kind.elem_type == onnx.TensorProto.STRING:
        return 0
    width = int(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize)
    return int(width * math.prod(max(dimension.dim_value, 1) for dimension in kind.shape.dim))


def _initializer_bytes(tensor: Any) -> int:
    import onnx

    width = int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    return int(width * math.prod(tensor.dims))


def _lives(graph: Any, bytes_of: dict[str, int]) -> tuple[tuple[Block, ...], list[str]]:
    """Return each activation with its life in nodes, and the names by block number."""
    constants = {tensor.name for tensor in graph.initializer}
    kept = {value.name for value in (*graph.input, *graph.output)} - constants
    first = {value.name: 0 for value in graph.input if value.name not in constants}
    last = {name: position for position, name in _uses(graph)}
    for position, node in enumerate(graph.node):
        for name in node.output:
            if name:
                first.setdefault(name, position)
    names = list(first)
    blocks = (
        Block(i, bytes_of.get(name, 0), first[name], FOREVER if name in kept else last.get(name, first[name]))
        for i, name in enumerate(names)
    )
    return tuple(blocks), names


def _uses(graph: Any) -> Iterator[tuple[int, str]]:
    return ((position, name) for position, node in enumerate(graph.node) for name in node.input if name)
