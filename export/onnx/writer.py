# SPDX-License-Identifier: Apache-2.0
"""Serialise a QuantizationPlan as QDQ ONNX; every integer and scale is the plan's, none is decided here.

Activations are uint8 by default (code + 128), because int8 × int8 convolutions are slower than float in ONNX Runtime
on x86, or int8 where the target says so; weights are int8 per channel, biases int32. Graph input and outputs are the
codes themselves, so that integers can be compared. ONNX Runtime fuses each DequantizeLinear → operator →
QuantizeLinear into one integer operator; max pools and reshapes run on the codes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compress.quantize.packing import packable
from compress.quantize.plan import Operation, QuantizationPlan
from compress.quantize.semantics import LOW
from edge_contract.errors import MissingDependencyError
from edge_contract.manifest import Artefact, TensorSpec
from export.packed import pack4

__all__ = ["OPSET", "PLAN_KEY", "SHIFTS", "finish", "onnx_package", "write"]

OPSET = 17  # the first with everything used here is 13; 17 is read by every ONNX Runtime since 1.12
PACKED_OPSET = 21  # the first whose Cast reads int4; ONNX Runtime reads it since 1.18
_IR = {OPSET: 8, PACKED_OPSET: 10}
SHIFTS = {"uint8": 128, "int8": 0}
PLAN_KEY = "strop.plan"


def onnx_package() -> Any:
    """Return the package onnx.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        fix = 'pip install "strop[workstation]"'
        raise MissingDependencyError("the package 'onnx' is not installed", fix=fix) from error
    return onnx


@dataclass
class _Graph:
    """Nodes and initializers while they are collected."""

    plan: QuantizationPlan
    onnx: Any
    activation: str
    is_qdq: bool
    packed: frozenset[str] = frozenset()
    nodes: list[Any] = field(default_factory=list)
    initializers: dict[str, Any] = field(default_factory=dict)

    def tensor(self, activation: str) -> str:
        """Name in the file: the roles for input and outputs, else the plan's."""
        if activation == self.plan.input:
            return "input"
        return next((role for role, name in self.plan.outputs.items() if name == activation), activation)

    def constant(self, name: str, values: Any) -> str:
        self.initializers.setdefault(name, self.onnx.numpy_helper.from_array(np.array(values, order="C"), name))
        return name

    def weight(self, name: str) -> str:
        """Weights as int8; packed ones behind a Cast, which ONNX Runtime folds when it loads the file."""
        codes = self.plan.constants[name].codes
        if name not in self.packed:
            return self.constant(name, codes)
        stored, helper = f"{name}/packed", self.onnx.helper
        raw = pack4(codes).tobytes()
        self.initializers[stored] = helper.make_tensor(stored, self.onnx.TensorProto.INT4, codes.shape, raw, raw=True)
        return self.node("Cast", [stored], name, to=self.onnx.TensorProto.INT8)

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [output], **attributes))
        return output

    def scale_and_zero_point(self, activation: str) -> list[str]:
        spec = self.plan.activations[activation]
        zero_point = np.array(spec.zero_point + SHIFTS[self.activation], self.activation)
        return [self.constant(f"{activation}/scale", np.float32(spec.scale)), self.zero_point(zero_point)]

    def zero_point(self, values: Any) -> str:
        """One initializer for all equal zero points."""
        return self.constant(f"zero/{values.dtype}/{values.shape}/{values.flat[0]}", values)

    def dequantized(self, activation: str) -> str:
        """A DequantizeLinear of its own for each reader: ONNX Runtime fuses only those."""
        output = f"{activation}/real{len(self.nodes)}"
        return self.node("DequantizeLinear", [self.tensor(activation), *self.scale_and_zero_point(activation)], output)

    def dequantized_constant(self, name: str) -> str:
        constant = self.plan.constants[name]
        scales = constant.scales if constant.axis is not None else constant.scales[0]
        zeros = np.zeros(np.shape(scales), constant.codes.dtype)
        inputs = [
            self.weight(name),
            self.constant(f"{name}/scale", np.asarray(scales, np.float32)),
            self.zero_point(zeros),
        ]
        attributes = {} if constant.axis is None else {"axis": constant.axis}
        return self.node("DequantizeLinear", inputs, f"{name}/real", **attributes)

    def quantized(self, real: str, activation: str) -> None:
        self.node("QuantizeLinear", [real, *self.scale_and_zero_point(activation)], self.tensor(activation))


