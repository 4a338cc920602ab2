# SPDX-License-Identifier: Apache-2.0
"""Predict from a TFLite file how much memory running it takes: weights, the activations in work, and their arena.

The lives of tensors come from the graph, sharing and scratch memory from TFLite's kernels, the arena from its planner
(``arena``). The prediction is for TFLite's own kernels; XNNPACK keeps a further copy of packed weights and a workspace
of its own. Tests hold it against the addresses that LiteRT gives to its tensors.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from export.memory.arena import FOREVER, Block, arena_bytes
from export.tflite.model import Operator, Subgraph, Tensor, TFLiteModel

__all__ = ["MemoryReport", "kept", "lives", "predict", "scratch"]

# Kernels that may write over an input: the same bytes (a view), or a changed value of the same size.
_VIEWS: Final = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "BITCAST")
_OVERWRITES: Final = {"ADD": 2, "SUB": 2, "MUL": 2, "DIV": 2, "SOFTMAX": 1}
_SCALAR_BYTES: Final = 4
_UNPACK: Final = ("DEQUANTIZE", "DENSIFY")  # of a constant: computed once and kept


@dataclass(frozen=True)
class MemoryReport:
    """What a model takes while it runs, in bytes.

    Attributes:
        arena_bytes: The block that TFLite allocates for activations and scratch memory.
        peak_activation_bytes: Activations that live at once where they are most; no planner can do with less.
        weights_bytes: Constants in the file.
        persistent_bytes: Constants that are unpacked when the model is loaded, and state between calls.
        at_operator: The number of the operator at the peak; -1 without operators.
        peak_kind: Its kind.
        peak_tensors: Names of the activations that live there, the largest first.
    """

    arena_bytes: int
    peak_activation_bytes: int
    weights_bytes: int
    persistent_bytes: int
    at_operator: int
    peak_kind: str
    peak_tensors: tuple[str, ...]

    @property
    def total_bytes(self) -> int:
        """Weights, what is kept and the arena: what one loaded model needs beside the runtime itself."""
        return self.arena_bytes + self.weights_bytes + self.persistent_bytes

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "arena_bytes": self.arena_bytes,
            "peak_activation_bytes": self.peak_activation_bytes,
            "weights_bytes": self.weights_bytes,
            "persistent_bytes": self.persistent_bytes,
            "at_operator": self.at_operator,
            "peak_kind": self.peak_kind,
            "peak_tensors": list(self.peak_tensors),
        }


def predict(model: TFLiteModel) -> MemoryReport:
    """Return the memory that a TFLite file takes at batch 1, free dimensions taken as the file's shapes say."""
    graph = model.main
    blocks = lives(graph)
    peak, at = _peak(blocks, len(graph.operators))
    weights = sum({id(t.data): len(t.data) for t in graph.tensors if t.data is not None}.values())
    alive = sorted((b for b in blocks if b.first <= at <= b.last and b.tensor >= 0), key=lambda b: -b.size)
    return MemoryReport(
        arena_bytes((*blocks, *scratch(graph))),
        peak,
        weights,
        sum(graph.tensors[index].size for index in kept(graph)),
        at,
        graph.operators[at].kind if at >= 0 else "",
        tuple(graph.tensors[block.tensor].name for block in alive),
    )


def _peak(blocks: tuple[Block, ...], count: int) -> tuple[int, int]:
    """Return the largest sum of living blocks, and the first operator where it is reached."""
    change: Counter[int] = Counter()
    for block in blocks:
        change[block.first] += block.size
        change[block.last + 1] -= block.size
    sums, alive = [], 0
    for operator in range(count):
        alive += change[operator]
        sums.append(alive)
    return (max(sums), sums.index(max(sums))) if sums else (0, -1)


