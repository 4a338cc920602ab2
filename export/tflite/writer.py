# SPDX-License-Identifier: Apache-2.0
"""Serialise a QuantizationPlan as a full-integer TFLite file; every integer and scale is the plan's.

int8 activations, channels last, batch 1. Old runtimes read it right: constants lie inside the flatbuffer and aligned
to 16 bytes, operator versions are those that introduced what is used (so that a runtime that is too old refuses
instead of computing nonsense), fully-connected weights are per-tensor (per-channel ones give constant output, without
an error, on tflite-runtime 2.7 to 2.9). A convolution pads itself where SAME or VALID mean the plan's padding, else a
PAD precedes it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.quantize.packing import packable
from compress.quantize.plan import WIDE, Activation, Operation, QuantizationPlan
from edge_contract.manifest import Artefact, TensorSpec
from export.packed import pack4
from export.tflite.builder import FileBuilder, file_builder
from export.tflite.windows import Sliding, channels_last

__all__ = ["PLAN_KEY", "write"]

PLAN_KEY = "strop.plan"


@dataclass
class _Graph:
    """The file while it is collected: where each activation of the plan lies."""

    plan: QuantizationPlan
    file: FileBuilder
    shown: tuple[str, ...]
    packed: frozenset[str] = frozenset()
    index: dict[str, int] = field(default_factory=dict)

    def name(self, activation: str) -> str:
        if activation == self.plan.input:
            return "input"
        return next((role for role, name in self.plan.outputs.items() if name == activation), activation)

    def activation(self, name: str) -> int:
        """Index of an activation's tensor, made at first use."""
        if name not in self.index:
            spec = self.plan.activations[name]
            self.index[name] = self.like(spec, self.name(name), channels_last(spec.shape))
        return self.index[name]

    def like(self, spec: Activation, name: str, shape: tuple[int, ...]) -> int:
        """A tensor with an activation's scale and zero point under another name or shape."""
        scale = np.array([spec.scale], np.float32)
        return self.file.tensor(name, (1, *shape), "INT8", scales=scale, zero_point=spec.zero_point)

    def flatten_after(self, name: str) -> Operation | None:
        """The flatten that alone reads an activation, unless the activation is shown."""
        readers = [op for op in self.plan.operations if name in op.inputs]
        is_alone = len(readers) == 1 and readers[0].kind == "flatten" and name not in self.shown
        return readers[0] if is_alone else None

    def reshape(self, index: int, output: str) -> None:
        """Write a tensor to an activation under the activation's shape."""
        size = np.array([1, *channels_last(self.plan.activations[output].shape)], np.int32)
        shape = self.file.tensor(f"{output}/shape", size.shape, "INT32", size)
        self.file.operator("RESHAPE", 1, [index, shape], self.activation(output), "ReshapeOptions", newShape=size)

    def constant(self, name: str, codes: NDArray[Any], axis: int) -> int:
        if name in self.packed:
            # One scale per channel even if all are equal: LiteRT 2.1 gives no others to XNNPACK.
            scales = self.plan.constants[name].channel_scales()
            return self.file.tensor(name, codes.shape, "INT4", pack4(codes), scales=scales, axis=axis)
        if self.plan.constants[name].is_float:
            return self.file.tensor(name, codes.shape, "FLOAT32", codes)
        scales = self.plan.constants[name].scales
        kind = "INT8" if codes.dtype == np.int8 else "INT32"
        return self.file.tensor(name, codes.shape, kind, codes, scales=scales, axis=axis)

    def layer(self, op: Operation, kind: str, version: int, inputs: list[int], options: str, **fields: Any) -> None:
        """A layer of ``inputs`` (source, weight, bias); a wide one between DEQUANTIZE and QUANTIZE."""
        target = self.activation(op.output)
        if op.kind not in WIDE.values():
            self.file.operator(kind, version, inputs, target, options, **fields)
            return
        source, made = (
            self.file.tensor(f"{op.output}/{end}", self.file.shape(index), "FLOAT32")
            for end, index in (("from", inputs[0]), ("real", target))
        )
        self.file.operator("DEQUANTIZE", 2, inputs[:1], source)
        self.file.operator(kind, 1, [source, *inputs[1:]], made, options, **fields)
        self.file.operator("QUANTIZE", 1, [made], target)


def _padded(graph: _Graph, op: Operation, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, str]:
    """Return the input tensor of a window operator and its padding scheme, after a PAD where neither scheme fits."""
    source, target = graph.plan.activations[op.inputs[0]], graph.plan.activations[op.output]
    window = Sliding(source.shape, target.shape, kernel, op.attributes["stride"], dilation)
    pairs = window.paddings(op.attributes["padding"])
    found = window.scheme(pairs)
    if found:
        return graph.activation(source.name), found
    return _explicit_pad(graph, op, source, pairs), "VALID"


