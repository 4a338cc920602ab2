# SPDX-License-Identifier: Apache-2.0
"""Element-wise operators, read from an exported graph: sums, products, clamps, gates, and the joining of channels."""

from typing import Any

import torch
from torch import Tensor

from compress.quantize.reader import Arguments, Handler, Node, Reader, shape_of, unsupported

__all__ = ["add", "clamp", "concat", "divide", "gate", "hard_sigmoid", "multiply", "subtract"]


def clamp(r: Reader, n: Node, a: Arguments) -> None:
    """Emit ReLU, ReLU6, hardtanh or clamp, whose bounds have different names."""
    is_six = n.target is torch.ops.aten.relu6.default
    low = a.get("min", a.get("min_val", 0.0))
    high = a.get("max", a.get("max_val", 6.0 if is_six else None))
    if low != 0:
        raise unsupported(n, f"a clamp to [{low}, {high}]", "use ReLU or ReLU6")
    r.emit(n, "clamp", (a["self"],), low=0.0, high=float("inf") if high is None else float(high))


def hard_sigmoid(r: Reader, n: Node, a: Arguments) -> None:
    """Emit clamp(x / 6 + 1/2, 0, 1): after a convolution or linear layer nothing of it is left to compute."""
    _affine(r, n, a["self"], torch.tensor(1.0 / 6.0), torch.tensor(0.5), low=0.0, high=1.0)


def gate(kind: str) -> Handler:
    """Return the handler of hard-swish, SiLU or sigmoid."""

    def emit(r: Reader, n: Node, a: Arguments) -> None:
        r.emit(n, kind, (a["self"],))

    return emit


def add(r: Reader, n: Node, a: Arguments) -> None:
    """Emit a sum of two tensors of one shape, or of one and a constant."""
    constant = _constant(r, a["other"])
    if constant is not None:
        _affine(r, n, a["self"], torch.tensor(1.0), constant * a["alpha"])
        return
    _same_shapes(r, n, a, "an addition")
    if a["alpha"] != 1:
        raise unsupported(n, "an addition with a factor", "multiply by the factor before it")
    r.emit(n, "add", (a["self"], a["other"]))


def subtract(r: Reader, n: Node, a: Arguments) -> None:
    """Emit the subtraction of a constant."""
    constant = _constant(r, a["other"])
    if constant is None:
        raise unsupported(n, "a subtraction of two tensors", "negate a convolution's weights, and add")
    _affine(r, n, a["self"], torch.tensor(1.0), -constant * a["alpha"])


def multiply(r: Reader, n: Node, a: Arguments) -> None:
    """Emit a product of two tensors (one may be [C, 1, 1] to a map), or of one and a constant."""
    constant = _constant(r, a["other"])
    if constant is not None:
        _affine(r, n, a["self"], constant, torch.tensor(0.0))
        return
    first, second = a["self"], a["other"]
    if isinstance(first, Node) and isinstance(second, Node) and _gates(shape_of(second), shape_of(first)):
        first, second = second, first
    elif isinstance(first, Node) and isinstance(second, Node) and not _gates(shape_of(first), shape_of(second)):
        _same_shapes(r, n, a, "a product")
    r.emit(n, "mul", (first, second))


def divide(r: Reader, n: Node, a: Arguments) -> None:
    """Emit the division by a constant."""
    constant = _constant(r, a["other"])
    if constant is None:
        raise unsupported(n, "a division of two tensors", "multiply by a constant, or leave it to the post-processing")
    _affine(r, n, a["self"], 1.0 / constant, torch.tensor(0.0))


def concat(r: Reader, n: Node, a: Arguments) -> None:
    """Emit the joining of channels."""
    rank = len(shape_of(n))
    if int(a["dim"]) % rank != 1:
        raise unsupported(n, f"a concatenation along dimension {a['dim']}", "join channels: dim=1")
    r.emit(n, "concat", tuple(a["tensors"]))


def _gates(shape: tuple[int, ...], gate_shape: tuple[int, ...]) -> bool:
    """The second shape is one number per channel of the first, a map or series."""
    return len(shape) in (3, 4) and shape[2:] != gate_shape[2:] and gate_shape == (*shape[:2], *[1] * (len(shape) - 2))


def _same_shapes(r: Reader, n: Node, a: Arguments, what: str) -> None:
    operands = (a["self"], a["other"])
    shapes = [shape_of(operand) for operand in operands if isinstance(operand, Node)]
    if len(shapes) != 2 or shapes[0] != shapes[1]:
        raise unsupported(n, f"{what} of different shapes", "use two tensors of one shape")


def _constant(r: Reader, operand: Any) -> Tensor | None:
    if isinstance(operand, int | float):
        return torch.tensor(float(operand))
    return r.tensor(operand) if isinstance(operand, Node) else None


def _affine(r: Reader, n: Node, source: Any, factor: Tensor, offset: Tensor, **bounds: float) -> None:
    """Emit x × factor + offset, both a number or one per channel, as the batch normalisation that it is."""
    shape = shape_of(n)
    channels = shape[1]
    for constant in (factor, offset):
        per_channel = (channels, *[1] * (len(shape) - 2))
        if constant.numel() != 1 and tuple(constant.shape)[-len(per_channel) :] != per_channel:
            fix = "use one number, or one per channel"
            raise unsupported(n, f"arithmetic with a constant of shape {list(constant.shape)}", fix)
    wide = [constant.double().reshape(-1).expand(channels).clone() for constant in (factor, offset)]
    r.emit(n, "batch_norm", (source,), weight=wide[0], bias=wide[1], **bounds)
