# SPDX-License-Identifier: Apache-2.0
"""Where the integers leave the float network: the distance of every layer's output, measured over samples.

Two distances belong to each layer. Its *SQNR* compares the integer network up to and with this layer: it falls from
layer to layer as errors add up. Its *own SQNR* feeds the layer with the float network's values, rounded to codes, so
that only its own rounding and clipping is left: a bad layer stands out wherever it lies.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import torch
from torch import Tensor

from compress.quantize import integer, semantics
from compress.quantize.distribution import Histogram, Stream
from compress.quantize.graph import FloatGraph, as_maps, evaluate
from compress.quantize.plan import Activation, Operation, QuantizationPlan
from compress.quantize.weights import FOUR_BITS_HIGH
from edge_contract.errors import DataError, ModelError

__all__ = ["FALL_DB", "MOST_DB", "Fidelity", "LayerFidelity", "decibels", "measure"]

FALL_DB: Final = 6.0
"""Four times the noise that reached the layer: worth a look."""
MOST_DB: Final = 144.0
"""Of float32 itself (24 bits): what stands for 'no difference at all'."""
_BATCH: Final = 32


@dataclass(frozen=True)
class LayerFidelity:
    """One operation of the plan.

    Attributes:
        layer, kind: Of the plan's operation.
        sqnr_db: Signal to quantization noise of its output in the integer network, in dB.
        own_db: The same with the float network's values at its input: what this layer alone adds.
        fall_db: How much lower its SQNR is than that of its worst input, or than what half of the network's layers
            reach by themselves if that is less: every layer falls from an exact input.
        cosine: Of its outputs in both networks, 1 for the same direction.
        largest_steps: Largest difference, in steps of its output's codes.
        clipped: Share of the float network's values that lie beyond the range of the codes, 0 to 1.
    """

    layer: str
    kind: str
    sqnr_db: float
    own_db: float
    fall_db: float
    cosine: float
    largest_steps: float
    clipped: float

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "LayerFidelity":
        numbers = (float(document[one.name]) for one in fields(cls)[2:])
        return cls(str(document["layer"]), str(document["kind"]), *numbers)


@dataclass(frozen=True)
class Fidelity:
    """A plan against its float network.

    Attributes:
        samples: How many were compared.
        layers: In execution order.
        weights, activations: Histograms of layers with weights, and of every layer's output (the input first).
    """

    samples: int
    layers: tuple[LayerFidelity, ...]
    weights: tuple[Histogram, ...] = ()
    activations: tuple[Histogram, ...] = ()

    @property
    def first_fall(self) -> LayerFidelity | None:
        """The first layer that falls far below what it reads, ``FALL_DB`` or more; None if there is none."""
        return next((layer for layer in self.layers if layer.fall_db >= FALL_DB), None)

    def worst(self, count: int) -> tuple[LayerFidelity, ...]:
        """Return the layers that add most noise themselves, the worst first."""
        return tuple(sorted(self.layers, key=lambda layer: (layer.own_db, layer.layer))[:count])

    def to_json(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "layers": [layer.to_json() for layer in self.layers],
            "weights": [one.to_json() for one in self.weights],
            "activations": [one.to_json() for one in self.activations],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Fidelity":
        return cls(
            int(document["samples"]),
            tuple(LayerFidelity.from_json(layer) for layer in document["layers"]),
            tuple(Histogram.from_json(one) for one in document["weights"]),
            tuple(Histogram.from_json(one) for one in document["activations"]),
        )


def decibels(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise) of two energies, at most ``MOST_DB`` and at least its negative.

    Example:
        >>> decibels(100.0, 1.0), decibels(1.0, 0.0), decibels(0.0, 1.0)
        (20.0, 144.0, -144.0)
    """
    if noise == 0.0:
        return MOST_DB
    return max(min(10 * math.log10(signal / noise), MOST_DB), -MOST_DB) if signal > 0.0 else -MOST_DB


class _Sums:
    """What one tensor's distances are made of, summed in float64."""

    def __init__(self) -> None:
        self.signal = self.noise = self.own_noise = self.other = self.product = self.largest = 0.0
        self.clipped = self.count = 0
        self.stream = Stream()

    def add(self, real: Tensor, found: Tensor, own: Tensor, target: Activation) -> None:
        a, b = real.double(), _real(target, found).double()
        difference = a - b
        self.signal += float((a * a).sum())
        self.other += float((b * b).sum())
        self.product += float((a * b).sum())
        self.noise += float((difference * difference).sum())
        self.own_noise += float((a - _real(target, own).double()).square().sum())
        self.largest = max(self.largest, float(difference.abs().amax()) / target.scale)
        low, high = _ends(target)
        half = target.scale / 2
        self.clipped += int(((a < low - half) | (a > high + half)).sum())
        self.count += a.numel()

    @property
    def sqnr_db(self) -> float:
        return decibels(self.signal, self.noise)

    @property
    def cosine(self) -> float:
        length = math.sqrt(self.signal * self.other)
        return min(self.product / length, 1.0) if length else float(self.signal == self.other)

    @property
    def own_db(self) -> float:
        return decibels(self.signal, self.own_noise)

    def layer(self, op: Operation, before_db: float) -> LayerFidelity:
        clipped, fall_db = self.clipped / self.count, before_db - self.sqnr_db
        return LayerFidelity(op.name, op.kind, self.sqnr_db, self.own_db, fall_db, self.cosine, self.largest, clipped)


