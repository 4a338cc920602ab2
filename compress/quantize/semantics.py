# SPDX-License-Identifier: Apache-2.0
"""What the integers of a plan mean on the runtimes that compute them, and the scales on which all of them agree.

Theory of operation
-------------------
*Convolution, linear.* ONNX Runtime (MLAS) and LiteRT (XNNPACK) both sum int32 products, convert the sum to float32,
multiply by ``(input scale × weight scale) / output scale`` in float32, and round half to even. ``requantize`` is that,
operation by operation, so equality needs no luck (XNNPACK: qs8-qc8w ``fp32`` kernels; MLAS: ``MlasRequantizeOutput``).

*Addition, mean.* Here they differ: ONNX Runtime adds in float32, XNNPACK in 21-bit fixed point and rounds half up;
they agree except where the exact result lies next to a tie, k + 1/2. The plan therefore chooses scales on which **no
tie exists**: with scales base × m for integers m, the exact sum in output steps is

    (m_a · a + m_b · b) / m_out  =  integer / odd        when m_out is odd,

and a fraction with an odd denominator is at least 1 / (2 m_out) away from every tie: 0.001 for m_out = 511, where the
arithmetic of either runtime errs by less than 0.0003. All kernels that err less than that margin give one integer. The
price is a scale that grows by at most 2 / 64 (3 %), on the tensors of additions only: ``tie_free_multiples``. A mean is
sum × p / q with q odd: ``tie_free_ratio``.

*Old kernels* (tflite-runtime; LiteRT without XNNPACK) multiply in fixed point and round twice, first to a multiple of
2**-s, where multiplier = m × 2**-s with 1/2 <= m < 1, then to an integer, half up. What lies below a tie by at most
2**-s / 2 is lifted onto it, and goes up: 0.1 to 0.3 % of all codes. If the multiplier is 1/q with q **even**, the
results are multiples of 1/q: one of them is the tie itself, and the next one below it is a whole 1/q = m × 2**-s away,
out of reach as m > 1/2. A hair (2**-22) more than 1/q moves the tie up for the runtimes that round once. For positive
sums, so after every ReLU, all of them then agree but for a few codes in 100 000: ``fixed_point_multiplier``. The price
is a weight scale that grows by at most 3 %. (A mean cannot have that: XNNPACK subtracts the zero point in float32, so a
hair above a tie is lost.) docs/quantization.md has the measurements.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_contract.errors import ModelError

__all__ = [
    "HIGH",
    "LOW",
    "SIGMOID_SCALE",
    "WEIGHT_HIGH",
    "dequantize",
    "fixed_point_multiplier",
    "float32",
    "multipliers",
    "quantize",
    "requantize",
    "scale_and_zero_point",
    "sigmoid_margin",
    "tie_free_multiples",
    "tie_free_ratio",
    "tie_free_shift",
    "zero_point",
]

LOW, HIGH = -128, 127
WEIGHT_HIGH = 127  # -128 is left out: symmetric, and the Edge TPU's and XNNPACK's kernels ask for it
SIGMOID_SCALE = 1.0 / 256.0  # with zero point -128: what TFLite's kernels demand of a sigmoid's output
_SMALLEST, _LARGEST = 2.0**-60, 2.0**60  # products of three scales stay normal float32 numbers
_FINEST_MULTIPLE = 64  # integer of the finest scale in an addition: scales grow by at most 2/64
_COARSEST_MULTIPLE = 511  # 1/1022 of a step from a tie; XNNPACK's 21-bit multipliers err by 1/4096 of one
_FINEST_RATIO = 127
_LARGEST_DENOMINATOR = 255
_HAIR = 2.0**-22  # four float32 steps: a product of scales errs by three at most


def float32(value: float) -> float:
    """Return the float32 nearest to a number, as a Python float.

    Example:
        >>> float32(0.1)
        0.10000000149011612
    """
    return float(np.float32(value))


def scale_and_zero_point(low: float, high: float, *, where: str = "tensor") -> tuple[float, int]:
    """Return scale (float32) and zero point of a range, which is first widened to hold zero.

    scale = (high - low) / 255; zero point = round(-128 - low / scale). Zero is exact, and inside the range a value
    errs by at most scale / 2.

    Raises:
        ModelError: The range is beyond what float32 scales can hold.

    Example:
        >>> scale_and_zero_point(0.0, 255.0), scale_and_zero_point(-1.0, 1.55)
        ((1.0, -128), (0.009999999776482582, -28))
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float32(max((high - low) / (HIGH - LOW), _SMALLEST))
    if not scale <= _LARGEST:
        raise ModelError(f"range {low:.3g} to {high:.3g} is too wide", where=where, fix="normalise before this layer")
    return scale, zero_point(low, scale)


def zero_point(low: float, scale: float) -> int:
    """Return the code of zero when ``low`` is to sit at code -128, clipped to the code range."""
    return int(min(max(round(LOW - min(low, 0.0) / scale), LOW), HIGH))


def quantize(values: Tensor, scale: float, zero: int) -> Tensor:
    """Return int32 codes of real values: divide in float32, round half to even, add the zero point, saturate.

    Example:
        >>> quantize(torch.tensor([0.0, 0.5, 1.5, 999.0]), 1.0, -128).tolist()
        [-128, -128, -126, 127]
    """
    codes = torch.round(values.float() / torch.tensor(scale, dtype=torch.float32)) + zero
    return torch.clamp(codes, LOW, HIGH).to(torch.int32)


