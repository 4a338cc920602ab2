# SPDX-License-Identifier: Apache-2.0
"""The integers of a plan, computed in PyTorch exactly as ONNX Runtime and LiteRT compute them.

Sums are formed in float32 where it holds every one of them exactly (below 2**24), else in float64, which holds every
int32 sum; ``semantics.requantize`` then rounds as both runtimes do. A wide layer's products of floats are summed in
float64, whatever the batch and the threads, and rounded once: the middle of what the runtimes' own orders give.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from compress.quantize import semantics
from compress.quantize.graph import as_maps, pad_asymmetric
from compress.quantize.plan import Activation, Operation, QuantizationPlan
from edge_contract.errors import DataError, ModelError

__all__ = ["apply", "dequantize", "evaluate", "predict", "run"]

_BATCH = 64


def _multiplied(plan: QuantizationPlan, op: Operation, sums: Tensor) -> Tensor:
    """Add the bias to exact sums [N, out, ...] and requantize them to the operation's output."""
    source, target = plan.activations[op.inputs[0]], plan.activations[op.output]
    per_channel = (1, -1, *([1] * (sums.dim() - 2)))
    bias = torch.from_numpy(plan.constants[op.bias].codes.astype(np.float64)).view(per_channel)
    factors = semantics.multipliers(source.scale, plan.constants[op.weight].channel_scales(), target.scale)
    return semantics.requantize((sums.double() + bias).to(torch.int32), factors.view(per_channel), target.zero_point)


def _weight(plan: QuantizationPlan, op: Operation) -> Tensor:
    codes = plan.constants[op.weight].codes
    largest = 255 * int(np.abs(codes.astype(np.int64)).reshape(len(codes), -1).sum(1).max())
    return torch.from_numpy(codes.astype(np.float32 if largest < 2**24 else np.float64))


def _conv2d(plan: QuantizationPlan, op: Operation, x: Tensor) -> Tensor:
    a, weight = op.attributes, _weight(plan, op)
    centred = pad_asymmetric((x - plan.activations[op.inputs[0]].zero_point).to(weight.dtype), a["padding"], 0.0)
    sums = F.conv2d(centred, weight, None, a["stride"], 0, a["dilation"], a["groups"][0])
    return _multiplied(plan, op, sums)


def _linear(plan: QuantizationPlan, op: Operation, x: Tensor) -> Tensor:
    weight = _weight(plan, op)
    return _multiplied(plan, op, (x - plan.activations[op.inputs[0]].zero_point).to(weight.dtype) @ weight.T)


def _add(plan: QuantizationPlan, op: Operation, a: Tensor, b: Tensor) -> Tensor:
    """The exact sum rounded once: on a plan without ties every kernel gives this integer."""
    target = plan.activations[op.output]
    total = torch.zeros_like(a, dtype=torch.float64)
    for name, codes in zip(op.inputs, (a, b), strict=True):
        source = plan.activations[name]
        total += (codes - source.zero_point).double() * source.scale
    return _rounded(total / target.scale, target)


def _add_constant(plan: QuantizationPlan, op: Operation, x: Tensor) -> Tensor:
    source, target, constant = plan.activations[op.inputs[0]], plan.activations[op.output], plan.constants[op.weight]
    value = float(constant.codes[0]) * float(constant.scales[0])
    return _rounded(((x - source.zero_point).double() * source.scale + value) / target.scale, target)


def _mul(plan: QuantizationPlan, op: Operation, a: Tensor, b: Tensor) -> Tensor:
    first, second, target = (plan.activations[name] for name in (*op.inputs, op.output))
    products = (a - first.zero_point).double() * (b - second.zero_point).double()
    return _rounded(products * (first.scale * second.scale / target.scale), target)


def _sigmoid(plan: QuantizationPlan, op: Operation, x: Tensor) -> Tensor:
    source, target = plan.activations[op.inputs[0]], plan.activations[op.output]
    return _rounded(torch.sigmoid((x - source.zero_point).double() * source.scale) / target.scale, target)


def _global_pool(plan: QuantizationPlan, op: Operation, x: Tensor) -> Tensor:
    source, target = plan.activations[op.inputs[0]], plan.activations[op.output]
    sums = (x - source.zero_point).double().sum((2, 3), keepdim=True)
    return _rounded(sums * source.scale / (x.shape[2] * x.shape[3] * target.scale), target)


def _rounded(steps: Tensor, target: Activation) -> Tensor:
    codes = torch.round(steps) + target.zero_point
    return torch.clamp(codes, semantics.LOW, semantics.HIGH).to(torch.int32)


