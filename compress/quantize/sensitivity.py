# SPDX-License-Identifier: Apache-2.0
"""What each layer costs: the float network with one layer quantized, against the float network itself.

One layer at a time keeps its input and output as codes of the plan, and its weights in 8 bits, 4 bits or float32 (a
wide layer); everything else stays float. The network before the layer is evaluated once for all layers, and behind it
only what depends on the layer is computed again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from compress.evaluate import Difference, Hits, paired_difference
from compress.quantize import semantics
from compress.quantize.fidelity import decibels
from compress.quantize.graph import FloatGraph, FloatOp, as_maps, compute, evaluate, layer_names
from compress.quantize.plan import Activation, QuantizationPlan
from compress.quantize.weights import constants
from edge_contract.errors import DataError, ModelError, UsageError

__all__ = ["BITS", "CHOICES", "Effect", "LayerSensitivity", "Sensitivity", "measure", "weight_bytes"]

BITS: Final[Mapping[str, int]] = {"4": 4, "8": 8, "float": 32}
"""What a layer's weights may be; activations are int8 codes in all of them."""
CHOICES: Final = tuple(BITS)
_MOST_VALUES: Final = 2**23  # of all tensors of a batch together: 32 MiB
_MOST_SAMPLES: Final = 64  # 256 at once take twice as long: the tensors leave the caches

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Effect:
    """What one choice for one layer does to the network.

    Attributes:
        sqnr_db: Of the logits against the float network's.
        kl: Mean over samples of Σ p ln(p / q), p from the float network and q with the layer quantized; nats.
        agreement: Share of samples with the same first class, 0 to 1.
        change: Accuracy against the float network, paired, in points; None without labels.
        size_bytes: Of the layer's weights and bias.
    """

    sqnr_db: float
    kl: float
    agreement: float
    change: Difference | None
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "change": None if self.change is None else self.change.to_json()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Effect":
        sqnr_db, kl, agreement = (float(document[name]) for name in ("sqnr_db", "kl", "agreement"))
        change = None if document["change"] is None else Difference.from_json(document["change"])
        return cls(sqnr_db, kl, agreement, change, int(document["size_bytes"]))


@dataclass(frozen=True)
class LayerSensitivity:
    """One convolution or linear layer, and the effect of each choice."""

    layer: str
    kind: str
    parameters: int
    effects: Mapping[str, Effect]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "effects": {choice: effect.to_json() for choice, effect in self.effects.items()}}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "LayerSensitivity":
        effects = {str(choice): Effect.from_json(effect) for choice, effect in document["effects"].items()}
        return cls(str(document["layer"]), str(document["kind"]), int(document["parameters"]), effects)