def kept(graph: Subgraph) -> frozenset[int]:
    """Return the tensors that live outside the arena for good: state, and constants that are unpacked once."""
    found = {tensor.index for tensor in graph.tensors if tensor.is_variable}
    fixed = {-1} | {tensor.index for tensor in graph.tensors if tensor.data is not None}
    for operator in graph.operators:
        if operator.kind in _UNPACK and fixed.issuperset(operator.inputs):
            found.update(operator.outputs)
            fixed.update(operator.outputs)
    return frozenset(found)


def lives(graph: Subgraph) -> tuple[Block, ...]:
    """Return each activation that has memory of its own in the arena, with its life in operators.

    Inputs live from the start and, like outputs, are never freed. A tensor that a kernel writes over its input has no
    memory of its own and prolongs the input's life.
    """
    owner, outside = _owners(graph), kept(graph)
    lasting = {i for i in (*graph.inputs, *graph.outputs) if i >= 0}
    first = {i: 0 for i in graph.inputs if i >= 0}
    last: dict[int, int] = {}
    for position, operator in enumerate(graph.operators):
        for index in operator.outputs:
            first.setdefault(index, position)
        for index in (*operator.inputs, *operator.outputs):
            last[owner.get(index, index)] = position
    return tuple(
        Block(i, graph.tensors[i].size, start, FOREVER if i in lasting else last.get(i, FOREVER))
        for i, start in sorted(first.items())
        if i >= 0 and i not in owner and i not in outside and graph.tensors[i].data is None
    )


def _owners(graph: Subgraph) -> dict[int, int]:
    """Return output → the tensor whose memory it takes over, for kernels that work in place."""
    readers = Counter(index for operator in graph.operators for index in operator.inputs)
    fixed = {*graph.inputs, *graph.outputs}
    owner: dict[int, int] = {}
    for operator in graph.operators:
        source = _shared_input(operator, graph, readers, fixed)
        if source is None:
            continue
        origin = owner.get(source, source)
        if operator.kind in _VIEWS or readers[origin] <= 1:
            owner[operator.outputs[0]] = origin
    return owner


def _shared_input(operator: Operator, graph: Subgraph, readers: Counter[int], fixed: set[int]) -> int | None:
    is_view = operator.kind in _VIEWS
    allowed = 1 if is_view else _OVERWRITES.get(operator.kind, 0)
    if operator.is_custom or not operator.outputs or operator.outputs[0] in fixed:
        return None
    size = graph.tensors[operator.outputs[0]].size
    for index in operator.inputs[:allowed]:
        if index < 0 or index in fixed or not _is_activation(graph.tensors[index]):
            continue
        if is_view or (graph.tensors[index].size == size > _SCALAR_BYTES and readers[index] <= 1):
            return index
    return None


def _is_activation(tensor: Tensor) -> bool:
    return tensor.data is None and not tensor.is_variable


def scratch(graph: Subgraph) -> tuple[Block, ...]:
    """Return scratch memory: an integer convolution unrolls its windows (im2col) unless they are 1×1 with stride 1."""
    found = []
    for position, operator in enumerate(graph.operators):
        size = _unrolled(operator, graph) if operator.kind == "CONV_2D" else 0
        if size:
            found.append(Block(-1 - position, size, position, position))
    return tuple(found)


def _unrolled(operator: Operator, graph: Subgraph) -> int:
    if min(*operator.inputs[:2], *operator.outputs[:1], 0) < 0 or len(operator.inputs) < 2 or not operator.outputs:
        return 0
    source, weights = graph.tensors[operator.inputs[0]], graph.tensors[operator.inputs[1]]
    output = graph.tensors[operator.outputs[0]]
    steps = ("stride_h", "stride_w", "dilation_h_factor", "dilation_w_factor")
    is_plain = weights.shape[1:3] == (1, 1) and all(operator.options.get(step, 1) == 1 for step in steps)
    if is_plain or len(output.shape) != 4:
        return 0
    bits = source.size // max(source.elements, 1)
    return math.prod(output.shape[:3]) * math.prod(weights.shape[1:]) * bits
