# SPDX-License-Identifier: Apache-2.0
"""The operators of a TFLite file as work; the file says everything itself."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edge_contract.operator_work import OperatorWork
from export.tflite.reader import Operator, Subgraph, Tensor, read_file

__all__ = ["operators"]

_KINDS: Final = {
    "AVERAGE_POOL_2D": "pool", "MAX_POOL_2D": "pool", "MEAN": "mean", "ADD": "add", "SUB": "add", "MUL": "mul",
    "HARD_SWISH": "activation", "LOGISTIC": "activation", "RELU": "activation", "RELU6": "activation",
    "MAXIMUM": "activation", "MINIMUM": "activation", "RESHAPE": "reshape", "SQUEEZE": "reshape",
    "CONCATENATION": "concat", "PAD": "pad", "PADV2": "pad", "QUANTIZE": "quantize", "DEQUANTIZE": "quantize",
}  # fmt: skip
_WEIGHED: Final = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_INTEGERS: Final = ("int8", "uint8", "int16")


def operators(path: Path) -> tuple[OperatorWork, ...]:
    """Return the operators of the main graph; raises ModelError where the file cannot be read."""
    graph = read_file(path).main
    return tuple(_work(op, graph) for op in graph.operators)


def _work(op: Operator, graph: Subgraph) -> OperatorWork:
    given = [graph.tensors[i] for i in op.inputs if i >= 0]
    made = [graph.tensors[i] for i in op.outputs if i >= 0]
    moving, constants = [t for t in given if t.data is None], [t for t in given if t.data is not None]
    kind, products = _kind(op, given, made)
    return OperatorWork(
        kind,
        "int8" if any(t.dtype in _INTEGERS for t in made) else "float32",
        products,
        _bytes(moving),
        _bytes(made),
        _bytes(constants),
        (_channels(moving), _channels(made)),
        int(op.options.get("fused_activation_function", "NONE") != "NONE"),
    )


def _kind(op: Operator, given: Sequence[Tensor], made: Sequence[Tensor]) -> tuple[str, int]:
    """Return the kind and the products: each output of a convolution costs what one filter has."""
    elements = sum(t.elements for t in made)
    if op.kind not in _WEIGHED or len(given) < 2:
        kind = _KINDS.get(op.kind, op.kind.lower())
        looked = {"mean": sum(t.elements for t in given[:1]), "pool": elements * _window(op)}
        return kind, looked.get(kind, elements)
    shape = given[1].shape
    if op.kind == "FULLY_CONNECTED":
        return "dense", elements * shape[-1]
    taps = math.prod(shape[1:3])
    if op.kind == "DEPTHWISE_CONV_2D":
        return "depthwise", elements * taps
    return "pointwise" if taps == 1 else "conv", elements * taps * shape[3]


def _window(op: Operator) -> int:
    return int(op.options.get("filter_width", 1)) * int(op.options.get("filter_height", 1))


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(t.size for t in tensors)


def _channels(tensors: Sequence[Tensor]) -> int:
    return max((t.shape[-1] for t in tensors if t.shape), default=1)