def _max_pool(plan: QuantizationPlan, op: Operation, x: Tensor) -> Tensor:
    padded = pad_asymmetric(x.float(), op.attributes["padding"], semantics.LOW)
    return F.max_pool2d(padded, op.attributes["kernel"], op.attributes["stride"]).to(torch.int32)


def _wide_conv2d(plan: QuantizationPlan, op: Operation, x: Tensor) -> Tensor:
    a, (real, weight, bias) = op.attributes, _real_numbers(plan, op, x)
    padded = pad_asymmetric(real, a["padding"], 0.0)
    sums = F.conv2d(padded, weight, bias, a["stride"], 0, a["dilation"], a["groups"][0])
    return _quantized(sums, plan.activations[op.output])


def _wide_linear(plan: QuantizationPlan, op: Operation, x: Tensor) -> Tensor:
    return _quantized(F.linear(*_real_numbers(plan, op, x)), plan.activations[op.output])


def _real_numbers(plan: QuantizationPlan, op: Operation, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return input, weight and bias of a wide layer: float32 numbers in float64."""
    source = plan.activations[op.inputs[0]]
    weight, bias = (torch.from_numpy(plan.constants[name].codes).double() for name in (op.weight, op.bias))
    return semantics.dequantize(x, source.scale, source.zero_point).double(), weight, bias


def _quantized(values: Tensor, target: Activation) -> Tensor:
    """Saturation is the clamp of a ReLU: the output's codes begin at zero."""
    return semantics.quantize(values, target.scale, target.zero_point)


_COMPUTE: Mapping[str, Callable[..., Tensor]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "add": _add,
    "add_constant": _add_constant,
    "mul": _mul,
    "sigmoid": _sigmoid,
    "concat": lambda plan, op, *parts: torch.cat(parts, 1),
    "global_pool": _global_pool,
    "max_pool": _max_pool,
    "flatten": lambda plan, op, x: x.flatten(1),
    "float_conv2d": _wide_conv2d,
    "float_linear": _wide_linear,
}


def apply(plan: QuantizationPlan, op: Operation, *codes: Tensor) -> Tensor:
    """Return the int32 codes of one operation's output for the codes [N, ...] of its inputs."""
    return _COMPUTE[op.kind](plan, op, *codes)


def evaluate(plan: QuantizationPlan, codes: Tensor) -> dict[str, Tensor]:
    """Return the int32 codes of every activation for input codes [N, C, H, W]."""
    values = {plan.input: codes}
    for op in plan.operations:
        values[op.output] = apply(plan, op, *(values[name] for name in op.inputs))
    return values


def _batches(plan: QuantizationPlan, x: Tensor) -> Iterator[dict[str, Tensor]]:
    source, x = plan.activations[plan.input], as_maps(x)
    if x.dim() != 4 or tuple(x.shape[1:]) != source.shape:
        fix = f"give float32 of shape [N, {', '.join(map(str, source.shape))}]"
        raise ModelError(f"input of shape {list(x.shape)}", where="plan", fix=fix)
    if not torch.isfinite(x).all():
        raise DataError("NaN or an infinity", where="input", fix="drop that sample")
    for start in range(0, max(x.shape[0], 1), _BATCH):
        chunk = x[start : start + _BATCH]
        yield evaluate(plan, semantics.quantize(chunk, source.scale, source.zero_point))


def run(plan: QuantizationPlan, x: Tensor) -> dict[str, NDArray[np.int16]]:
    """Return the signed codes of every output by role, [N, ...], for float32 inputs [N, C, H, W].

    Raises:
        ModelError: The input's shape is not the plan's.
        DataError: The input holds NaN or an infinity.
    """
    with torch.no_grad():
        parts = [{role: v[name] for role, name in plan.outputs.items()} for v in _batches(plan, x)]
    return {role: torch.cat([part[role] for part in parts]).numpy().astype(np.int16) for role in plan.outputs}


def dequantize(plan: QuantizationPlan, role: str, codes: NDArray[np.int16]) -> NDArray[np.float32]:
    """Return the float32 values of an output's codes."""
    spec = plan.activations[plan.outputs[role]]
    return (codes.astype(np.float32) - np.float32(spec.zero_point)) * np.float32(spec.scale)


def predict(plan: QuantizationPlan, x: Tensor) -> NDArray[np.float32]:
    """Return float32 logits [N, K] of the integer network: what the shipped file answers."""
    return dequantize(plan, "logits", run(plan, x)["logits"])
