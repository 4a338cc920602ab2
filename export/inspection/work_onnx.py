# SPDX-License-Identifier: Apache-2.0
"""The operators of an ONNX file as work: shapes by onnx's inference, and the fusions that ONNX Runtime does."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edge_contract.errors import ModelError
from edge_contract.operator_work import OperatorWork
from export.memory.onnx import inferred
from export.onnx.reader import read_file

__all__ = ["operators"]

_KINDS: Final = {
    "AveragePool": "pool", "MaxPool": "pool", "GlobalAveragePool": "mean", "ReduceMean": "mean", "Add": "add",
    "Sub": "add", "QLinearAdd": "add", "Mul": "mul", "QLinearMul": "mul", "HardSwish": "activation",
    "HardSigmoid": "activation", "Sigmoid": "activation", "Relu": "activation", "Clip": "activation",
    "Max": "activation", "Min": "activation", "Flatten": "reshape", "Reshape": "reshape", "Squeeze": "reshape",
    "Concat": "concat", "Pad": "pad", "QuantizeLinear": "quantize", "DequantizeLinear": "quantize",
}  # fmt: skip
_CONVOLUTIONS: Final = {"Conv": 1, "QLinearConv": 3, "ConvInteger": 1}
"""Operator → where its weights stand."""
_DENSE: Final = {"Gemm": 1, "MatMul": 1, "QLinearMatMul": 3, "QGemm": 3, "MatMulInteger": 1}
_FUSED: Final = ("Relu", "Clip")
_EDGES: Final = ("QuantizeLinear", "DequantizeLinear")
_NARROW: Final = ("uint8", "int8")


def operators(path: Path) -> tuple[OperatorWork, ...]:
    """Return the operators of the graph.

    Raises:
        ModelError: The file cannot be read, or its shapes cannot be inferred.
        MissingDependencyError: The package onnx is not installed.
    """
    read_file(path)  # refuses a damaged file before onnx itself parses it
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror})", where=str(path)) from error
    return _Graph(inferred(data, str(path))[0]).operators()


class _Graph:
    """A graph with inferred shapes, and who makes and reads each tensor."""

    def __init__(self, graph: Any) -> None:
        self._nodes = list(graph.node)
        self._shapes = {value.name: _shape(value) for value in (*graph.value_info, *graph.input, *graph.output)}
        self._constants: dict[str, tuple[tuple[int, ...], int]] = {
            tensor.name: (tuple(tensor.dims), _width(tensor.data_type)) for tensor in graph.initializer
        }
        self._maker = {name: node for node in self._nodes for name in node.output}
        self._readers: dict[str, list[Any]] = {}
        for node in self._nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def operators(self) -> tuple[OperatorWork, ...]:
        found: dict[str, OperatorWork] = {}
        for node in self._nodes:
            host = self._host(node)
            if host is not None and host in found:
                found[host] = replace(found[host], fused=found[host].fused + 1)
                found[node.output[0]] = found.pop(host)
            elif not self._is_inside(node):
                found[node.output[0]] = self._work(node)
        return tuple(found.values())

    def _host(self, node: Any) -> str | None:
        """Return the result of the convolution or linear layer that runs this activation along."""
        if node.op_type not in _FUSED or len(self._readers.get(node.input[0], [])) != 1:
            return None
        maker = self._maker.get(node.input[0])
        is_host = maker is not None and maker.op_type in (*_CONVOLUTIONS, *_DENSE)
        return str(node.input[0]) if is_host else None

    def _is_inside(self, node: Any) -> bool:
        """A constant, or an edge of integers that a neighbour computes with."""
        if node.op_type == "Constant" or (node.op_type in _EDGES and node.input[0] in self._constants):
            return True
        if node.op_type == "DequantizeLinear":
            readers = self._readers.get(node.output[0], [])
            return bool(readers) and all(reader.op_type not in _EDGES for reader in readers)
        maker = self._maker.get(node.input[0]) if node.op_type == "QuantizeLinear" else None
        return maker is not None and self._is_integer(maker)

    def _is_integer(self, node: Any, depth: int = 0) -> bool:
        """Whether a node computes with integers: by its name, or because what it reads was integer just before."""
        if node.op_type.startswith(("QLinear", "QGemm")):
            return True
        makers = [self._maker[name] for name in node.input if name in self._maker]
        edges = [maker for maker in makers if maker.op_type == "DequantizeLinear"]
        if edges and len(edges) == len(makers):
            return True
        return depth < 2 and bool(makers) and all(self._is_integer(m, depth + 1) for m in makers if m not in edges)

    def _work(self, node: Any) -> OperatorWork:
        is_integer = self._is_integer(node)
        moving = [name for name in node.input if name and not self._is_constant(name)]
        kind, products = self._kind(node)
        return OperatorWork(
            kind,
            "int8" if is_integer or self._writes_codes(node) else "float32",
            products,
            sum(self._bytes(name, is_integer=is_integer) for name in moving),
            sum(self._bytes(name, is_integer=is_integer) for name in node.output if name),
            sum(self._weight_bytes(name) for name in node.input if name),
            (self._channels(moving), self._channels(node.output)),
        )

    def _writes_codes(self, node: Any) -> bool:
        return any(self._shapes.get(name, ((), 4))[1] == 1 for name in node.output)

    def _is_constant(self, name: str) -> bool:
        maker = self._maker.get(name)
        return name in self._constants or (
            maker is not None and (maker.op_type == "Constant" or self._is_weight_edge(maker))
        )

    def _is_weight_edge(self, maker: Any) -> bool:
        return bool(maker.op_type == "DequantizeLinear" and maker.input[0] in self._constants)

    def _weight_bytes(self, name: str) -> int:
        maker = self._maker.get(name)
        if maker is not None and self._is_weight_edge(maker):
            name = maker.input[0]
        shape, width = self._constants.get(name, ((0,), 0))
        return math.prod(shape) * width

    def _weight_shape(self, name: str) -> tuple[int, ...]:
        maker = self._maker.get(name)
        if maker is not None and self._is_weight_edge(maker):
            name = maker.input[0]
        return self._constants.get(name, ((), 0))[0]

    def _kind(self, node: Any) -> tuple[str, int]:
        elements = sum(self._elements(name) for name in node.output)
        if node.op_type in _CONVOLUTIONS:
            return self._convolution(node, elements)
        if node.op_type in _DENSE:
            features = self._elements(node.input[0])
            return "dense", elements * max(1, self._channels([node.input[0]]) if features else 1)
        kind = _KINDS.get(node.op_type, node.op_type.lower())
        window = next((math.prod(a.ints) for a in node.attribute if a.name == "kernel_shape"), 1)
        looked = {"mean": self._elements(node.input[0]), "pool": elements * window}
        return kind, looked.get(kind, elements)

    def _convolution(self, node: Any, elements: int) -> tuple[str, int]:
        shape = self._weight_shape(node.input[_CONVOLUTIONS[node.op_type]])
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        taps = math.prod(shape[2:])
        products = elements * taps * (shape[1] if len(shape) > 1 else 1)
        if group > 1 and shape[1] == 1:
            return "depthwise", products
        return "pointwise" if taps == 1 else "conv", products

    def _elements(self, name: str) -> int:
        return math.prod(self._shapes.get(name, ((0,), 0))[0])

    def _bytes(self, name: str, *, is_integer: bool) -> int:
        width = 1 if is_integer else self._shapes.get(name, ((), 4))[1]
        return self._elements(name) * width

    def _channels(self, names: Any) -> int:
        """Channels stand first behind the batch."""
        shapes = [self._shapes.get(name, ((), 0))[0] for name in names]
        return max((shape[1] for shape in shapes if len(shape) > 1), default=1)


def _shape(value: Any) -> tuple[tuple[int, ...], int]:
    kind = value.type.tensor_type
    return tuple(max(1, dimension.dim_value) for dimension in kind.shape.dim), _width(kind.elem_type)


def _width(number: int) -> int:
    import onnx

    if not number or number == onnx.TensorProto.STRING:
        return 0
    return int(onnx.helper.tensor_dtype_to_np_dtype(number).itemsize)