def _float_operator(graph: _Graph, op: Operation, kind: str, **attributes: Any) -> None:
    """Emit DequantizeLinear for every input, the operator, and QuantizeLinear."""
    inputs = [graph.dequantized(name) for name in op.inputs]
    if op.weight:
        inputs += [graph.dequantized_constant(op.weight), graph.dequantized_constant(op.bias)]
    graph.quantized(graph.node(kind, inputs, f"{op.output}/real", **attributes), op.output)


def _window(graph: _Graph, op: Operation) -> dict[str, Any]:
    a, kernel = op.attributes, list(graph.plan.constants[op.weight].codes.shape[2:])
    sizes: dict[str, Any] = {"strides": list(a["stride"]), "pads": list(a["padding"])}
    return sizes | {"dilations": list(a["dilation"]), "kernel_shape": kernel, "group": a["groups"][0]}


def _conv2d(graph: _Graph, op: Operation) -> None:
    sizes = _window(graph, op)
    if graph.is_qdq:
        _float_operator(graph, op, "Conv", **sizes)
        return
    weight = graph.plan.constants[op.weight]
    inputs = [
        graph.tensor(op.inputs[0]),
        *graph.scale_and_zero_point(op.inputs[0]),
        graph.weight(op.weight),
        graph.constant(f"{op.weight}/scale", weight.scales),
        graph.zero_point(np.array(0, np.int8)),
        *graph.scale_and_zero_point(op.output),
        graph.constant(op.bias, graph.plan.constants[op.bias].codes),
    ]
    graph.node("QLinearConv", inputs, graph.tensor(op.output), **sizes)


def _max_pool(graph: _Graph, op: Operation) -> None:
    a = op.attributes
    sizes = {"kernel_shape": list(a["kernel"]), "strides": list(a["stride"]), "pads": list(a["padding"])}
    graph.node("MaxPool", [graph.tensor(op.inputs[0])], graph.tensor(op.output), **sizes)


def _flatten(graph: _Graph, op: Operation) -> None:
    graph.node("Flatten", [graph.tensor(op.inputs[0])], graph.tensor(op.output), axis=1)


def _add_constant(graph: _Graph, op: Operation) -> None:
    """The constant has the activations' type: ONNX Runtime fuses no others."""
    constant, shift = graph.plan.constants[op.weight], SHIFTS[graph.activation]
    inputs = [
        graph.constant(op.weight, (constant.codes.astype(np.int16) + shift).astype(graph.activation)),
        graph.constant(f"{op.weight}/scale", np.float32(constant.scales[0])),
        graph.zero_point(np.array(shift, graph.activation)),
    ]
    real = graph.node("DequantizeLinear", inputs, f"{op.weight}/real")
    graph.quantized(graph.node("Add", [graph.dequantized(op.inputs[0]), real], f"{op.output}/real"), op.output)


def _concat(graph: _Graph, op: Operation) -> None:
    """Codes are joined as they are: all parts and the result share one scale."""
    graph.node("Concat", [graph.tensor(name) for name in op.inputs], graph.tensor(op.output), axis=1)


def _wide(graph: _Graph, op: Operation, kind: str, **attributes: Any) -> None:
    """A layer with float32 weights, and a clamp at the lowest code, which changes no code.

    Without it ONNX Runtime takes DequantizeLinear → Conv → QuantizeLinear for a layer whose weights somebody forgot
    to quantize, and rounds them to int8 itself; it sees through a Clip, a Relu and an Add, but not through a Max.
    """
    spec, constants = graph.plan.activations[op.output], graph.plan.constants
    weights = [graph.constant(name, constants[name].codes) for name in (op.weight, op.bias)]
    real = graph.node(kind, [graph.dequantized(op.inputs[0]), *weights], f"{op.output}/free", **attributes)
    lowest = np.float32(LOW - spec.zero_point) * np.float32(spec.scale)
    graph.quantized(
        graph.node("Max", [real, graph.constant(f"{op.output}/low", lowest)], f"{op.output}/real"), op.output
    )


