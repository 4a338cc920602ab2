# SPDX-License-Identifier: Apache-2.0
"""Layer after layer, bring the integer network back to what the float network answers on calibration data.

A layer's inputs are what the integer network has computed so far, its targets are the float network's outputs of the
same layer; so its weights and bias also make up for what the layers before it err (Nagel et al., "Up or Down? Adaptive
Rounding for Post-Training Quantization", 2020, section 4, asymmetric reconstruction; "A White Paper on Neural Network
Quantization", 2021, section 3.4). First the codes of its weights are chosen (``rounding``), then its bias, with which
every channel's mean is the float network's: bias correction with the means of the quantized network.

Scales stay as a first plan has them, so the result is the graph with codes and biases set, which ``decide`` obeys.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from compress.quantize import integer, semantics
from compress.quantize.bias import matched
from compress.quantize.graph import FloatGraph, FloatOp, compute
from compress.quantize.plan import Constant, Operation, QuantizationPlan
from compress.quantize.rounding import Seen, rounded
from edge_contract.errors import UsageError

__all__ = ["ROUNDINGS", "reconstruct"]

ROUNDINGS = ("nearest", "together")
_MOST_VALUES = 2**26  # alive at one time over all samples, five bytes each
_BATCH = 16


def reconstruct(
    graph: FloatGraph, plan: QuantizationPlan, samples: Tensor, *, rounding: str = "together"
) -> FloatGraph:
    """Return the graph with codes and biases of every layer; decide it with ``correct_bias=False``.

    Args:
        graph: What ``plan`` was decided from.
        plan: Its scales stay; its biases are not used.
        samples: Calibration data, float32 [N, C, H, W]; as many are used as fit into 320 MiB.
        rounding: ``together``, by the correlations of a layer's inputs, or ``nearest``: the plan's codes, new biases.

    Raises:
        UsageError: An unknown rounding.
    """
    if rounding not in ROUNDINGS:
        raise UsageError(f"unknown rounding '{rounding}'", fix=f"use one of {', '.join(ROUNDINGS)}")
    with torch.no_grad():
        pair = _Pair(graph, plan, samples[: max(_MOST_VALUES // _most_alive(graph), 1)])
        operations = []
        for op, planned in zip(graph.operations, plan.operations, strict=True):
            is_rounded = planned.kind in ("conv2d", "linear")  # a wide layer stays as it is
            operations.append(pair.layer(op, planned, rounding) if is_rounded else pair.other(op, planned))
    return replace(graph, operations=tuple(operations))


class _Pair:
    """The float network and the integer network over all samples, layer after layer."""

    def __init__(self, graph: FloatGraph, plan: QuantizationPlan, samples: Tensor) -> None:
        self._last = {name: op.output for op in graph.operations for name in op.inputs}
        self._constants = dict(plan.constants)
        self._plan = replace(plan, constants=self._constants)
        source = plan.activations[plan.input]
        self._real = {graph.input: samples}
        self._codes = {graph.input: semantics.quantize(samples, source.scale, source.zero_point).to(torch.int8)}

    def other(self, op: FloatOp, planned: Operation) -> FloatOp:
        """Compute an operation without rounded weights in both networks."""
        self._real[op.output] = torch.cat([compute(op, *parts) for parts in self._parts(self._real, op)])
        self._advance(op, planned)
        return op

    def layer(self, op: FloatOp, planned: Operation, rounding: str) -> FloatOp:
        """Decide a layer's codes and bias, compute it in both networks, and return it with them."""
        free = replace(op, low=-math.inf, high=math.inf)
        targets = torch.cat([compute(free, *parts) for parts in self._parts(self._real, op)])
        weight, bias = self._constants[planned.weight], self._constants[planned.bias]
        if rounding != "nearest":
            seen = Seen(
                op, weight.channel_scales(), lambda: zip(self._seen(op), torch.split(targets, _BATCH), strict=True)
            )
            weight = replace(weight, codes=rounded(seen))
        answers = torch.cat([compute(_with_codes(free, weight), x) for x in self._seen(op)])
        real = matched(op, answers, targets)
        bias = replace(bias, codes=np.rint(real.numpy() / bias.scales.astype(np.float64)).astype(np.int32))
        self._constants |= {weight.name: weight, bias.name: bias}
        self._real[op.output] = targets.clamp_(op.low, op.high)
        self._advance(op, planned)
        return replace(op, codes=torch.from_numpy(weight.codes), bias=real)

    def _parts(self, values: dict[str, Tensor], op: FloatOp) -> Iterator[tuple[Tensor, ...]]:
        return zip(*(torch.split(values[name], _BATCH) for name in op.inputs), strict=True)

    def _seen(self, op: FloatOp) -> Iterator[Tensor]:
        """What the integer network gives a layer, as real numbers, batch after batch."""
        spec = self._plan.activations[op.inputs[0]]
        for (codes,) in self._parts(self._codes, op):
            yield semantics.dequantize(codes.to(torch.int32), spec.scale, spec.zero_point)

    def _advance(self, op: FloatOp, planned: Operation) -> None:
        parts = ([codes.to(torch.int32) for codes in batch] for batch in self._parts(self._codes, op))
        self._codes[op.output] = torch.cat([integer.apply(self._plan, planned, *b).to(torch.int8) for b in parts])
        for name in set(op.inputs):
            if self._last[name] == op.output:
                del self._real[name], self._codes[name]


def _with_codes(op: FloatOp, weight: Constant) -> FloatOp:
    scales = weight.channel_scales().reshape(-1, *[1] * (weight.codes.ndim - 1))
    return replace(op, weight=torch.from_numpy((weight.codes * scales).astype(np.float32)))


def _most_alive(graph: FloatGraph) -> int:
    """The most values of one sample that are needed at one time."""
    sizes = {graph.input: math.prod(graph.input_shape)} | {op.output: math.prod(op.shape) for op in graph.operations}
    last = {name: op.output for op in graph.operations for name in op.inputs}
    alive, most = sizes[graph.input], 0
    for op in graph.operations:
        alive += sizes[op.output]
        most = max(most, alive)
        alive -= sum(sizes[name] for name in set(op.inputs) if last[name] == op.output)
    return most
