# SPDX-License-Identifier: Apache-2.0
"""Choose the codes of one layer from what it sees on calibration data.

Whatever a bias can make up for is left to the bias: inputs and targets count as their difference from their means.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.quantize.graph import FloatOp
from compress.quantize.hessian import round_together
from compress.quantize.rows import by_group, input_rows, output_rows
from compress.quantize.weights import weight_limit

__all__ = ["Moments", "Seen", "moments", "rounded", "wanted_weight"]

_DAMPING = 0.1  # of H's mean diagonal: how strongly the float weights hold where the data say little
_CANCELLED = 1e-12  # of the mean square, for each input: smaller variances are what float64 left over


@dataclass(frozen=True, eq=False)
class Seen:
    """What one layer sees.

    Attributes:
        op: The layer in float.
        scales: Of its weights, float32 [out].
        batches: Returns pairs anew at each call: inputs out of the integer network [N, in, …], and the float network's
            outputs before the clamp [N, out, …].
    """

    op: FloatOp
    scales: NDArray[np.float32]
    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]]


@dataclass(frozen=True, eq=False)
class Moments:
    """Means, and mean products of differences from them, float64; g groups, d inputs and o outputs each.

    Attributes:
        inputs, targets: Means [g, d] and [g, o].
        hessian: Of inputs with inputs, [g, d, d].
        cross: Of targets with inputs, [g, o, d].
    """

    inputs: Tensor
    targets: Tensor
    hessian: Tensor
    cross: Tensor


def moments(seen: Seen) -> Moments:
    """Return a layer's moments, summed batch by batch."""
    count, sums = 0, [torch.zeros((), dtype=torch.float64)] * 4
    for x, y in seen.batches():
        # float32 would leave of a variance of 0 what passes for data, and may be negative
        rows, outputs = input_rows(seen.op, x).double(), output_rows(seen.op, y).double()
        products = rows.sum(1), outputs.sum(1), rows.transpose(1, 2) @ rows, outputs.transpose(1, 2) @ rows
        sums = [total + product for total, product in zip(sums, products, strict=True)]
        count += rows.shape[1]
    x, y, xx, yx = (total / count for total in sums)
    return Moments(x, y, xx - x.unsqueeze(2) * x.unsqueeze(1), yx - y.unsqueeze(2) * x.unsqueeze(1))


def wanted_weight(weight: Tensor, found: Moments) -> tuple[Tensor, Tensor]:
    """Return the real weights [g, o, d] whose outputs come nearest the targets, and the damped hessian.

    Ridge regression towards the weights that are there: W = (C + λ W₀) (H + λ)⁻¹.
    """
    diagonal = found.hessian.diagonal(dim1=1, dim2=2)
    energy = (diagonal + found.inputs.square()).mean(1, keepdim=True)
    least = (_CANCELLED * diagonal.shape[1] * energy).clamp(min=1e-12)
    damping = torch.diag_embed(torch.maximum(_DAMPING * diagonal.mean(1, keepdim=True), least).expand_as(diagonal))
    damped = found.hessian + damping
    right = (found.cross + weight @ damping).transpose(1, 2)
    return torch.linalg.solve(damped, right).transpose(1, 2), damped


def rounded(seen: Seen) -> NDArray[np.int8]:
    """Return codes of the weight's shape, rounded together (``hessian``)."""
    op = seen.op
    assert op.weight is not None
    weight = by_group(op, op.weight).double()
    steps = torch.from_numpy(seen.scales.astype(np.float64)).view(weight.shape[0], -1, 1)
    wanted, hessian = wanted_weight(weight, moments(seen))
    codes = round_together(wanted / steps, hessian, weight_limit(op))
    return codes.reshape(op.weight.shape).numpy().astype(np.int8)
