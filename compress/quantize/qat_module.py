# SPDX-License-Identifier: Apache-2.0
"""A quantized network that can be trained: a FloatGraph whose weights and tensors pass through fake quantization.

Its forward pass computes in float32 what the integers of a plan compute: the same scales and zero points, saturation in
place of every clamp, constants as the plan has them. Only biases are not rounded to int32: that would move an output by
about a thousandth of a step.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.quantize.calibrate import Ranges
from compress.quantize.fake import fake_activation, fake_weight
from compress.quantize.graph import FloatGraph, FloatOp, as_maps, compute, evaluate, pad_asymmetric
from compress.quantize.learned_steps import LearnedSteps
from compress.quantize.plan import Constant, Operation, QuantizationPlan
from compress.quantize.scales import Scales
from compress.quantize.semantics import HIGH, LOW, WEIGHT_HIGH
from compress.quantize.weights import weight_limit, weight_scales

__all__ = ["FloatNetwork", "QuantizedLayer", "QuantizedNetwork"]

_CODES = HIGH - LOW
_GIVEN = ("sigmoid", "add_constant")  # kernels fix the scale of the one, its clamp that of the other


class FloatNetwork(nn.Module):
    """The float network of a graph: [N, C, H, W] or [N, C, L] → logits [N, K]. It is no part of what is trained."""

    def __init__(self, graph: FloatGraph) -> None:
        super().__init__()
        self.graph = graph
        for i, op in enumerate(graph.operations):
            self.register_buffer(f"weight_{i}", op.weight)
            self.register_buffer(f"bias_{i}", op.bias)

    def forward(self, x: Tensor) -> Tensor:
        own = dict(self.named_buffers())
        numbers = ((own.get(f"weight_{i}"), own.get(f"bias_{i}")) for i in range(len(self.graph.operations)))
        pairs = zip(self.graph.operations, numbers, strict=True)
        here = tuple(replace(op, weight=weight, bias=bias) for op, (weight, bias) in pairs)
        graph = replace(self.graph, operations=here)
        return next(value for name, value in evaluate(graph, _as_input(x)) if name == graph.output)


class QuantizedLayer(nn.Module):
    """A convolution or linear layer: its weight, its bias, and the steps of its weight.

    The trained weight is a multiple of its channel's unit, about 128 steps: AdamW moves all parameters by about the
    learning rate, and folded channels differ in size by factors of hundreds. So 0.0001 is a hundredth of a code
    everywhere. Units are powers of two, which divide exactly.

    Args:
        op: With weight and bias.
    """

    unit: Tensor

    def __init__(self, op: FloatOp) -> None:
        super().__init__()
        assert op.weight is not None
        assert op.bias is not None
        self.op, self.limit = op, weight_limit(op)
        asked = torch.from_numpy(weight_scales(op))
        unit = torch.exp2(torch.log2(asked * (WEIGHT_HIGH + 1)).round())
        self.register_buffer("unit", unit.view(-1, *[1] * (op.weight.dim() - 1)))
        self.weight = nn.Parameter(op.weight.detach().float() / self.unit)
        self.bias = nn.Parameter(op.bias.detach().float().clone())
        self.steps = LearnedSteps(asked, torch.full((len(asked),), WEIGHT_HIGH / self.limit))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.real_weight()
        weight = weight if self.op.wide else fake_weight(weight, self.steps(), self.limit)
        if self.op.kind == "linear":
            return F.linear(x, weight, self.bias)
        a = self.op.attributes
        top, left, bottom, right = a["padding"]
        if (top, left) == (bottom, right):  # the convolution's own padding spares a copy of the input
            return F.conv2d(x, weight, self.bias, a["stride"], (top, left), a["dilation"], a["groups"][0])
        padded = pad_asymmetric(x, a["padding"], 0.0)
        return F.conv2d(padded, weight, self.bias, a["stride"], 0, a["dilation"], a["groups"][0])

    def real_weight(self) -> Tensor:
        """Return the weight before its rounding."""
        return self.weight * self.unit

    @torch.no_grad()
    def start_from(self, weight: Constant, bias: Constant) -> None:
        """Take over what a plan corrected: the bias, and codes that are not the nearest ones (``adaround``)."""
        if self.op.wide:
            return
        self.bias.copy_(torch.from_numpy(bias.codes * bias.channel_scales().astype(np.float64)))
        scales = weight.channel_scales().reshape(-1, *[1] * (weight.codes.ndim - 1))
        given, present = torch.from_numpy(weight.codes * scales), self.real_weight()
        is_near = (given - present).abs() <= 0.501 * torch.from_numpy(scales.copy())
        self.weight.copy_(torch.where(is_near, present, given) / self.unit)

    def adopt(self, weight: Constant, *, freeze: bool) -> None:
        """Go on with the scales of a plan."""
        if not self.op.wide:
            self.steps.adopt(torch.from_numpy(weight.scales), freeze=freeze)

    def trained(self) -> FloatOp:
        """Return the operation with the present weight, bias and asked-for steps."""
        steps = None if self.op.wide else self.steps.asked().float().cpu()
        weight, bias = (value.detach().cpu().contiguous() for value in (self.real_weight(), self.bias.clone()))
        return replace(self.op, weight=weight, bias=bias, steps=steps, codes=None)


class QuantizedNetwork(nn.Module):
    """The network of a graph with the numbers of a plan: [N, C, H, W] or [N, C, L] → logits [N, K].

    Tensors that share codes share one step and one zero point.

    Args:
        graph: Folded, gates opened; what ``plan`` was decided from.
        ranges: Range of each tensor, from which the plan's scales were chosen.
        plan: Where training starts.
    """

    zero: Tensor
    low: Tensor
    signed: Tensor
    added: Tensor

    def __init__(self, graph: FloatGraph, ranges: Ranges, plan: QuantizationPlan) -> None:
        super().__init__()
        self.graph = graph
        scales = Scales(graph, ranges)
        makers = [op for ops in scales.makers.values() for op in ops]
        self.quantized = {graph.input, *(op.output for op in makers)}  # the others pass codes on
        order = {name: i for i, name in enumerate(scales.scale)}
        self.group = {name: order[scales.group(name)] for name in plan.activations}
        given = {scales.group(op.output) for op in makers if op.kind in _GIVEN}
        rate = torch.tensor([float(name not in given) for name in order])
        self.steps = LearnedSteps(torch.tensor(list(scales.scale.values()), dtype=torch.float64), rate)
        self.shift = nn.Parameter(torch.zeros(len(order)))
        lows = [min(0.0, *(ranges[n][0] for n in self.quantized if scales.group(n) == name)) for name in order]
        self.register_buffer("low", torch.tensor(lows, dtype=torch.float64))
        for name in ("zero", "signed"):
            self.register_buffer(name, torch.zeros(len(order)))
        self.register_buffer("added", torch.zeros(len(graph.operations)))
        self.layers = nn.ModuleDict({str(i): QuantizedLayer(op) for i, op in self._with("conv2d", "linear")})
        for i, op in self._pairs(plan):
            self._layer(i).start_from(plan.constants[op.weight], plan.constants[op.bias])
        self._set(plan, freeze_ranges=False, freeze_weights=False)

    def _with(self, *kinds: str) -> list[tuple[int, FloatOp]]:
        return [(i, op) for i, op in enumerate(self.graph.operations) if op.kind in kinds]

    def _pairs(self, plan: QuantizationPlan) -> list[tuple[int, Operation]]:
        return [(i, plan.operations[i]) for i, _ in self._with("conv2d", "linear")]

    def _layer(self, i: int) -> QuantizedLayer:
        layer = self.layers[str(i)]
        assert isinstance(layer, QuantizedLayer)
        return layer

    @property
    def ranges_frozen(self) -> bool:
        """Whether the scales of the tensors are final."""
        return bool(self.steps.frozen)

    @property
    def weights_frozen(self) -> bool:
        """Whether the scales of the weights are final too."""
        return all(bool(self._layer(i).steps.frozen) for i, op in self._with("conv2d", "linear") if not op.wide)

    def forward(self, x: Tensor) -> Tensor:
        steps, zeros = self.steps().unbind(), self._zeros()

        def rounded(name: str, value: Tensor) -> Tensor:
            i = self.group[name]
            return fake_activation(value, steps[i], zeros[i]) if name in self.quantized else value

        values = {self.graph.input: rounded(self.graph.input, _as_input(x))}
        for i, op in enumerate(self.graph.operations):
            values[op.output] = rounded(op.output, self._compute(i, op, [values[name] for name in op.inputs]))
        return values[self.graph.output]

    def _compute(self, i: int, op: FloatOp, values: list[Tensor]) -> Tensor:
        if op.kind in ("conv2d", "linear"):
            found: Tensor = self._layer(i)(*values)
            return found
        if op.kind == "add_constant":
            return values[0] + self.added[i]
        if op.kind in ("add", "mul"):  # most of the work outside of layers; ``compute`` would clamp in one more pass
            return values[0] + values[1] if op.kind == "add" else values[0] * values[1]
        return compute(replace(op, low=float("-inf"), high=float("inf")), *values)  # saturation is the clamp

    def _zeros(self) -> list[Tensor]:
        """The zero point of each group, before its rounding; those that are not learned spare two sums backward."""
        if self.steps.frozen:
            return list(self.zero.unbind())
        # A shift moves the range by that share of itself, as the logarithm of its step widens it.
        learned = torch.clamp(self.zero + self.shift * (_CODES + 1), LOW, HIGH).unbind()
        both = zip(self.signed.tolist(), learned, self.zero.unbind(), strict=True)
        return [moves if is_signed else stays for is_signed, moves, stays in both]

    def ranges(self) -> Ranges:
        """Return the range of each tensor from which the next plan's scales are to be chosen."""
        low, steps = self.low, self.steps.asked()
        if not self.ranges_frozen:
            zeros = torch.stack(self._zeros()).detach()
            learned = (LOW - torch.round(zeros)).double() * self.steps().detach().double()
            low = torch.where(self.signed.bool(), learned, low)
        ends = list(zip(low.tolist(), (low + _CODES * steps).tolist(), strict=True))
        return {name: ends[i] for name, i in self.group.items()}

    def trained(self) -> FloatGraph:
        """Return the graph with the present weights, biases and steps of weights."""
        operations = list(self.graph.operations)
        for i, _ in self._with("conv2d", "linear"):
            operations[i] = self._layer(i).trained()
        return replace(self.graph, operations=tuple(operations))

    def freeze(self, plan: QuantizationPlan, *, weights: bool) -> None:
        """Go on with the numbers of the plan that was decided from ``trained()`` and ``ranges()``.

        Args:
            plan: Its scales of tensors are final from now on.
            weights: Whether its scales of weights are.
        """
        with torch.no_grad():
            lows = {self.group[name]: low for name, (low, _) in self.ranges().items()}
            self.low.copy_(torch.tensor([lows[i] for i in range(len(lows))], dtype=torch.float64))
        self._set(plan, freeze_ranges=True, freeze_weights=weights)

    @torch.no_grad()
    def _set(self, plan: QuantizationPlan, *, freeze_ranges: bool, freeze_weights: bool) -> None:
        members = {i: plan.activations[name] for name, i in self.group.items()}
        specs = [members[i] for i in range(len(members))]
        self.steps.adopt(torch.tensor([spec.scale for spec in specs]), freeze=freeze_ranges)
        self.zero.copy_(torch.tensor([float(spec.zero_point) for spec in specs]))
        self.signed.copy_((self.zero > LOW) * self.steps.rate)
        self.shift.zero_()
        for i, op in self._pairs(plan):
            self._layer(i).adopt(plan.constants[op.weight], freeze=freeze_weights)
        for i, _ in self._with("add_constant"):
            constant = plan.constants[plan.operations[i].weight]
            self.added[i] = float(constant.codes[0]) * float(constant.scales[0])


def _as_input(x: Tensor) -> Tensor:
    """Maps with channels last: PyTorch's convolutions on a CPU train 1.5 to 2 times as fast on them."""
    return as_maps(x).contiguous(memory_format=torch.channels_last)
