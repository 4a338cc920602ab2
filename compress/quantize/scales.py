# SPDX-License-Identifier: Apache-2.0
"""One scale for each group of tensors that share codes, chosen so that sums, products and means have no tie.

Order matters, because a scale may only grow: ranges → one scale per group → floors → sigmoids → additions, each
connected set at once → means, products and added constants, in the order of computation.
"""

import numpy as np

from compress.quantize.calibrate import Ranges
from compress.quantize.graph import FloatGraph, FloatOp
from compress.quantize.semantics import (
    LOW,
    SIGMOID_SCALE,
    float32,
    scale_and_zero_point,
    sigmoid_margin,
    tie_free_multiples,
    tie_free_ratio,
    tie_free_shift,
    zero_point,
)
from compress.quantize.weights import weight_scales

__all__ = ["Scales", "choose"]

_SHARES_CODES = ("max_pool", "flatten", "concat")  # output codes are input codes
_SIGMOID_MARGIN = 2.0**-9
_PRODUCT_FINEST = 511


class Scales:
    """The scale of each group of tensors that share codes; a scale only grows.

    Attributes:
        scale: Of each group, by the name of the group.
        units: add_constant's output → what its constant must be a multiple of.
    """

    def __init__(self, graph: FloatGraph, ranges: Ranges) -> None:
        self._parent: dict[str, str] = {}
        self.makers: dict[str, list[FloatOp]] = {}
        for op in graph.operations:
            if op.kind in _SHARES_CODES:
                for name in op.inputs:
                    self._parent[self.group(name)] = self.group(op.output)
        for op in graph.operations:
            if op.kind not in _SHARES_CODES:
                self.makers.setdefault(self.group(op.output), []).append(op)
        self._low: dict[str, float] = {}
        self.scale: dict[str, float] = {}
        self.units: dict[str, float] = {}
        for name in (graph.input, *(op.output for op in graph.operations if op.kind not in _SHARES_CODES)):
            self._widen(name, *ranges[name])  # the range before a max pool covers the range after it

    def _widen(self, name: str, low: float, high: float) -> None:
        root = self.group(name)
        scale, _ = scale_and_zero_point(low, high, where=f"tensor '{name}'")
        before = self._low.get(root, 0.0)
        top = max(high, 0.0, before + self.scale.get(root, 0.0) * 255)
        self._low[root] = min(low, 0.0, before)
        joint, _ = scale_and_zero_point(self._low[root], top, where=f"tensor '{name}'")
        self.scale[root] = joint if root in self.scale else scale

    def group(self, name: str) -> str:
        """Return the name of a tensor's group."""
        while self._parent.setdefault(name, name) != name:
            name = self._parent[name]
        return name

    def of(self, name: str) -> float:
        """Return a tensor's scale."""
        return self.scale[self.group(name)]

    def grow(self, name: str, scale: float) -> None:
        """Let a tensor's scale be at least this."""
        root = self.group(name)
        self.scale[root] = max(self.scale[root], float32(scale))

    def fix(self, name: str, scale: float, low: float) -> None:
        """Set a tensor's scale and its smallest value."""
        root = self.group(name)
        self.scale[root], self._low[root] = float32(scale), low

    def zero_point(self, name: str) -> int:
        """Return a tensor's zero point."""
        root = self.group(name)
        return zero_point(self._low[root], self.scale[root]) if self._low[root] < 0.0 else LOW


def choose(graph: FloatGraph, ranges: Ranges, *, tie_free: bool) -> tuple[Scales, list[str]]:
    """Return the scale of every tensor, and notes for the report.

    Args:
        graph: Folded, gates opened.
        ranges: Observed range per tensor.
        tie_free: Choose scales without ties; False keeps the observed ones where the kernels allow it.

    Raises:
        ModelError: A range beyond float32.
    """
    scales, notes = Scales(graph, ranges), list[str]()
    for op in graph.operations:
        _floor(graph, op, scales)
    for op in graph.operations:
        if op.kind == "sigmoid":
            scales.fix(op.output, SIGMOID_SCALE, 0.0)
            if tie_free:
                _spread_sigmoid(op, scales)
    bound = _join_additions(graph, scales) if tie_free else set[str]()
    for op in graph.operations:
        _free(graph, op, scales, bound, notes, tie_free=tie_free)
    return scales, notes


