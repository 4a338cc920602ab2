# SPDX-License-Identifier: Apache-2.0
"""Serialise a folded FloatGraph as float32 TFLite: channels last, batch 1, clamps fused into the operators."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compress.quantize.graph import FloatGraph, FloatOp
from edge_contract.errors import UnsupportedOperatorError
from edge_contract.manifest import Artefact
from export.onnx.float_writer import float_outputs, float_spec
from export.tflite.builder import FileBuilder, file_builder
from export.tflite.windows import Sliding, channels_last

__all__ = ["write"]

_FUSED = {(0.0, math.inf): "RELU", (0.0, 6.0): "RELU6"}


@dataclass
class _Graph:
    graph: FloatGraph
    file: FileBuilder
    names: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    index: dict[str, int] = field(default_factory=dict)

    def activation(self, name: str) -> int:
        if name not in self.index:
            shape = (1, *channels_last(self.shapes[name]))
            self.index[name] = self.file.tensor(self.names.get(name, name), shape, "FLOAT32")
        return self.index[name]

    def spare(self, name: str, like: str) -> int:
        """A tensor of an activation's shape that is no activation of the graph."""
        return self.file.tensor(name, (1, *channels_last(self.shapes[like])), "FLOAT32")

    def constant(self, name: str, values: Any, kind: str = "FLOAT32") -> int:
        array = np.asarray(values, np.int32 if kind == "INT32" else np.float32)
        return self.file.tensor(name, array.shape, kind, np.array(array, order="C"))

    def emit(self, op: FloatOp, kind: str, version: int, inputs: list[int], options: str = "", **fields: Any) -> None:
        """One operator; a clamp that cannot be fused follows as MAXIMUM and MINIMUM."""
        fused = _FUSED.get((op.low, op.high))
        if fused is not None and options:
            fields["fusedActivationFunction"] = self.file.activation(fused)
        is_free = math.isinf(op.low) and math.isinf(op.high)
        if is_free or (fused is not None and options):
            self.file.operator(kind, version, inputs, self.activation(op.output), options, **fields)
            return
        free, raised = self.spare(f"{op.output}/free", op.output), self.spare(f"{op.output}/raised", op.output)
        self.file.operator(kind, version, inputs, free, options, **fields)
        low, high = self.constant(f"{op.output}/low", [op.low]), self.constant(f"{op.output}/high", [op.high])
        self.file.operator("MAXIMUM", 1, [free, low], raised, "MaximumMinimumOptions")
        self.file.operator("MINIMUM", 1, [raised, high], self.activation(op.output), "MaximumMinimumOptions")


def _padded(graph: _Graph, op: FloatOp, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, str]:
    """Return the input of a window operator and its padding scheme, after a PAD where neither scheme fits."""
    source = op.inputs[0]
    window = Sliding(graph.shapes[source], op.shape, kernel, op.attributes["stride"], dilation)
    pairs = window.paddings(op.attributes["padding"])
    found = window.scheme(pairs)
    if found:
        return graph.activation(source), found
    channels, *sizes = graph.shapes[source]
    shape = (1, *(size + sum(pair) for size, pair in zip(sizes, pairs, strict=True)), channels)
    padded = graph.file.tensor(f"{op.output}/pad", shape, "FLOAT32")
    inputs = [graph.activation(source), graph.constant(f"{op.output}/pads", [(0, 0), *pairs, (0, 0)], "INT32")]
    if op.kind != "max_pool":
        graph.file.operator("PAD", 1, inputs, padded, "PadOptions")
        return padded, "VALID"
    lowest = graph.constant(f"{op.output}/lowest", [np.finfo(np.float32).min])
    graph.file.operator("PADV2", 1, [*inputs, lowest], padded, "PadV2Options")
    return padded, "VALID"


def _conv2d(graph: _Graph, op: FloatOp) -> None:
    a = op.attributes
    assert op.weight is not None
    assert op.bias is not None
    source, padding = _padded(graph, op, tuple(op.weight.shape[2:]), a["dilation"])
    fields: dict[str, Any] = {"strideH": a["stride"][0], "strideW": a["stride"][1]}
    fields |= {"dilationHFactor": a["dilation"][0], "dilationWFactor": a["dilation"][1]}
    fields["padding"] = graph.file.padding(padding)
    kind, options, order = "CONV_2D", "Conv2DOptions", (0, 2, 3, 1)
    if a["groups"][0] != 1:
        kind, options, order = "DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions", (1, 2, 3, 0)
        fields["depthMultiplier"] = op.weight.shape[0] // a["groups"][0]
    weight, bias = graph.constant(f"{op.output}/w", op.weight.permute(order)), graph.constant(f"{op.output}/b", op.bias)
    version = 2 if max(a["dilation"]) > 1 and kind == "DEPTHWISE_CONV_2D" else 1
    graph.emit(op, kind, version, [source, weight, bias], options, **fields)


