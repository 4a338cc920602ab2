# SPDX-License-Identifier: Apache-2.0
"""Open hard-swish and SiLU into a sum and a product that every runtime computes alike, and fast.

x · relu6(x + 3) / 6 (Howard et al., "Searching for MobileNetV3", 2019) becomes t = clamp(x + 3, 0, 6) and x · t. The
sixth is not computed at all: the tensor holds six times the value, and the convolution that reads it has a sixth of the
weights. Kernels for int8 hard-swish are slow in LiteRT and absent in ONNX Runtime.
"""

from dataclasses import replace

import torch

from compress.quantize.graph import FloatGraph, FloatOp
from edge_contract.errors import UnsupportedOperatorError

__all__ = ["open_gates"]

_CARRIES = ("max_pool", "flatten", "global_pool")  # f(6 x) = 6 f(x)
_JOINS = ("add", "concat")


class _Opener:
    """The operations so far, and how many times its value each tensor holds."""

    def __init__(self, graph: FloatGraph) -> None:
        self.factor = {graph.input: 1.0}
        self.operations: list[FloatOp] = []
        self.shapes = {graph.input: graph.input_shape} | {op.output: op.shape for op in graph.operations}

    def emit(self, op: FloatOp, factor: float) -> None:
        self.operations.append(replace(op, low=op.low * factor, high=op.high * factor))
        self.factor[op.output] = factor

    def plain(self, name: str, layer: str) -> str:
        """Return the name of a tensor that holds the value itself."""
        return name if self.factor[name] == 1.0 else self.copy(name, layer)

    def copy(self, name: str, layer: str) -> str:
        """Return the name of a tensor that holds the value itself, with a scale of its own."""
        copied = f"{name}_once"
        if copied not in self.factor:
            self.operations.append(_divided(name, copied, layer, self.shapes[name], self.factor[name]))
            self.factor[copied] = 1.0
        return copied

    def free(self, op: FloatOp) -> FloatOp:
        """A sigmoid's scale is fixed, so it cannot be shared or made free of ties: its readers get a copy."""
        made = {other.output: other.kind for other in self.operations}
        names = tuple(self.copy(n, op.name) if made.get(n) == "sigmoid" else n for n in op.inputs)
        return replace(op, inputs=names)

    def read(self, op: FloatOp) -> None:
        if op.kind in _JOINS:
            op = self.free(op)
        if op.kind in ("hard_swish", "silu"):
            self.open(op)
        elif op.weight is not None:
            factor = self.factor[op.inputs[0]]
            self.emit(op if factor == 1.0 else replace(op, weight=op.weight / factor), 1.0)
        elif op.kind in _CARRIES:
            self.emit(op, self.factor[op.inputs[0]])
        elif op.kind == "mul":
            self.emit(op, self.factor[op.inputs[0]] * self.factor[op.inputs[1]])
        elif op.kind in _JOINS and len({self.factor[name] for name in op.inputs}) == 1:
            self.emit(op, self.factor[op.inputs[0]])
        else:
            self.emit(replace(op, inputs=tuple(self.plain(name, op.name) for name in op.inputs)), 1.0)

    def open(self, op: FloatOp) -> None:
        source, opening = self.plain(op.inputs[0], op.name), f"{op.output}_gate"
        if op.kind == "silu":
            self.emit(FloatOp("sigmoid", op.name, (source,), opening, op.shape), 1.0)
            self.emit(replace(op, kind="mul", inputs=(source, opening)), 1.0)
            return
        three = torch.tensor([3.0])
        gate = FloatOp("add_constant", op.name, (source,), opening, op.shape, weight=three, low=0.0, high=6.0)
        self.emit(gate, 1.0)
        self.emit(replace(op, kind="mul", inputs=(source, opening)), 6.0)


def _divided(name: str, output: str, layer: str, shape: tuple[int, ...], factor: float) -> FloatOp:
    if len(shape) != 3:
        what = "a hard-swish or sigmoid on a flat tensor whose reader is neither a linear layer nor a product"
        raise UnsupportedOperatorError(what, where=f"layer '{layer}'", fix="put a linear layer behind it")
    weight = torch.full((shape[0], 1, 1, 1), 1.0 / factor)
    attributes = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": (shape[0],)}
    bias = torch.zeros(shape[0])
    return FloatOp("conv2d", layer, (name,), output, shape, weight=weight, bias=bias, attributes=attributes)


def open_gates(graph: FloatGraph) -> FloatGraph:
    """Return an equal graph (to float32 rounding) without hard_swish and silu; a folded one stays folded.

    Raises:
        UnsupportedOperatorError: A hard-swish whose result leaves the model, or is added, as a flat tensor.
    """
    opener = _Opener(graph)
    for op in graph.operations:
        opener.read(op)
    output = opener.plain(graph.output, "output")
    return replace(graph, operations=tuple(opener.operations), output=output)
