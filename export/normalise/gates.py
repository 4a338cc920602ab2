# SPDX-License-Identifier: Apache-2.0
"""int8 HARD_SWISH becomes an addition and two products, which fast kernels compute.

hard-swish(x) = x · gate(x) / 6 with gate(x) = min(max(x + 3, 0), 6). XNNPACK has no int8 HARD_SWISH, so a network with
ten of them is cut into pieces and the slow kernels between them take most of the time.

- The gate is one ADD with a constant: its output has the scale 6/255 and the zero point -128: saturation is the clamp.
- x · gate is one MUL, written with the scale 6·s where s is the output's.
- A MUL by the constant 1/6 turns scale 6·s into s. Its multiplier is 1, so it passes every code on as it is.

The gate has 255 steps: the result is off by at most half a gate step, |x| / 510 where |x| < 3, plus half an output
step. Measured (LiteRT 2.3, XNNPACK, x86-64, one thread; chains of 1×1 convolutions with hard-swish, 7×7×96 to
28×28×64): 6 to 10 times faster in all; an operator's codes differ from the kernel's in 2.4 % of places, by one.
"""

from typing import Final

import numpy as np

from export.normalise.draft import Draft, Graph, quantization
from export.tflite.walk import Table

__all__ = ["split_hard_swish"]

_GATE_SCALE: Final = 6 / 255  # all of int8 for [0, 6]


def split_hard_swish(draft: Draft) -> list[str]:
    """Rewrite every int8 HARD_SWISH with one scale at each end; return what changed."""
    count = 0
    for graph in draft.graphs:
        for op in [op for op in graph.operators if draft.kind(op) == "HARD_SWISH" and _is_int8(graph, op)]:
            graph.replace(op, _split(draft, graph, op["inputs"][0], op["outputs"][0]))
            count += 1
        graph.settle()
    what = "codes may differ by the gate's half step, |x|/510"
    return [f"{count} HARD_SWISH → ADD, MUL, MUL; {what}"] if count else []


def _is_int8(graph: Graph, op: Table) -> bool:
    ends = (op["inputs"][0], op["outputs"][0])
    is_scaled = all(graph.quantized(end).is_per_tensor and graph.quantized(end).scales[0] > 0 for end in ends)
    return is_scaled and all(graph.dtype(end) == "int8" for end in ends)


def _split(draft: Draft, graph: Graph, source: int, output: int) -> tuple[Table, Table, Table]:
    shape, found = graph.shape(source), graph.quantized(output)
    gate = graph.like(source, shape, quantization((_GATE_SCALE,), (-128,)))
    product = graph.like(source, shape, quantization((6 * found.scales[0],), found.zero_points))
    return (
        draft.operator("ADD", (source, _constant(graph, 3.0)), gate, "AddOptions"),
        draft.operator("MUL", (source, gate), product, "MulOptions"),
        draft.operator("MUL", (product, _constant(graph, 1 / 6)), output, "MulOptions"),
    )


def _constant(graph: Graph, value: float) -> int:
    """A scalar constant with the code 127, so that it stands for its value as exactly as float32 does."""
    return graph.constant(np.array(127, np.int8), quantization((value / 127,), (0,)))