def _linear(graph: _Graph, op: FloatOp) -> None:
    assert op.weight is not None
    assert op.bias is not None
    weight, bias = graph.constant(f"{op.output}/w", op.weight), graph.constant(f"{op.output}/b", op.bias)
    inputs = [graph.activation(op.inputs[0]), weight, bias]
    graph.emit(op, "FULLY_CONNECTED", 1, inputs, "FullyConnectedOptions")


def _global_pool(graph: _Graph, op: FloatOp) -> None:
    axes = graph.constant(f"{op.output}/axes", [1, 2], "INT32")
    graph.emit(op, "MEAN", 1, [graph.activation(op.inputs[0]), axes], "ReducerOptions", keepDims=True)


def _max_pool(graph: _Graph, op: FloatOp) -> None:
    kernel, stride = op.attributes["kernel"], op.attributes["stride"]
    source, padding = _padded(graph, op, kernel, (1, 1))
    fields = {"strideH": stride[0], "strideW": stride[1], "filterHeight": kernel[0], "filterWidth": kernel[1]}
    graph.emit(op, "MAX_POOL_2D", 1, [source], "Pool2DOptions", padding=graph.file.padding(padding), **fields)


def _flatten(graph: _Graph, op: FloatOp) -> None:
    """RESHAPE; a map larger than 1×1 is first turned channels first, so that features keep PyTorch's order."""
    shape = graph.shapes[op.inputs[0]]
    index = graph.activation(op.inputs[0])
    if len(shape) == 3 and shape[1] * shape[2] > 1:
        turned = graph.file.tensor(f"{op.output}/nchw", (1, *shape), "FLOAT32")
        order = graph.constant(f"{op.output}/order", [0, 3, 1, 2], "INT32")
        graph.file.operator("TRANSPOSE", 1, [index, order], turned, "TransposeOptions")
        index = turned
    size = np.array([1, *op.shape], np.int32)
    inputs = [index, graph.constant(f"{op.output}/shape", size, "INT32")]
    graph.file.operator("RESHAPE", 1, inputs, graph.activation(op.output), "ReshapeOptions", newShape=size)


def _silu(graph: _Graph, op: FloatOp) -> None:
    source, opening = graph.activation(op.inputs[0]), graph.spare(f"{op.output}/gate", op.output)
    graph.file.operator("LOGISTIC", 1, [source], opening)
    graph.emit(op, "MUL", 1, [source, opening], "MulOptions")


def _plain(kind: str, options: str = "") -> Callable[[_Graph, FloatOp], None]:
    def emit(graph: _Graph, op: FloatOp) -> None:
        fields = {"axis": len(op.shape)} if kind == "CONCATENATION" else {}
        graph.emit(op, kind, 1, [graph.activation(name) for name in op.inputs], options, **fields)

    return emit


_EMIT: dict[str, Callable[[_Graph, FloatOp], None]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "add": _plain("ADD", "AddOptions"),
    "mul": _plain("MUL", "MulOptions"),
    "concat": _plain("CONCATENATION", "ConcatenationOptions"),
    "global_pool": _global_pool,
    "max_pool": _max_pool,
    "flatten": _flatten,
    "hard_swish": _plain("HARD_SWISH", "HardSwishOptions"),
    "sigmoid": _plain("LOGISTIC"),
    "silu": _silu,
}


def write(graph: FloatGraph, path: Path, *, target: str = "rpi4", embedding: bool = True) -> Artefact:
    """Write a folded graph to ``path`` in float32 and return the artefact's description, with no runtime claimed yet.

    The same graph gives the same bytes.

    Raises:
        MissingDependencyError: The package ai-edge-litert or flatbuffers is not installed.
        UnsupportedOperatorError: An operation that only the integer writer knows.
    """
    outputs = float_outputs(graph, embedding=embedding)
    names = {graph.input: "input"} | {tensor: role for role, tensor in outputs.items()}
    shapes = {graph.input: graph.input_shape} | {op.output: op.shape for op in graph.operations}
    file = _Graph(graph, file_builder(), names, shapes)
    source = file.activation(graph.input)
    for op in graph.operations:
        if op.kind not in _EMIT:
            raise UnsupportedOperatorError(
                f"a float '{op.kind}'", where=f"layer '{op.name}'", fix="open no gates first"
            )
        _EMIT[op.kind](file, op)
    shown = {role: file.activation(tensor) for role, tensor in outputs.items()}
    Path(path).write_bytes(file.file.finish({"input": source}, shown, {}))
    described = [
        float_spec(role, (1, *channels_last(shapes[name])), "NHWC")
        for role, name in {"input": graph.input, **outputs}.items()
    ]
    return Artefact(Path(path).name, "tflite", (), target, "float32", "", described[0], tuple(described[1:]))