def shape_of(graph: FloatGraph, name: str) -> tuple[int, ...]:
    """Return a tensor's shape without batch."""
    producer = graph.producer(name)
    return graph.input_shape if producer is None else producer.shape


def _count(graph: FloatGraph, op: FloatOp) -> int:
    return int(np.prod(shape_of(graph, op.inputs[0])[1:]))


def _floor(graph: FloatGraph, op: FloatOp, scales: Scales) -> None:
    """An output step finer than the accumulator's step says nothing; dead outputs would else have no scale at all."""
    if op.kind in ("conv2d", "linear") and not op.wide:
        scales.grow(op.output, scales.of(op.inputs[0]) * float(weight_scales(op).max()))
    elif op.kind == "add":
        scales.grow(op.output, max(scales.of(name) for name in op.inputs) / 128)
    elif op.kind == "global_pool":
        scales.grow(op.output, scales.of(op.inputs[0]) / _count(graph, op))
    elif op.kind == "mul":
        scales.grow(op.output, scales.of(op.inputs[0]) * scales.of(op.inputs[1]))


def _spread_sigmoid(op: FloatOp, scales: Scales) -> None:
    """Grow the input's scale by up to 3 % until no entry of the sigmoid's table lies near a tie."""
    source = op.inputs[0]
    makers = scales.makers.get(scales.group(source), [])
    if [maker.kind for maker in makers] not in (["conv2d"], ["linear"]):
        return  # its scale follows from others
    start = scales.of(source)
    for step in range(16):
        scales.grow(source, start * (1 + step / 512))
        if sigmoid_margin(scales.of(source), scales.zero_point(source)) >= _SIGMOID_MARGIN:
            return


def _join_additions(graph: FloatGraph, scales: Scales) -> set[str]:
    """Give each connected set of additions scales without ties; return the groups that took part."""
    component: dict[str, str] = {}

    def root(name: str) -> str:
        while component.setdefault(name, name) != name:
            name = component[name]
        return name

    for op in graph.operations:
        if op.kind == "add":
            names = [scales.group(name) for name in (*op.inputs, op.output)]
            for name in names[1:]:
                component[root(name)] = root(names[0])
    members: dict[str, list[str]] = {}
    for name in component:
        members.setdefault(root(name), []).append(name)
    for groups in members.values():
        for name, scale in zip(groups, tie_free_multiples([scales.scale[g] for g in groups]), strict=True):
            scales.grow(name, scale)
    return set(component)


def _free(graph: FloatGraph, op: FloatOp, scales: Scales, bound: set[str], notes: list[str], *, tie_free: bool) -> None:
    """Give a mean, a product or an added constant an output scale without ties, unless others decide that scale."""
    if op.kind not in ("global_pool", "mul", "add_constant"):
        return
    if op.kind == "add_constant":
        wanted = (op.high - op.low) / 255
        scale, unit = tie_free_shift(scales.of(op.inputs[0]), wanted) if tie_free else (wanted, 1.0)
        scales.fix(op.output, scale, op.low)
        scales.units[op.output] = unit
        return
    group = scales.group(op.output)
    if not tie_free:
        return
    if group in bound or len(scales.makers[group]) > 1:
        what = "mean" if op.kind == "global_pool" else "product"
        notes.append(
            f"layer '{op.name}': its {what} shares a scale with others, so runtimes may differ by 1 step at a tie"
        )
    elif op.kind == "global_pool":
        scales.grow(op.output, tie_free_ratio(scales.of(op.inputs[0]), scales.of(op.output), _count(graph, op)))
    else:
        step = scales.of(op.inputs[0]) * scales.of(op.inputs[1])
        scales.grow(op.output, tie_free_ratio(step, scales.of(op.output), 1, finest=_PRODUCT_FINEST))
