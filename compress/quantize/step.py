# SPDX-License-Identifier: Apache-2.0
"""The quantize step: a float module and calibration samples become a QuantizationPlan."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from compress.quantize.calibrate import calibrate, check_samples
from compress.quantize.decide import decide
from compress.quantize.fold import fold
from compress.quantize.gates import open_gates
from compress.quantize.graph import FloatGraph, as_maps
from compress.quantize.plan import QuantizationPlan
from compress.quantize.trace import trace

__all__ = ["folded", "quantize"]


def folded(model: nn.Module, example: Tensor) -> FloatGraph:
    """Return the folded float graph of a module, traced on one input [1, C, H, W] or [1, C, L]; raises as ``trace``."""
    return fold(trace(model, example))


def quantize(
    model: nn.Module,
    calibration: Tensor,
    *,
    embedding: bool = True,
    observer: str = "squared-error",
    percentile: float = 99.99,
    tie_free: bool = True,
    fixed_point: bool = True,
    correct_bias: bool = True,
) -> QuantizationPlan:
    """Return the int8 plan of a model; the model is not changed.

    Args:
        model: One forward from [N, C, H, W] or [N, C, L] to logits [N, K]; evaluated as in eval().
        calibration: Preprocessed float32 samples [N, C, H, W] or [N, C, L], at least 64 of them.
        embedding: Show the input of the last linear layer as a second output.
        observer: ``squared-error``, ``percentile`` or ``min-max``.
        percentile: For the percentile observer, above 50 and at most 100.
        tie_free: Choose scales in which additions and means never tie, so that ONNX Runtime and LiteRT agree.
        fixed_point: Before each ReLU, choose multipliers that the kernels of old runtimes, which round twice, compute
            alike too.
        correct_bias: Take the mean shift that rounded weights cause off the biases (``bias``).

    Raises:
        DataError: No samples, NaN, a wrong type or shape, or all values equal.
        UnsupportedOperatorError: A layer that integers cannot express; names it and a rewrite.
        ModelError: The model cannot be traced, or holds values beyond float32.

    Reference:
        Jacob et al. 2018 (integer-only inference); Nagel et al., "A White Paper on Neural Network Quantization", 2021.
    """
    warnings = check_samples(calibration)
    with torch.no_grad():
        graph = open_gates(folded(model, calibration[:1]))
        observed = calibrate(graph, as_maps(calibration), observer=observer, percentile=percentile)
        rules = {"embedding": embedding, "tie_free": tie_free, "fixed_point": fixed_point, "correct_bias": correct_bias}
        plan = decide(graph, observed, samples=calibration.shape[0], **rules)
    return replace(plan, notes=warnings + plan.notes)
