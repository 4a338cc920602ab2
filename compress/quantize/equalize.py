# SPDX-License-Identifier: Apache-2.0
"""Cross-layer equalization: scale channels of neighbouring layers against each other, so that their ranges are alike.

A layer, a clamp that does not cut (or cuts at zero only), and the layer behind it compute the same function when a
channel between them is multiplied by s > 0: s times its weights and bias before, 1 / s times its weights behind. With
r1 and r2 the largest weight of the channel before and behind, s = √(r2 / r1) makes both √(r1 · r2) (Nagel et al.,
"Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.1). Chains are solved by
going over them until no factor moves.

Channels that an addition joins are scaled as one; max pool, mean, flatten and concatenation hand factors on. A clamp at
6 does not move with its channel: a channel may grow until its largest value on calibration data reaches the clamp, and
one that reaches it stays. Inputs of products' gates, sigmoids and added constants, the network's input and its output
stay too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from compress.quantize.graph import FloatGraph, FloatOp, evaluate

__all__ = ["equalize", "peaks"]

_LAYERS = ("conv2d", "linear")
_CARRIES = ("max_pool", "global_pool")
_MOST_FACTOR = 100.0  # a channel that is nearly dead may not be blown up without end
_SWEEPS = 50
_SETTLED = 1e-4
_BATCH = 16


def peaks(graph: FloatGraph, samples: Tensor) -> dict[str, Tensor]:
    """Return the largest value of every channel of every tensor that a clamp cuts above, over samples [N, C, H, W]."""
    cut = {op.output for op in graph.operations if math.isfinite(op.high)}
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        for part in torch.split(samples, _BATCH):
            for name, values in evaluate(graph, part):
                if name in cut:
                    top = values.transpose(0, 1).flatten(1).amax(1)
                    found[name] = torch.maximum(found.get(name, top), top)
    return found


def equalize(graph: FloatGraph, peaks: dict[str, Tensor] | None = None) -> FloatGraph:
    """Return a graph of the same float function whose layers have more even weights.

    Args:
        graph: Folded, gates opened, without codes.
        peaks: Largest value per channel behind every clamp with an upper end (``peaks``): below them the function stays
            the same. None leaves those channels as they are.
    """
    slots = _Slots(graph)
    factors = _factors(graph, slots, slots.bounds(graph, peaks or {}))
    return replace(graph, operations=tuple(_scaled(op, slots, factors) for op in graph.operations))


class _Slots:
    """Which channels share one factor: a slot for each set of channels that additions, pools and joins tie together."""

    def __init__(self, graph: FloatGraph) -> None:
        self._parent: list[int] = []
        self._fixed: list[int] = []
        self._of = {graph.input: self._fresh(graph.input_shape[0])}
        self._fix(graph.input)
        for op in graph.operations:
            self._of[op.output] = self._read(op)
        self._fix(graph.output)

    @property
    def count(self) -> int:
        return len(self._parent)

    def of(self, name: str) -> Tensor:
        """Return the slot of each channel of a tensor."""
        return torch.tensor([self._root(slot) for slot in self._of[name]])

    def bounds(self, graph: FloatGraph, peaks: dict[str, Tensor]) -> Tensor:
        """Return how large the factor of each slot may be; 0 for one that must stay 1."""
        most = torch.full((self.count,), _MOST_FACTOR, dtype=torch.float64)
        for op in graph.operations:
            if math.isfinite(op.high):
                peak = peaks.get(op.output, torch.full((op.shape[0],), op.high)).double()
                room = torch.where(peak < op.high * (1 - 1e-6), op.high / peak.clamp(min=1e-30), 0.0)
                most.scatter_reduce_(0, self.of(op.output), room, "amin")
            if math.isfinite(op.low) and op.low != 0.0:
                most[self.of(op.output)] = 0.0
        most[[self._root(slot) for slot in self._fixed]] = 0.0
        return most

    def _read(self, op: FloatOp) -> list[int]:
        first = self._of[op.inputs[0]]
        if op.kind in _LAYERS:
            return self._fresh(op.shape[0])
        if op.kind in _CARRIES:
            return first
        if op.kind == "flatten":
            return [slot for slot in first for _ in range(op.shape[0] // len(first))]
        if op.kind == "concat":
            return [slot for name in op.inputs for slot in self._of[name]]
        if op.kind == "add":
            self._join(first, self._of[op.inputs[1]])
            return first
        if op.kind == "mul":
            self._fix(op.inputs[1])
            return first
        self._fix(op.inputs[0])  # sigmoid, add_constant
        return self._settled(op.shape[0])

    def _fresh(self, channels: int) -> list[int]:
        start = len(self._parent)
        self._parent += range(start, start + channels)
        return list(range(start, start + channels))

    def _settled(self, channels: int) -> list[int]:
        slots = self._fresh(channels)
        self._fixed += slots
        return slots

    def _fix(self, name: str) -> None:
        self._fixed += self._of[name]

    def _join(self, first: Sequence[int], second: Sequence[int]) -> None:
        for a, b in zip(first, second, strict=True):
            self._parent[self._root(a)] = self._root(b)

    def _root(self, slot: int) -> int:
        while self._parent[slot] != slot:
            slot = self._parent[slot]
        return slot


@dataclass(frozen=True, eq=False)
class _Table:
    """The largest weights of one layer: ``sizes`` [out, in], with the slots of its rows [out] and columns.

    A depthwise layer has one column, and its input slots are [out, 1]; else they are [1, in].
    """

    outputs: Tensor
    inputs: Tensor
    sizes: Tensor

    def now(self, factors: Tensor) -> Tensor:
        """The sizes [out, in] after scaling."""
        return self.sizes * factors[self.outputs].unsqueeze(1) / factors[self.inputs]


def _table(op: FloatOp, slots: _Slots) -> _Table:
    assert op.weight is not None
    outputs, inputs = slots.of(op.output), slots.of(op.inputs[0])
    sizes = op.weight.double().abs().flatten(2).amax(2) if op.kind == "conv2d" else op.weight.double().abs()
    if op.kind == "conv2d" and op.attributes["groups"][0] != 1:
        return _Table(outputs, inputs.repeat_interleave(len(outputs) // len(inputs)).unsqueeze(1), sizes)
    return _Table(outputs, inputs.unsqueeze(0), sizes)


def _factors(graph: FloatGraph, slots: _Slots, most: Tensor) -> Tensor:
    """Go over the layers until no factor moves; a slot's factor becomes what makes its r1 and r2 equal."""
    tables = [_table(op, slots) for op in graph.operations if op.kind in _LAYERS]
    touching = []
    for table in tables:
        mine = set(table.outputs.tolist())
        touching.append([t for t in tables if mine & {*t.outputs.tolist(), *t.inputs.flatten().tolist()}])
    factors = torch.ones(slots.count, dtype=torch.float64)
    for _ in range(_SWEEPS):
        before = factors.clone()
        for table, others in zip(tables, touching, strict=True):
            own = torch.unique(table.outputs)
            factors[own] = _balanced(others, factors, most)[own]
        if float((factors / before).log().abs().max()) < _SETTLED:
            break
    return factors


