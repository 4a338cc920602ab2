# SPDX-License-Identifier: Apache-2.0
"""Decide every integer: a folded graph and its observed ranges become a QuantizationPlan.

Order matters, because a scale may only grow: ranges → one scale per group of tensors that share codes → floors → scales
without ties for additions, then for means → weights → biases from the final scales.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.quantize.calibrate import Ranges
from compress.quantize.graph import FloatGraph, FloatOp
from compress.quantize.plan import Activation, Constant, Operation, QuantizationPlan
from compress.quantize.semantics import (
    LOW,
    WEIGHT_HIGH,
    fixed_point_multiplier,
    float32,
    scale_and_zero_point,
    tie_free_multiples,
    tie_free_ratio,
    zero_point,
)
from edge_contract.errors import ModelError, UnsupportedOperatorError

__all__ = ["decide"]

_SHARES_CODES = ("max_pool", "flatten")  # output codes are input codes
_BIAS_LIMIT = 2.0**30
_FINEST_MULTIPLIER = 2.0**-21  # a channel finer than that moves no output; with it |bias| < 255 × 2**21 < 2**30


class _Scales:
    """The scale of each group of tensors that share codes; a scale only grows."""

    def __init__(self, graph: FloatGraph, ranges: Ranges) -> None:
        self.group = {graph.input: graph.input}
        for op in graph.operations:
            self.group[op.output] = self.group[op.inputs[0]] if op.kind in _SHARES_CODES else op.output
        self.low: dict[str, float] = {}
        self.scale: dict[str, float] = {}
        for name, root in self.group.items():
            if name == root:  # the range before a max pool covers the range after it
                low, high = ranges[root]
                self.low[root] = min(low, 0.0)
                self.scale[root] = scale_and_zero_point(low, high, where=f"tensor '{root}'")[0]

    def of(self, name: str) -> float:
        return self.scale[self.group[name]]

    def grow(self, name: str, scale: float) -> None:
        root = self.group[name]
        self.scale[root] = max(self.scale[root], float32(scale))

    def zero_point(self, name: str) -> int:
        root = self.group[name]
        return zero_point(self.low[root], self.scale[root]) if self.low[root] < 0.0 else LOW


def _weight_scales(op: FloatOp) -> NDArray[Any]:
    """float32 scales [out] of a convolution, [1] of a linear layer (old runtimes read no others), from the weights."""
    assert op.weight is not None
    largest = op.weight.double().abs().flatten(1).amax(1)
    scales = (largest if op.kind == "conv2d" else largest.amax().reshape(1)) / WEIGHT_HIGH
    coarsest = float(scales.max()) or 2.0**-40
    # A channel of zeros has no scale of its own: the layer's coarsest one is as exact for it.
    return torch.where(scales > 0, scales, coarsest).numpy().astype(np.float32)


def _floor_outputs(graph: FloatGraph, scales: _Scales) -> None:
    """An output step finer than the accumulator's step says nothing; dead outputs would else have no scale at all."""
    for op in graph.operations:
        if op.weight is not None:
            scales.grow(op.output, scales.of(op.inputs[0]) * float(_weight_scales(op).max()))
        elif op.kind == "add":
            scales.grow(op.output, max(scales.of(name) for name in op.inputs) / 128)
        elif op.kind == "global_pool":
            scales.grow(op.output, scales.of(op.inputs[0]) / np.prod(_shape_of(graph, op.inputs[0])[1:]))


def _shape_of(graph: FloatGraph, name: str) -> tuple[int, ...]:
    producer = graph.producer(name)
    return graph.input_shape if producer is None else producer.shape


def _join_additions(graph: FloatGraph, scales: _Scales) -> set[str]:
    """Give each connected set of additions scales without ties; return the groups that took part."""
    component: dict[str, str] = {}

    def root(name: str) -> str:
        while component.setdefault(name, name) != name:
            name = component[name]
        return name

    for op in graph.operations:
        if op.kind == "add":
            names = [scales.group[name] for name in (*op.inputs, op.output)]
            for name in names[1:]:
                component[root(name)] = root(names[0])
    members: dict[str, list[str]] = {}
    for name in component:
        members.setdefault(root(name), []).append(name)
    for groups in members.values():
        for name, scale in zip(groups, tie_free_multiples([scales.scale[g] for g in groups]), strict=True):
            scales.grow(name, scale)
    return set(component)


def _free_means(graph: FloatGraph, scales: _Scales, bound: set[str]) -> list[str]:
    """Give each mean an output scale without ties, unless an addition already fixed that scale."""
    notes = []
    for op in graph.operations:
        if op.kind != "global_pool":
            continue
        if scales.group[op.output] in bound:
            notes.append(f"layer '{op.name}': its mean feeds an addition, so runtimes may differ by 1 step at a tie")
            continue
        count = int(np.prod(_shape_of(graph, op.inputs[0])[1:]))
        scales.grow(op.output, tie_free_ratio(scales.of(op.inputs[0]), scales.of(op.output), count))
    return notes


