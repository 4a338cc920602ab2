# SPDX-License-Identifier: Apache-2.0
"""FloatGraph: a network as the few operations that a plan can hold, still in float32.

``trace`` makes it from a module, ``fold`` rewrites it, ``calibrate`` runs it over samples, ``decide`` turns it into a
QuantizationPlan. A convolution or linear layer always carries its weight and bias here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["FloatGraph", "FloatOp", "as_maps", "compute", "evaluate", "layer_names", "pad_asymmetric"]


@dataclass(frozen=True, eq=False)
class FloatOp:
    """One operation.

    Attributes:
        kind: A kind of the plan; ``batch_norm``, ``clamp`` and ``pad``, which folding removes; or ``hard_swish`` and
            ``silu``, which ``gates`` opens.
        name: Module path in the user's model.
        inputs, output: Tensor names.
        shape: Of the output, without batch.
        weight, bias: conv2d and linear; batch_norm has its factor [C] and offset [C], add_constant its weight [1].
        attributes: As in ``plan.Operation``; pad has its padding [4].
        low, high: Clamp of the output: 0 and infinity after a ReLU, 0 and 6 after a ReLU6.
        steps: Scales of the weights that a pass has chosen, float32 [out] or [1]; None takes max|w| / 127.
        codes: Weights that a pass has rounded already, int8 of the weight's shape; None rounds to nearest.
        weight_bits: 8 or 4: codes in -127..127 or -7..7.
        wide: Compute this layer in float32 between its int8 input and output.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    output: str
    shape: tuple[int, ...]
    weight: Tensor | None = None
    bias: Tensor | None = None
    attributes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    low: float = float("-inf")
    high: float = float("inf")
    steps: Tensor | None = None
    codes: Tensor | None = None
    weight_bits: int = 8
    wide: bool = False


@dataclass(frozen=True, eq=False)
class FloatGraph:
    """Operations in execution order, from one input to the logits."""

    input: str
    input_shape: tuple[int, ...]
    output: str
    operations: tuple[FloatOp, ...]

    def users(self, name: str) -> list[FloatOp]:
        """Return the operations that read a tensor."""
        return [operation for operation in self.operations if name in operation.inputs]

    def producer(self, name: str) -> FloatOp | None:
        """Return the operation that computes a tensor, None for the input."""
        return next((operation for operation in self.operations if operation.output == name), None)

    def rename(self, old: str, new: str) -> "FloatGraph":
        """Return the graph with every reader of ``old`` reading ``new``."""
        swap = tuple(
            replace(op, inputs=tuple(new if name == old else name for name in op.inputs)) for op in self.operations
        )
        return replace(self, operations=swap, output=new if self.output == old else self.output)


def layer_names(graph: FloatGraph) -> tuple[str, ...]:
    """Return the name of each operation as the plan has it: the module path, with #2, #3 where one computes several."""
    seen: dict[str, int] = {}
    names = []
    for op in graph.operations:
        seen[op.name] = seen.get(op.name, 0) + 1
        names.append(op.name if seen[op.name] == 1 else f"{op.name}#{seen[op.name]}")
    return tuple(names)


def pad_asymmetric(x: Tensor, padding: Sequence[int], value: float) -> Tensor:
    """Return x [N, C, H, W] padded by [top, left, bottom, right] with a value."""
    top, left, bottom, right = padding
    return F.pad(x, (left, right, top, bottom), value=value) if any(padding) else x


def as_maps(x: Tensor) -> Tensor:
    """Return a series [N, C, L] as maps of height 1 [N, C, 1, L]; maps stay."""
    return x.unsqueeze(2) if x.dim() == 3 else x


def _conv2d(op: FloatOp, x: Tensor) -> Tensor:
    a = op.attributes
    padded = pad_asymmetric(x, a["padding"], 0.0)
    assert op.weight is not None
    return F.conv2d(padded, op.weight, op.bias, a["stride"], 0, a["dilation"], a["groups"][0])


def _linear(op: FloatOp, x: Tensor) -> Tensor:
    assert op.weight is not None
    return F.linear(x, op.weight, op.bias)


def _batch_norm(op: FloatOp, x: Tensor) -> Tensor:
    assert op.weight is not None
    assert op.bias is not None
    per_channel = (1, -1, *([1] * (x.dim() - 2)))
    return x * op.weight.view(per_channel) + op.bias.view(per_channel)


def _max_pool(op: FloatOp, x: Tensor) -> Tensor:
    a = op.attributes
    return F.max_pool2d(pad_asymmetric(x, a["padding"], float("-inf")), a["kernel"], a["stride"])


_COMPUTE: dict[str, Callable[..., Tensor]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "max_pool": _max_pool,
    "add": lambda op, a, b: a + b,
    "add_constant": lambda op, x: x + op.weight,
    "mul": lambda op, a, b: a * b,
    "sigmoid": lambda op, x: torch.sigmoid(x),
    "concat": lambda op, *parts: torch.cat(parts, 1),
    "hard_swish": lambda op, x: F.hardswish(x),
    "silu": lambda op, x: F.silu(x),
    "pad": lambda op, x: pad_asymmetric(x, op.attributes["padding"], 0.0),
    "global_pool": lambda op, x: x.mean((2, 3), keepdim=True),
    "flatten": lambda op, x: x.flatten(1),
    "clamp": lambda op, x: x,
}


def compute(op: FloatOp, *inputs: Tensor) -> Tensor:
    """Return the float32 output [N, ...] of one operation, clamped as its activation asks."""
    return torch.clamp(_COMPUTE[op.kind](op, *inputs), op.low, op.high)


def evaluate(graph: FloatGraph, x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and float32 value [N, ...] of every tensor in order, the input first.

    A value is dropped as soon as its last reader has run, so that memory does not grow with depth.
    """
    last_reader = {name: i for i, op in enumerate(graph.operations) for name in op.inputs}
    values = {graph.input: x}
    yield graph.input, x
    for i, op in enumerate(graph.operations):
        values[op.output] = compute(op, *(values[name] for name in op.inputs))
        for name in set(op.inputs):
            if last_reader[name] == i:
                del values[name]
        yield op.output, values[op.output]