def _balanced(tables: list[_Table], factors: Tensor, most: Tensor) -> Tensor:
    """Return what each slot's factor would have to be, were all others to stay."""
    written, read = torch.zeros_like(factors), torch.zeros_like(factors)
    for table in tables:
        now = table.now(factors)
        written.scatter_reduce_(0, table.outputs, now.amax(1), "amax")
        columns = now.amax(0, keepdim=True) if len(table.inputs) == 1 else now
        read.scatter_reduce_(0, table.inputs.flatten(), columns.flatten(), "amax")
    is_free = (written > 0) & (read > 0) & (most > 0)
    wanted = factors * torch.sqrt(read / written.clamp(min=1e-30))
    return torch.where(is_free, torch.minimum(wanted.clamp(1 / _MOST_FACTOR, _MOST_FACTOR), most), factors)


def _scaled(op: FloatOp, slots: _Slots, factors: Tensor) -> FloatOp:
    """Return a layer with its rows multiplied and its columns divided; other operations stay."""
    if op.kind not in _LAYERS:
        return op
    assert op.weight is not None
    assert op.bias is not None
    outputs, inputs = factors[slots.of(op.output)], factors[slots.of(op.inputs[0])]
    tail = [1] * (op.weight.dim() - 2)
    is_depthwise = op.kind == "conv2d" and op.attributes["groups"][0] != 1
    columns = inputs.repeat_interleave(len(outputs) // len(inputs)).view(-1, 1, *tail) if is_depthwise else None
    weight = op.weight.double() / (inputs.view(1, -1, *tail) if columns is None else columns)
    weight = weight * outputs.view(-1, 1, *tail)
    return replace(op, weight=weight.float(), bias=(op.bias.double() * outputs).float())
