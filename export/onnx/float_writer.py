# SPDX-License-Identifier: Apache-2.0
"""Serialise a folded FloatGraph as float32 ONNX: what int8 is compared with, and what ships where it is faster."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from compress.quantize.graph import FloatGraph, FloatOp
from edge_contract.errors import UnsupportedOperatorError
from edge_contract.manifest import Artefact, TensorSpec
from export.onnx.writer import finish, onnx_package

__all__ = ["float_outputs", "float_spec", "write"]


def float_outputs(graph: FloatGraph, *, embedding: bool) -> dict[str, str]:
    """Return role → tensor: the logits, and the input of the last linear layer if there is one and it is asked for."""
    last = next((op for op in reversed(graph.operations) if op.kind == "linear"), None)
    extra = {"embedding": last.inputs[0]} if embedding and last is not None else {}
    return {"logits": graph.output, **extra}


def float_spec(role: str, shape: tuple[int, ...], layout: str) -> TensorSpec:
    """Return the description of a float input or output."""
    return TensorSpec(role, role, shape, "float32", layout if len(shape) == 4 else "NC")


@dataclass
class _Graph:
    graph: FloatGraph
    names: dict[str, str]
    onnx: Any
    nodes: list[Any] = field(default_factory=list)
    initializers: list[Any] = field(default_factory=list)

    def name(self, tensor: str) -> str:
        return self.names.get(tensor, tensor)

    def constant(self, name: str, values: Tensor | float) -> str:
        array = np.asarray(values, np.float32)
        self.initializers.append(self.onnx.numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def node(self, op: FloatOp, kind: str, inputs: list[str], **attributes: Any) -> None:
        """One operator, and the clamp behind it."""
        output = self.name(op.output)
        clamp = _clamp(op)
        made = output if clamp is None else f"{output}/free"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [made], **attributes))
        if clamp == "Relu":
            self.nodes.append(self.onnx.helper.make_node("Relu", [made], [output]))
        elif clamp is not None:
            bounds = [self.constant(f"{output}/low", op.low), self.constant(f"{output}/high", op.high)]
            self.nodes.append(self.onnx.helper.make_node("Clip", [made, *bounds], [output]))


def _clamp(op: FloatOp) -> str | None:
    if math.isinf(op.low) and math.isinf(op.high):
        return None
    return "Relu" if op.low == 0 and math.isinf(op.high) else "Clip"


def _layer(graph: _Graph, op: FloatOp, kind: str, **attributes: Any) -> None:
    assert op.weight is not None
    assert op.bias is not None
    output = graph.name(op.output)
    constants = [graph.constant(f"{output}/weight", op.weight), graph.constant(f"{output}/bias", op.bias)]
    graph.node(op, kind, [graph.name(op.inputs[0]), *constants], **attributes)


def _conv2d(graph: _Graph, op: FloatOp) -> None:
    a = op.attributes
    assert op.weight is not None
    sizes = {"strides": list(a["stride"]), "pads": list(a["padding"]), "dilations": list(a["dilation"])}
    _layer(graph, op, "Conv", kernel_shape=list(op.weight.shape[2:]), group=a["groups"][0], **sizes)


def _max_pool(graph: _Graph, op: FloatOp) -> None:
    a = op.attributes
    sizes = {"kernel_shape": list(a["kernel"]), "strides": list(a["stride"]), "pads": list(a["padding"])}
    graph.node(op, "MaxPool", [graph.name(op.inputs[0])], **sizes)


def _silu(graph: _Graph, op: FloatOp) -> None:
    source, opening = graph.name(op.inputs[0]), f"{op.output}/gate"
    graph.nodes.append(graph.onnx.helper.make_node("Sigmoid", [source], [opening]))
    graph.node(op, "Mul", [source, opening])


def _plain(kind: str, **attributes: Any) -> Callable[[_Graph, FloatOp], None]:
    def emit(graph: _Graph, op: FloatOp) -> None:
        graph.node(op, kind, [graph.name(name) for name in op.inputs], **attributes)

    return emit


_EMIT: dict[str, Callable[[_Graph, FloatOp], None]] = {
    "conv2d": _conv2d,
    "linear": lambda graph, op: _layer(graph, op, "Gemm", transB=1),
    "add": _plain("Add"),
    "mul": _plain("Mul"),
    "concat": _plain("Concat", axis=1),
    "global_pool": _plain("GlobalAveragePool"),
    "max_pool": _max_pool,
    "flatten": _plain("Flatten", axis=1),
    "hard_swish": _plain("HardSwish"),
    "sigmoid": _plain("Sigmoid"),
    "silu": _silu,
}


def write(graph: FloatGraph, path: Path, *, target: str = "generic-x86", embedding: bool = True) -> Artefact:
    """Write a folded graph to ``path`` in float32 and return the artefact's description, with no runtime claimed yet.

    The same graph gives the same bytes. Input and outputs are float32, the batch is free.

    Raises:
        MissingDependencyError: The package onnx is not installed.
        UnsupportedOperatorError: An operation that only the integer writer knows.
    """
    outputs = float_outputs(graph, embedding=embedding)
    names = {graph.input: "input"} | {tensor: role for role, tensor in outputs.items()}
    file = _Graph(graph, names, onnx_package())
    for op in graph.operations:
        if op.kind not in _EMIT:
            raise UnsupportedOperatorError(
                f"a float '{op.kind}'", where=f"layer '{op.name}'", fix="open no gates first"
            )
        _EMIT[op.kind](file, op)
    shapes = {graph.input: graph.input_shape} | {op.output: op.shape for op in graph.operations}
    infos = [_info(file, names[name], shapes[name]) for name in (graph.input, *outputs.values())]
    finish(Path(path), file.onnx, file.nodes, inputs=infos[:1], outputs=infos[1:], initializers=file.initializers)
    source = float_spec("input", (0, *graph.input_shape), "NCHW")
    specs = tuple(float_spec(role, (0, *shapes[name]), "NCHW") for role, name in outputs.items())
    return Artefact(Path(path).name, "onnx", (), target, "float32", "", source, specs)


def _info(file: _Graph, name: str, shape: tuple[int, ...]) -> Any:
    return file.onnx.helper.make_tensor_value_info(name, file.onnx.TensorProto.FLOAT, ["batch", *shape])