@dataclass(frozen=True)
class Sensitivity:
    """Every layer with weights, in execution order, measured on so many samples."""

    samples: int
    layers: tuple[LayerSensitivity, ...]

    def ranked(self, choice: str = "8", *, against: str = "") -> tuple[LayerSensitivity, ...]:
        """Return the layers that this choice hurts most first: by KL, or by how much less another choice costs.

        ``ranked("8", against="float")`` puts first what is worth keeping wide.
        """

        def loss(one: LayerSensitivity) -> float:
            return one.effects[choice].kl - (one.effects[against].kl if against else 0.0)

        return tuple(sorted(self.layers, key=lambda one: (-loss(one), one.layer)))

    def losses(self) -> dict[str, dict[str, float]]:
        """Return layer → choice → KL, as ``mixed.choose`` takes it."""
        return {one.layer: {choice: effect.kl for choice, effect in one.effects.items()} for one in self.layers}

    def sizes(self) -> dict[str, dict[str, float]]:
        """Return layer → choice → bytes."""
        return {one.layer: {choice: float(e.size_bytes) for choice, e in one.effects.items()} for one in self.layers}

    def to_json(self) -> dict[str, Any]:
        return {"samples": self.samples, "layers": [one.to_json() for one in self.layers]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Sensitivity":
        return cls(int(document["samples"]), tuple(LayerSensitivity.from_json(one) for one in document["layers"]))


def weight_bytes(op: FloatOp, choice: str) -> int:
    """Return the bytes of a layer's weights and of its bias, int32 or float32.

    Example:
        >>> op = FloatOp("linear", "head", ("x",), "y", (2,), weight=torch.zeros(2, 3), bias=torch.zeros(2))
        >>> [weight_bytes(op, choice) for choice in CHOICES]  # 6 weights, 2 biases
        [11, 14, 32]
    """
    assert op.weight is not None
    return (op.weight.numel() * BITS[choice] + 7) // 8 + 4 * op.weight.shape[0]


class _Sums:
    """The distance between two networks' logits, batch by batch."""

    def __init__(self) -> None:
        self.signal = self.noise = self.kl = 0.0
        self.answers: list[Tensor] = []

    def add(self, real: Tensor, found: Tensor) -> None:
        real, found = real.double(), found.double()
        self.signal += float(real.square().sum())
        self.noise += float((real - found).square().sum())
        self.kl += float(F.kl_div(F.log_softmax(found, 1), F.log_softmax(real, 1), log_target=True, reduction="sum"))
        self.answers.append(found.argmax(1))

    def effect(self, answers: Tensor, labels: Tensor | None, size_bytes: int) -> Effect:
        mine = torch.cat(self.answers)
        change = None if labels is None else paired_difference(_hits(answers, labels), _hits(mine, labels))
        agreement = float((mine == answers).double().mean())
        return Effect(decibels(self.signal, self.noise), max(self.kl / len(mine), 0.0), agreement, change, size_bytes)


def _hits(answers: Tensor, labels: Tensor) -> Hits:
    found: Hits = (answers == labels).numpy()
    return found


def _rounded(values: Tensor, at: Activation) -> Tensor:
    return semantics.dequantize(semantics.quantize(values, at.scale, at.zero_point), at.scale, at.zero_point)


class _Layer:
    """One layer of the graph: its variants with quantized weights, and what has to be computed again behind it."""

    def __init__(self, graph: FloatGraph, index: int, name: str) -> None:
        self.op, self.name, self.index = graph.operations[index], name, index
        changed, behind = {self.op.output}, []
        for op in graph.operations[index + 1 :]:
            if changed & set(op.inputs):
                changed.add(op.output)
                behind.append(op)
        self.behind = tuple(behind)

    def variant(self, plan: QuantizationPlan, mean: Tensor, choice: str) -> FloatOp:
        """Return the layer with the real values of its rounded weights and bias."""
        if choice == "float":
            return self.op
        planned = plan.operations[self.index]
        weight, bias = plan.constants[planned.weight], plan.constants[planned.bias]
        if weight.codes.dtype.kind == "f" or weight.bits != BITS[choice]:
            op = replace(self.op, weight_bits=BITS[choice], wide=False, codes=None, steps=None)
            steps = plan.activations[self.op.inputs[0]].scale, plan.activations[self.op.output].scale
            weight, bias = constants(op, steps, [], mean, fixed_point=False)
        shape = (-1, *([1] * (weight.codes.ndim - 1)))
        real = weight.codes.astype(np.float64) * weight.channel_scales().astype(np.float64).reshape(shape)
        offsets = bias.codes.astype(np.float64) * bias.channel_scales().astype(np.float64)
        return replace(self.op, weight=torch.from_numpy(real).float(), bias=torch.from_numpy(offsets).float())

    def logits(self, graph: FloatGraph, plan: QuantizationPlan, op: FloatOp, values: Mapping[str, Tensor]) -> Tensor:
        """Return the network's logits [N, K] with this layer computed as ``op`` between rounded tensors."""
        source, target = plan.activations[op.inputs[0]], plan.activations[op.output]
        changed = {op.output: _rounded(compute(op, _rounded(values[op.inputs[0]], source)), target)}
        for after in self.behind:
            inputs = (changed[name] if name in changed else values[name] for name in after.inputs)
            changed[after.output] = compute(after, *inputs)
        return changed[graph.output] if graph.output in changed else values[graph.output]


def _batches(graph: FloatGraph, x: Tensor) -> Iterator[Tensor]:
    shapes = (graph.input_shape, *(op.shape for op in graph.operations))
    values = sum(int(np.prod(shape)) for shape in shapes)
    return iter(torch.split(x, min(max(_MOST_VALUES // values, 1), _MOST_SAMPLES)))


def _means(graph: FloatGraph, names: Iterable[str], x: Tensor) -> dict[str, Tensor]:
    """Return the mean of each channel of these tensors, for the correction of biases."""
    sums = {name: torch.zeros((), dtype=torch.float64) for name in names}
    for part in _batches(graph, x):
        for name, value in evaluate(graph, part):
            if name in sums:
                per_channel = value.double().flatten(2).mean(2) if value.dim() > 2 else value.double()
                sums[name] = sums[name] + per_channel.sum(0)
    return {name: total / len(x) for name, total in sums.items()}


def _check(graph: FloatGraph, plan: QuantizationPlan, x: Tensor, labels: Tensor | None, choices: Sequence[str]) -> None:
    where = "sensitivity"
    if [op.output for op in graph.operations] != [op.output for op in plan.operations]:
        raise ModelError("the plan belongs to another graph", where=where, fix="give the graph it was decided from")
    if not len(x) or tuple(x.shape[1:]) != graph.input_shape:
        wanted = ", ".join(map(str, graph.input_shape))
        raise DataError(f"samples of shape {list(x.shape)}", where=where, fix=f"give [N, {wanted}]")
    if labels is not None and len(labels) != len(x):
        raise DataError(f"{len(x)} samples and {len(labels)} labels", where=where, fix="give one label per sample")
    unknown = [choice for choice in choices if choice not in BITS]
    if unknown or not choices:
        what = f"unknown choice '{unknown[0]}'" if unknown else "no choice"
        raise UsageError(what, where=where, fix=f"use {', '.join(CHOICES)}")


def measure(
    graph: FloatGraph,
    plan: QuantizationPlan,
    samples: Tensor,
    labels: Tensor | None = None,
    *,
    choices: Sequence[str] = CHOICES,
    progress: Progress | None = None,
) -> Sensitivity:
    """Return what quantizing one layer costs, for every layer with weights and every choice of its weights.

    Where the plan has a layer's weights in the bits of the choice, they are taken as they are; else they are rounded
    to nearest, with the bias corrected on these samples.

    Args:
        graph: What the plan was decided from.
        plan: Gives the scales of the tensors.
        samples: float32 [N, C, H, W] or [N, C, L], preprocessed; of the validation split.
        labels: int64 [N]; without them there is no accuracy.
        choices: Of ``CHOICES``.
        progress: Told (done, all) samples after every batch.

    Raises:
        ModelError: The plan belongs to another graph.
        DataError: No samples, of the wrong shape, or another number of labels.
        UsageError: An unknown choice.

    Reference:
        Wu et al., "Integer Quantization for Deep Learning Inference", 2020, section 5.1 (one layer at a time).
    """
    x = as_maps(samples)
    _check(graph, plan, x, labels, choices)
    names = layer_names(graph)
    layers = [_Layer(graph, i, names[i]) for i, op in enumerate(graph.operations) if op.kind in ("conv2d", "linear")]
    with torch.no_grad():
        means = _means(graph, {layer.op.inputs[0] for layer in layers}, x)
        made = {(a.name, c): a.variant(plan, means[a.op.inputs[0]], c) for a in layers for c in choices}
        sums, real = {key: _Sums() for key in made}, _Sums()
        for part in _batches(graph, x):
            values = dict(evaluate(graph, part))
            real.add(values[graph.output], values[graph.output])
            for layer in layers:
                for choice in choices:
                    key = layer.name, choice
                    sums[key].add(values[graph.output], layer.logits(graph, plan, made[key], values))
            if progress is not None:
                progress(sum(map(len, real.answers)), len(x))
    answers = torch.cat(real.answers)
    return Sensitivity(len(x), tuple(_result(layer, choices, sums, answers, labels) for layer in layers))


def _result(
    layer: _Layer,
    choices: Sequence[str],
    sums: Mapping[tuple[str, str], _Sums],
    answers: Tensor,
    labels: Tensor | None,
) -> LayerSensitivity:
    op = layer.op
    assert op.weight is not None
    effects = {c: sums[layer.name, c].effect(answers, labels, weight_bytes(op, c)) for c in choices}
    return LayerSensitivity(layer.name, op.kind, op.weight.numel() + op.weight.shape[0], effects)