def _grown_scales(op: FloatOp, scales: _Scales, notes: list[str], *, fixed_point: bool) -> NDArray[np.float32]:
    """Weight scales [out] or [1], large enough for the bias in int32, and moved to multipliers that round alike."""
    assert op.bias is not None
    source, target = scales.of(op.inputs[0]), scales.of(op.output)
    wanted = _weight_scales(op)
    needed = op.bias.double().abs().numpy() / (source * _BIAS_LIMIT)
    needed = needed if op.kind == "conv2d" else needed.max(keepdims=True)
    grown = np.maximum(wanted, np.maximum(needed, max(target / source * _FINEST_MULTIPLIER, 2.0**-100)))
    count = int((grown > wanted).sum())
    if count:
        notes.append(f"layer '{op.name}': {count} weight scales grown, so that the bias fits in int32")
    if fixed_point:
        ratio = target / source
        grown = np.array([fixed_point_multiplier(float(scale) / ratio) * ratio for scale in grown])
    final: NDArray[np.float32] = grown.astype(np.float32)
    products = np.float32(source) * final
    if not np.isfinite(products).all() or (products < 2.0**-120).any():
        raise ModelError("scales leave the range of float32", where=f"layer '{op.name}'", fix="rescale its weights")
    return final


def _constants(op: FloatOp, scales: _Scales, weight_scales: NDArray[np.float32]) -> tuple[Constant, Constant]:
    """Round the weights and the bias of one layer to its final scales."""
    assert op.weight is not None
    assert op.bias is not None
    source = np.float32(scales.of(op.inputs[0]))
    product = (source * np.broadcast_to(weight_scales, (op.weight.shape[0],))).astype(np.float32)
    weight = _rounded(op.weight, weight_scales)
    bias = np.rint(op.bias.double().numpy() / product.astype(np.float64)).astype(np.int32)
    _check_sums(op, weight, bias)
    axis = 0 if op.kind == "conv2d" else None
    bias_scales = product if axis == 0 else product[:1]
    return (
        Constant(f"{op.name}.weight", weight, weight_scales, axis),
        Constant(f"{op.name}.bias", bias, bias_scales, axis),
    )


def _rounded(weight: Tensor, scales: NDArray[Any]) -> NDArray[Any]:
    shape = (-1, *([1] * (weight.dim() - 1)))
    codes = np.rint(weight.double().numpy() / scales.astype(np.float64).reshape(shape))
    return np.clip(codes, -WEIGHT_HIGH, WEIGHT_HIGH).astype(np.int8)


def _check_sums(op: FloatOp, weight: NDArray[Any], bias: NDArray[Any]) -> None:
    largest = np.abs(weight.astype(np.int64)).reshape(weight.shape[0], -1).sum(1) * 255 + np.abs(bias.astype(np.int64))
    if largest.max() >= 2**31:
        what = "its sums may overflow int32"
        raise UnsupportedOperatorError(what, where=f"layer '{op.name}'", fix="split it into two layers")


def decide(
    graph: FloatGraph, ranges: Ranges, *, samples: int, embedding: bool, tie_free: bool, fixed_point: bool
) -> QuantizationPlan:
    """Return the plan of a folded graph.

    Args:
        graph: Operations of the plan's kinds only.
        ranges: Observed range per tensor.
        samples: Number of calibration samples, for the report.
        embedding: Show the input of the last linear layer as the output ``embedding``.
        tie_free: Choose scales without ties for additions and means (``semantics``); False keeps the observed ones.
        fixed_point: Choose multipliers that kernels with double rounding compute alike (``semantics``).

    Raises:
        ModelError: Ranges or weights beyond float32, or an embedding is asked of a model without linear layer.
        UnsupportedOperatorError: A layer so wide that its int32 sums may overflow.
    """
    scales, notes = _Scales(graph, ranges), list[str]()
    _floor_outputs(graph, scales)
    if tie_free:
        notes += _free_means(graph, scales, _join_additions(graph, scales))
    names = _unique_names(graph)
    constants: dict[str, Constant] = {}
    operations = []
    for op, name in zip(graph.operations, names, strict=True):
        weight = bias = ""
        if op.weight is not None:
            named = replace(op, name=name)
            pair = _constants(named, scales, _grown_scales(named, scales, notes, fixed_point=fixed_point))
            constants |= {constant.name: constant for constant in pair}
            weight, bias = pair[0].name, pair[1].name
        operations.append(Operation(op.kind, name, op.inputs, op.output, weight, bias, dict(op.attributes)))
    shapes = {graph.input: graph.input_shape} | {op.output: op.shape for op in graph.operations}
    activations = {n: Activation(n, s, scales.of(n), scales.zero_point(n)) for n, s in shapes.items()}
    outputs = {"logits": graph.output}
    if embedding:
        outputs["embedding"] = _embedding(graph)
    return QuantizationPlan(graph.input, outputs, activations, constants, tuple(operations), samples, tuple(notes))


def _unique_names(graph: FloatGraph) -> list[str]:
    """Module paths, with #2, #3 where a module (or the outermost forward) computes several operations."""
    seen: dict[str, int] = {}
    names = []
    for op in graph.operations:
        seen[op.name] = seen.get(op.name, 0) + 1
        names.append(op.name if seen[op.name] == 1 else f"{op.name}#{seen[op.name]}")
    return names


def _embedding(graph: FloatGraph) -> str:
    last = next((op for op in reversed(graph.operations) if op.kind == "linear"), None)
    if last is None:
        raise ModelError("no linear layer, so no embedding", where="model", fix="quantize with embedding=False")
    return last.inputs[0]
