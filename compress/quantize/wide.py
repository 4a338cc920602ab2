# SPDX-License-Identifier: Apache-2.0
"""Wide layers: a convolution or linear layer that int8 would hurt keeps float32 weights, and computes in float32.

Its input and output stay int8 codes, so that everything around it is as before: codes → float32 → convolution →
codes, rounded half to even. It costs four times the weights and a float kernel on the device, and no two runtimes sum
floats in one order: it leaves the identity list (docs/parity.md), and the gate measures by how much.
"""

import numpy as np
import torch
from torch import Tensor

from compress.quantize.graph import FloatOp
from compress.quantize.plan import WIDE, Constant
from edge_contract.errors import ModelError, UnsupportedOperatorError

__all__ = ["wide_constants", "wide_kind"]


def wide_kind(op: FloatOp) -> str:
    """Return what the plan calls a wide layer: ``float_conv2d`` or ``float_linear``.

    Raises:
        UnsupportedOperatorError: The operation has no weights, so there is nothing to keep wider.

    Example:
        >>> wide_kind(FloatOp("linear", "head", ("x",), "y", (10,)))
        'float_linear'
    """
    if op.kind not in WIDE:
        what = f"a '{op.kind}' cannot be kept in float32"
        raise UnsupportedOperatorError(what, where=f"layer '{op.name}'", fix="name convolutions and linear layers")
    return WIDE[op.kind]


def wide_constants(op: FloatOp) -> tuple[Constant, Constant]:
    """Return weight and bias of a wide layer, float32 as they are.

    Args:
        op: A conv2d or linear with weight [out, in / groups, height, width] or [out, in] and bias [out].

    Raises:
        ModelError: A weight beyond float32.

    Example:
        >>> op = FloatOp("linear", "head", ("x",), "y", (1,), weight=torch.tensor([[0.3]]), bias=torch.ones(1))
        >>> weight, bias = wide_constants(op)
        >>> weight.name, weight.bits, weight.is_float, weight.codes.tolist(), bias.scales.tolist()
        ('head.weight', 32, True, [[0.30000001192092896]], [1.0])
    """
    assert op.weight is not None
    assert op.bias is not None
    return _constant(op, "weight", op.weight), _constant(op, "bias", op.bias)


def _constant(op: FloatOp, role: str, values: Tensor) -> Constant:
    numbers = values.detach().to(torch.float32).contiguous().numpy()
    if not np.isfinite(numbers).all():
        raise ModelError(f"its {role} leaves the range of float32", where=f"layer '{op.name}'", fix="rescale it")
    return Constant(f"{op.name}.{role}", numbers, np.ones(1, np.float32), None)