def dequantize(codes: Tensor, scale: float, zero: int) -> Tensor:
    """Return the float32 values of codes: scale × (code - zero point)."""
    return (codes - zero).float() * torch.tensor(scale, dtype=torch.float32)


def multipliers(
    input_scale: float, weight_scales: Sequence[float] | NDArray[np.float32], output_scale: float
) -> Tensor:
    """Return float32 multipliers [out]: (input × weight) / output, each step rounded to float32 as both runtimes do."""
    products = np.float32(input_scale) * np.asarray(weight_scales, np.float32)
    return torch.from_numpy((products / np.float32(output_scale)).astype(np.float32).copy())


def requantize(accumulator: Tensor, multiplier: Tensor, zero: int) -> Tensor:
    """Return int32 codes of int32 sums: float32(sum) × multiplier, half to even, + zero point, saturate.

    Args:
        accumulator: Exact sums, int32, [N, out, ...].
        multiplier: float32, broadcastable to the sums.
        zero: Zero point of the output.

    Example:
        >>> requantize(torch.tensor([5, 7, 9000], dtype=torch.int32), torch.tensor(0.5), 0).tolist()
        [2, 4, 127]
    """
    scaled = accumulator.to(torch.int32).float() * multiplier
    return torch.clamp(torch.round(scaled.clamp(-512.0, 512.0)) + zero, LOW, HIGH).to(torch.int32)


def tie_free_multiples(scales: Sequence[float]) -> list[float]:
    """Return scales, none smaller than asked, in which an addition of any of them has no tie.

    Each is base × (an odd integer of at most 513), exact in float32 to 2**-24. The base is the finest scale / 64, or
    the coarsest / 511 if that is more: then the finest ones grow more, but their steps are lost in the sum anyway.

    Example:
        >>> [round(s, 4) for s in tie_free_multiples([1.0, 2.0])]
        [1.0156, 2.0156]
    """
    base = max(min(scales) / _FINEST_MULTIPLE, max(scales) / _COARSEST_MULTIPLE)
    return [float32(base * _odd_at_least(scale / base)) for scale in scales]


def tie_free_ratio(input_scale: float, output_scale: float, count: int, *, finest: int = _FINEST_RATIO) -> float:
    """Return an output scale, not smaller than asked, in which a mean of ``count`` codes has no tie.

    The mean in output steps is sum × input / (count × output) = sum × p / q, with q odd.

    Example:
        >>> scale = tie_free_ratio(1.0, 0.3, 16)
        >>> round(scale * 16, 6), 0.3 <= scale < 0.31
        (4.851852, True)
    """
    wanted = count * output_scale / input_scale
    p = max(1, math.ceil(finest / wanted))
    return float32(input_scale * _odd_at_least(wanted * p) / (count * p))


def tie_free_shift(input_scale: float, wanted: float) -> tuple[float, float]:
    """Return an output scale next to the wanted one in which input + constant has no tie, and the constant's unit.

    The output is input × p / q with p odd; with a constant that is a multiple of input / q, the sum in output steps is
    an integer / p. The output scale may not grow, as its largest code is where a clamp cuts.

    Example:
        >>> scale, unit = tie_free_shift(0.05, 6 / 255)
        >>> round(scale * 255, 3), round(0.05 / unit)
        (5.997, 253)
    """
    best = (float("inf"), 1, 1)
    for q in range(1, _LARGEST_DENOMINATOR + 1):
        p = min(2 * int(wanted * q / input_scale / 2) + 1, _COARSEST_MULTIPLE)
        best = min(best, (abs(p / q * input_scale / wanted - 1.0), p, q))
    _, p, q = best
    return float32(input_scale * p / q), input_scale / q


def sigmoid_margin(scale: float, zero: int) -> float:
    """Return how near the closest of the 256 values of a sigmoid's table lies to a tie, in output steps.

    Both runtimes look the answer up in a table that they fill with float32 arithmetic, which errs by 0.0001 step.

    Example:
        >>> sigmoid_margin(0.05, 0) < 0.01
        True
    """
    steps = 1.0 / (1.0 + np.exp(-(np.arange(LOW, HIGH + 1) - zero) * scale)) / SIGMOID_SCALE
    return float(np.abs(steps - np.floor(steps) - 0.5).min())


def fixed_point_multiplier(multiplier: float, *, growth: float = 1.03) -> float:
    """Return a multiplier that double rounding in fixed point computes right for positive sums.

    It is 1/q with q even, and a hair more: at least the one given, and larger by at most the factor ``growth``; where
    no such q exists, the one given. See the theory above.

    Example:
        >>> round(1 / fixed_point_multiplier(0.00301), 3), fixed_point_multiplier(0.4)
        (332.0, 0.4)
    """
    if not 0.0 < multiplier < 0.5:
        return multiplier
    q = math.floor(1.0 / multiplier)
    q -= q % 2
    while q > 2 and 1.0 / q <= multiplier * growth:
        if 1.0 / q - 2.0 ** (math.frexp(1.0 / q)[1] - 1) > 512 * _HAIR:
            return (1.0 + _HAIR) / q
        q -= 2
    return multiplier


def _odd_at_least(value: float) -> int:
    nearest = math.ceil(value * (1.0 - 2.0**-22))  # a scale that is already a multiple stays, in spite of float32
    return nearest + 1 - nearest % 2