_EMIT: dict[str, Callable[[_Graph, Operation], None]] = {
    "conv2d": _conv2d,
    "float_conv2d": lambda graph, op: _wide(graph, op, "Conv", **_window(graph, op)),
    "float_linear": lambda graph, op: _wide(graph, op, "Gemm", transB=1),
    "linear": lambda graph, op: _float_operator(graph, op, "Gemm", transB=1),
    "add": lambda graph, op: _float_operator(graph, op, "Add"),
    "add_constant": _add_constant,
    "mul": lambda graph, op: _float_operator(graph, op, "Mul"),
    "sigmoid": lambda graph, op: _float_operator(graph, op, "Sigmoid"),
    "concat": _concat,
    "global_pool": lambda graph, op: _float_operator(graph, op, "GlobalAveragePool"),
    "max_pool": _max_pool,
    "flatten": _flatten,
}


def spec_of(plan: QuantizationPlan, role: str, dtype: str) -> TensorSpec:
    """Return the description of the input or an output in the ONNX file; the batch is free."""
    activation = plan.activations[plan.input if role == "input" else plan.outputs[role]]
    layout = "NCHW" if len(activation.shape) == 3 else "NC"
    shape = (0, *activation.shape)
    return TensorSpec(role, role, shape, dtype, layout, activation.scale, activation.zero_point + SHIFTS[dtype])


def _value_info(graph: _Graph, activation: str) -> Any:
    kind = getattr(graph.onnx.TensorProto, graph.activation.upper())
    shape = ["batch", *graph.plan.activations[activation].shape]
    return graph.onnx.helper.make_tensor_value_info(graph.tensor(activation), kind, shape)


def _shorten(nodes: list[Any], initializers: list[Any], kept: set[str]) -> None:
    short: dict[str, str] = {}

    def rename(name: str) -> str:
        return name if name in kept or not name else short.setdefault(name, f"{len(short):x}")

    for node in nodes:
        for names in (node.input, node.output):
            names[:] = [rename(name) for name in names]
    for initializer in initializers:
        initializer.name = rename(initializer.name)


def finish(
    path: Path,
    onnx: Any,
    nodes: list[Any],
    *,
    inputs: list[Any],
    outputs: list[Any],
    initializers: list[Any],
    properties: dict[str, str] | None = None,
    full_names: bool = False,
    opset: int = OPSET,
) -> None:
    """Check a graph and write it, byte for byte the same for the same calls.

    Tensors inside get short names, unless ``full_names``: a tenth of a small file would else be names.
    """
    if not full_names:
        _shorten(nodes, initializers, {info.name for info in (*inputs, *outputs)})
    body = onnx.helper.make_graph(nodes, "strop", inputs, outputs, initializers)
    model = onnx.helper.make_model(
        body, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=_IR[opset], producer_name="strop"
    )
    onnx.helper.set_model_props(model, properties or {})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def write(
    plan: QuantizationPlan,
    path: Path,
    *,
    target: str = "generic-x86",
    activation: str = "uint8",
    extra: tuple[str, ...] = (),
    is_qdq: bool = False,
    full_names: bool = False,
    packed: bool = False,
) -> Artefact:
    """Write the plan to ``path`` and return the artefact's description, with no runtime claimed yet.

    The same plan gives the same bytes.

    Args:
        plan: What to write.
        path: The file.
        target: Name of the target, for the description.
        activation: ``uint8`` or ``int8``: the target's ``integers.onnx.activation``.
        extra: Further activations to be shown as outputs, for parity studies.
        is_qdq: Write convolutions too as DequantizeLinear → Conv → QuantizeLinear, which tools other than ONNX Runtime
            may want; the file is larger, the integers are the same.
        full_names: Keep the plan's names of tensors inside the file, for a look with a viewer.
        packed: Store two 4-bit weights in a byte (``compress.quantize.packing``).

    Raises:
        MissingDependencyError: The package onnx is not installed.
    """
    onnx = onnx_package()
    small = packable(plan, "onnx") if packed else frozenset()
    graph = _Graph(plan, onnx, activation, is_qdq, small)
    for op in plan.operations:
        _EMIT[op.kind](graph, op)
    shown = [*plan.outputs.values(), *extra]
    outputs, inputs = [_value_info(graph, name) for name in shown], [_value_info(graph, plan.input)]
    finish(
        Path(path),
        onnx,
        graph.nodes,
        inputs=inputs,
        outputs=outputs,
        initializers=list(graph.initializers.values()),
        properties={PLAN_KEY: plan.digest},
        full_names=full_names,
        opset=PACKED_OPSET if small else OPSET,
    )
    source, *specs = (spec_of(plan, role, activation) for role in ("input", *plan.outputs))
    precision = "int4" if small else "int8"
    return Artefact(Path(path).name, "onnx", (), target, precision, plan.digest, source, tuple(specs))