def _real(of: Activation, codes: Tensor) -> Tensor:
    return semantics.dequantize(codes, of.scale, of.zero_point)


def _ends(of: Activation) -> tuple[float, float]:
    return (semantics.LOW - of.zero_point) * of.scale, (semantics.HIGH - of.zero_point) * of.scale


def _walk(graph: FloatGraph, plan: QuantizationPlan, x: Tensor) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """Yield name, float value, codes, and codes from rounded float inputs of every tensor; none is kept too long."""
    last_reader = {name: op.output for op in plan.operations for name in op.inputs}
    codes: dict[str, Tensor] = {}
    rounded: dict[str, Tensor] = {}
    operations = {op.output: op for op in plan.operations}
    for name, value in evaluate(graph, x):
        target, op = plan.activations[name], operations.get(name)
        rounded[name] = semantics.quantize(value, target.scale, target.zero_point)
        if op is None:
            codes[name] = own = rounded[name]
        else:
            codes[name] = integer.apply(plan, op, *(codes[source] for source in op.inputs))
            own = integer.apply(plan, op, *(rounded[source] for source in op.inputs))
        yield name, value, codes[name], own
        for source in set(op.inputs) if op is not None else ():
            if last_reader[source] == name:
                del codes[source], rounded[source]


def _check(graph: FloatGraph, plan: QuantizationPlan, samples: Tensor) -> Tensor:
    tensors = [graph.input, *(op.output for op in graph.operations)]
    if tensors != [plan.input, *(op.output for op in plan.operations)]:
        fix = "give the graph that the plan was decided from"
        raise ModelError("the plan belongs to another graph", where="fidelity", fix=fix)
    maps = as_maps(samples)
    if not len(maps) or tuple(maps.shape[1:]) != graph.input_shape:
        wanted = ", ".join(map(str, graph.input_shape))
        raise DataError(f"samples of shape {list(samples.shape)}", where="fidelity", fix=f"give [N, {wanted}]")
    return maps


def measure(
    graph: FloatGraph,
    plan: QuantizationPlan,
    samples: Tensor,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Fidelity:
    """Return the distance of every layer between a float graph and the integers of its plan, streaming.

    SQNR = 10 log10(Σ f² / Σ (f - q)²) over all values of all samples, f in float and q the real value of the codes.

    Args:
        graph: What the plan was decided from: folded, gates opened, after every pass.
        plan: Its integers.
        samples: float32 [N, C, H, W] or [N, C, L], preprocessed; memory does not grow with N.
        progress: Told (done, all) samples after every batch.

    Raises:
        ModelError: The plan belongs to another graph.
        DataError: No samples, of the wrong shape, or with NaN.
    """
    x = _check(graph, plan, samples)
    sums = {name: _Sums() for name in plan.activations}
    with torch.no_grad():
        for start in range(0, len(x), _BATCH):
            for name, real, found, own in _walk(graph, plan, x[start : start + _BATCH]):
                sums[name].add(real, found, own, plan.activations[name])
                sums[name].stream.observe(real)
            if progress is not None:
                progress(min(start + _BATCH, len(x)), len(x))
    typical = statistics.median(sums[op.output].own_db for op in plan.operations)
    reached = {name: min(one.sqnr_db, typical) for name, one in sums.items()}
    layers = tuple(sums[op.output].layer(op, min(reached[name] for name in op.inputs)) for op in plan.operations)
    names = {plan.input: "input"} | {op.output: op.name for op in plan.operations}
    seen = tuple(sums[n].stream.histogram(label, _ends(plan.activations[n])) for n, label in names.items())
    return Fidelity(len(x), layers, _weights(graph, plan), seen)


def _weights(graph: FloatGraph, plan: QuantizationPlan) -> tuple[Histogram, ...]:
    """Histograms of the float weights; the range is that of the coarsest channel, or all of it in a wide layer."""
    made, limits = [], {8: semantics.WEIGHT_HIGH, 4: FOUR_BITS_HIGH}
    for op, planned in zip(graph.operations, plan.operations, strict=True):
        if op.weight is None or not planned.bias:
            continue
        stream = Stream()
        stream.observe(op.weight)
        constant = plan.constants[planned.weight]
        largest = float(op.weight.abs().amax())
        reach = largest if constant.codes.dtype.kind == "f" else float(constant.scales.max()) * limits[constant.bits]
        made.append(stream.histogram(planned.name, (-reach, reach)))
    return tuple(made)
