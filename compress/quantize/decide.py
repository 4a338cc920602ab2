# SPDX-License-Identifier: Apache-2.0
"""Decide every integer: a folded graph and its observed ranges become a QuantizationPlan."""

from dataclasses import replace

from torch import Tensor

from compress.quantize.calibrate import Observed
from compress.quantize.graph import FloatGraph, FloatOp, layer_names
from compress.quantize.plan import Activation, Constant, Operation, QuantizationPlan
from compress.quantize.scales import Scales, choose
from compress.quantize.weights import added_constant, constants
from compress.quantize.wide import wide_constants, wide_kind
from edge_contract.errors import ModelError

__all__ = ["decide"]


def decide(
    graph: FloatGraph,
    observed: Observed,
    *,
    samples: int,
    embedding: bool,
    tie_free: bool,
    fixed_point: bool,
    correct_bias: bool,
) -> QuantizationPlan:
    """Return the plan of a folded graph.

    Args:
        graph: Operations of the plan's kinds only.
        observed: Range and means of each tensor.
        samples: Number of calibration samples, for the report.
        embedding: Show the input of the last linear layer as the output ``embedding``.
        tie_free: Choose scales without ties for additions and means (``semantics``); False keeps the observed ones.
        fixed_point: Choose multipliers that kernels with double rounding compute alike (``semantics``).
        correct_bias: Take the mean shift of rounded weights off the biases (``bias``).

    Raises:
        ModelError: Ranges or weights beyond float32, or an embedding is asked of a model without linear layer.
        UnsupportedOperatorError: A layer so wide that its int32 sums may overflow.
    """
    scales, notes = choose(graph, observed.ranges, tie_free=tie_free)
    made: dict[str, Constant] = {}
    operations = []
    for op, name in zip(graph.operations, layer_names(graph), strict=True):
        mean = observed.means[op.inputs[0]] if correct_bias else None
        own = _constants_of(replace(op, name=name), scales, notes, mean, fixed_point=fixed_point)
        made |= {constant.name: constant for constant in own}
        weight, bias = ([constant.name for constant in own] + ["", ""])[:2]
        kind = wide_kind(op) if op.wide else op.kind
        operations.append(Operation(kind, name, op.inputs, op.output, weight, bias, dict(op.attributes)))
    shapes = {graph.input: graph.input_shape} | {op.output: op.shape for op in graph.operations}
    activations = {n: Activation(n, s, scales.of(n), scales.zero_point(n)) for n, s in shapes.items()}
    outputs = {"logits": graph.output}
    if embedding:
        outputs["embedding"] = _embedding(graph)
    return QuantizationPlan(graph.input, outputs, activations, made, tuple(operations), samples, tuple(notes))


def _constants_of(
    op: FloatOp, scales: Scales, notes: list[str], mean: Tensor | None, *, fixed_point: bool
) -> tuple[Constant, ...]:
    if op.kind == "add_constant":
        return (added_constant(op, scales.units[op.output]),)
    if op.weight is None:
        return ()
    if op.wide:
        return wide_constants(op)
    steps = (scales.of(op.inputs[0]), scales.of(op.output))
    return constants(op, steps, notes, mean, fixed_point=fixed_point)


def _embedding(graph: FloatGraph) -> str:
    last = next((op for op in reversed(graph.operations) if op.kind == "linear"), None)
    if last is None:
        raise ModelError("no linear layer, so no embedding", where="model", fix="quantize with embedding=False")
    return last.inputs[0]