def _explicit_pad(graph: _Graph, op: Operation, source: Activation, pairs: list[tuple[int, int]]) -> int:
    """PAD writes the zero point; before a max pool the padding must lose every comparison: PADV2 with -128."""
    height, width = (source.shape[1 + a] + sum(pairs[a]) for a in (0, 1))
    padded = graph.like(source, f"{op.output}/pad", (height, width, source.shape[0]))
    table = np.array([(0, 0), *pairs, (0, 0)], np.int32)
    inputs = [graph.activation(source.name), graph.file.tensor(f"{op.output}/pads", table.shape, "INT32", table)]
    if op.kind != "max_pool" or source.zero_point == -128:
        graph.file.operator("PAD", 2, inputs, padded, "PadOptions")
        return padded
    lowest = np.array([-128], np.int8)
    scale = np.array([source.scale], np.float32)
    value = graph.file.tensor(f"{op.output}/low", (1,), "INT8", lowest, scales=scale, zero_point=source.zero_point)
    graph.file.operator("PADV2", 2, [*inputs, value], padded, "PadV2Options")
    return padded


def _conv2d(graph: _Graph, op: Operation) -> None:
    if op.weight in graph.packed:
        _fully_connected(graph, op)
        return
    codes, a = graph.plan.constants[op.weight].codes, op.attributes
    source, padding = _padded(graph, op, codes.shape[2:], a["dilation"])
    channels = graph.plan.activations[op.inputs[0]].shape[0]
    bias = graph.constant(op.bias, graph.plan.constants[op.bias].codes, 0)
    steps = {"strideH": a["stride"][0], "strideW": a["stride"][1]}
    steps |= {"dilationHFactor": a["dilation"][0], "dilationWFactor": a["dilation"][1]}
    if a["groups"][0] == 1:
        weight = graph.constant(op.weight, codes.transpose(0, 2, 3, 1), 0)
        kind, options, extra = "CONV_2D", "Conv2DOptions", {}
    else:
        weight = graph.constant(op.weight, codes.transpose(1, 2, 3, 0), 3)
        kind, options, extra = (
            "DEPTHWISE_CONV_2D",
            "DepthwiseConv2DOptions",
            {"depthMultiplier": codes.shape[0] // channels},
        )
    graph.layer(op, kind, 3, [source, weight, bias], options, padding=graph.file.padding(padding), **steps, **extra)


def _fully_connected(graph: _Graph, op: Operation) -> None:
    """A linear layer; or, packed, a convolution of single pixels, whose map keeps its shape."""
    codes = graph.plan.constants[op.weight].codes
    weight = graph.constant(op.weight, codes.reshape(codes.shape[:2]), 0)
    bias = graph.constant(op.bias, graph.plan.constants[op.bias].codes, 0)
    inputs, version = [graph.activation(op.inputs[0]), weight, bias], 10 if op.weight in graph.packed else 4
    fields = {"keepNumDims": True} if op.kind == "conv2d" else {}
    graph.layer(op, "FULLY_CONNECTED", version, inputs, "FullyConnectedOptions", **fields)


def _add(graph: _Graph, op: Operation) -> None:
    inputs = [graph.activation(name) for name in op.inputs]
    graph.file.operator("ADD", 2, inputs, graph.activation(op.output), "AddOptions")


def _add_constant(graph: _Graph, op: Operation) -> None:
    inputs = [graph.activation(op.inputs[0]), graph.constant(op.weight, graph.plan.constants[op.weight].codes, 0)]
    graph.file.operator("ADD", 2, inputs, graph.activation(op.output), "AddOptions")


def _mul(graph: _Graph, op: Operation) -> None:
    inputs = [graph.activation(name) for name in op.inputs]
    graph.file.operator("MUL", 2, inputs, graph.activation(op.output), "MulOptions")


def _sigmoid(graph: _Graph, op: Operation) -> None:
    graph.file.operator("LOGISTIC", 2, [graph.activation(op.inputs[0])], graph.activation(op.output))


def _concat(graph: _Graph, op: Operation) -> None:
    axis = len(graph.plan.activations[op.output].shape)  # channels are last
    inputs = [graph.activation(name) for name in op.inputs]
    graph.file.operator("CONCATENATION", 2, inputs, graph.activation(op.output), "ConcatenationOptions", axis=axis)


def _global_pool(graph: _Graph, op: Operation) -> None:
    """MEAN without kept dimensions: with them, tflite-runtime 2.14 takes a kernel that moves a fifth of the codes."""
    axes = graph.file.tensor(f"{op.output}/axes", (2,), "INT32", np.array([1, 2], np.int32))
    inputs, spec = [graph.activation(op.inputs[0]), axes], graph.plan.activations[op.output]
    reader = graph.flatten_after(op.output)
    if reader is not None:  # its result is flat already: no RESHAPE
        graph.file.operator("MEAN", 2, inputs, graph.activation(reader.output), "ReducerOptions", keepDims=False)
        return
    flat = graph.like(spec, f"{op.output}/flat", spec.shape[:1])
    graph.file.operator("MEAN", 2, inputs, flat, "ReducerOptions", keepDims=False)
    graph.reshape(flat, op.output)


def _max_pool(graph: _Graph, op: Operation) -> None:
    kernel, stride = op.attributes["kernel"], op.attributes["stride"]
    source, padding = _padded(graph, op, kernel, (1, 1))
    fields = {"strideH": stride[0], "strideW": stride[1], "filterHeight": kernel[0], "filterWidth": kernel[1]}
    fields["padding"] = graph.file.padding(padding)
    graph.file.operator("MAX_POOL_2D", 2, [source], graph.activation(op.output), "Pool2DOptions", **fields)


def _flatten(graph: _Graph, op: Operation) -> None:
    """RESHAPE; a map larger than 1×1 is first turned channels first, so that features keep PyTorch's order."""
    if op.output in graph.index:  # the mean before it wrote it
        return
    source = graph.plan.activations[op.inputs[0]]
    index = graph.activation(source.name)
    if len(source.shape) == 3 and source.shape[1] * source.shape[2] > 1:
        order = graph.file.tensor(f"{op.output}/order", (4,), "INT32", np.array([0, 3, 1, 2], np.int32))
        turned = graph.like(source, f"{op.output}/nchw", source.shape)
        graph.file.operator("TRANSPOSE", 2, [index, order], turned, "TransposeOptions")
        index = turned
    graph.reshape(index, op.output)


_EMIT: dict[str, Callable[[_Graph, Operation], None]] = {
    "conv2d": _conv2d,
    "float_conv2d": _conv2d,
    "linear": _fully_connected,
    "float_linear": _fully_connected,
    "add": _add,
    "add_constant": _add_constant,
    "mul": _mul,
    "sigmoid": _sigmoid,
    "concat": _concat,
    "global_pool": _global_pool,
    "max_pool": _max_pool,
    "flatten": _flatten,
}


def spec_of(plan: QuantizationPlan, role: str) -> TensorSpec:
    """Return the description of the input or an output in the TFLite file."""
    activation = plan.activations[plan.input if role == "input" else plan.outputs[role]]
    layout = "NHWC" if len(activation.shape) == 3 else "NC"
    shape = (1, *channels_last(activation.shape))
    return TensorSpec(role, role, shape, "int8", layout, activation.scale, activation.zero_point)


def write(
    plan: QuantizationPlan,
    path: Path,
    *,
    target: str = "rpi4",
    extra: tuple[str, ...] = (),
    full_names: bool = False,
    packed: bool = False,
) -> Artefact:
    """Write the plan to ``path`` and return the artefact's description, with no runtime claimed yet.

    The same plan gives the same bytes.

    Args:
        plan: What to write.
        path: The file.
        target: Name of the target, for the description.
        extra: Further activations to be shown as outputs, for parity studies.
        full_names: Keep the plan's names of tensors inside the file, for a look with a viewer.
        packed: Store two 4-bit weights in a byte where LiteRT computes them exactly (``compress.quantize.packing``);
            older runtimes and the Edge TPU refuse such a file.

    Raises:
        MissingDependencyError: The package ai-edge-litert or flatbuffers is not installed.
    """
    small = packable(plan, "tflite") if packed else frozenset()
    graph = _Graph(plan, file_builder(), (*plan.outputs.values(), *extra), small)
    graph.activation(plan.input)
    for op in plan.operations:
        _EMIT[op.kind](graph, op)
    shown = {role: graph.activation(name) for role, name in plan.outputs.items()}
    shown |= {name: graph.activation(name) for name in extra}
    metadata = {PLAN_KEY: json.dumps({"digest": plan.digest}, separators=(",", ":")).encode()}
    Path(path).write_bytes(
        graph.file.finish({"input": graph.activation(plan.input)}, shown, metadata, full_names=full_names)
    )
    specs = tuple(spec_of(plan, role) for role in plan.outputs)
    precision = "int4" if small else "int8"
    return Artefact(Path(path).name, "tflite", (), target, precision, plan.digest, spec_of(plan, "input"), specs)
