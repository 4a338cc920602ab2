# SPDX-License-Identifier: Apache-2.0
"""Forms for networks that no plan can express, transformers and recurrent ones: rounded weights, float arithmetic.

=================  ====================================================  =============================  ===============
form               weights in the file                                   arithmetic                     size of float32
=================  ====================================================  =============================  ===============
float16            float16                                               float32                        1/2
weight-only-int8   int8, -127..127, one scale per output channel         float32                        1/4
weight-only-int4   int4, -7..7, one scale per block of at most 32        float32                        about 1/6.4
dynamic-int8       int8, one scale per output channel; convolutions and  int8 × uint8 activations, one  1/4
                   GRU cells stay float32                                scale for each run
=================  ====================================================  =============================  ===============

``simulate`` returns a module that answers what the exported file answers (``export.module.rounded``), so that the
accuracy measured is the accuracy shipped. Of the first three forms ONNX Runtime unpacks the weights when it loads the
file: they buy size, not time. Dynamic int8 buys both for transformers, and loses on convolutions, which stay float.

Reference: symmetric rounding, Nagel et al., "A White Paper on Neural Network Quantization", 2021, section 2; block-wise
scales, Dettmers et al., "8-bit Optimizers via Block-wise Quantization", 2022.
"""

import math
from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn

from compress.quantize.blocks import round_weight
from compress.quantize.dynamic import DynamicInt8
from compress.quantize.layer_weights import duplicate, layer_weights
from edge_contract.errors import ModelError, UnsupportedOperatorError, UsageError

__all__ = ["FORMS", "WEIGHT_ONLY", "named_weights", "simulate", "stored_bytes"]

WEIGHT_ONLY: Final = ("weight-only-int8", "weight-only-int4", "float16")
FORMS: Final = (*WEIGHT_ONLY, "dynamic-int8")


def named_weights(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield (name, weight [rows, ...]) of every layer whose weights these forms round, tied ones once."""
    for name, weight, _ in layer_weights(model):
        yield name, weight


def simulate(model: nn.Module, form: str) -> nn.Module:
    """Return a copy of a model that answers what its file in a form will answer.

    Args:
        model: Any module; unchanged.
        form: One of ``FORMS``; ``float32`` returns a plain copy.

    Raises:
        UsageError: No such form.
        UnsupportedOperatorError: The model has no layer whose weights this form rounds.
        ModelError: A weight that is NaN, infinite, or too large for float16; names it.

    Example:
        >>> net = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(net.weight, 0.3)
        >>> simulate(net, "float16")(torch.ones(1, 1)).item()
        0.300048828125
    """
    if form not in ("float32", *FORMS):
        raise UsageError(f"unknown form '{form}'", fix=f"use one of float32, {', '.join(FORMS)}")
    made = duplicate(model)
    if form == "float32":
        return made
    weights = dict(named_weights(made))
    if not weights:
        what = "no linear, convolution, embedding or recurrent layer"
        raise UnsupportedOperatorError(what, where="model", fix="keep it in float32")
    for name, weight in weights.items():
        _check(name, weight, form)
    if form == "dynamic-int8":
        _check_dynamic(made)
        return DynamicInt8(made)
    with torch.no_grad():
        for weight in weights.values():
            weight.copy_(_rounded(weight, form))
    return made


def _check_dynamic(model: nn.Module) -> None:
    if not any(True for _ in layer_weights(model, is_dynamic=True)):
        what = "dynamic-int8 leaves convolutions and GRU cells in float, and there is no other layer"
        raise UnsupportedOperatorError(what, where="model", fix="use static-int8, or weight-only-int8")


def stored_bytes(model: nn.Module, form: str) -> int:
    """Return the bytes of a model's parameters in a form: rounded weights with their scales, all others float32.

    Example:
        >>> [stored_bytes(nn.Linear(64, 10), form) for form in ("float32", "float16", *FORMS[:2])]  # 640 + 10 numbers
        [2600, 1320, 720, 440]
    """
    found = layer_weights(model, is_dynamic=form == "dynamic-int8") if form != "float32" else ()
    weights = {name: weight for name, weight, _ in found}
    total = 4 * (sum(p.numel() for p in model.parameters()) - sum(w.numel() for w in weights.values()))
    return total + sum(_stored(weight, form) for weight in weights.values())


def _stored(weight: Tensor, form: str) -> int:
    if form == "float16":
        return 2 * weight.numel()
    small = "weight-only-int4" if form == "weight-only-int4" else "weight-only-int8"
    rounded = round_weight(weight, small)
    half = 2 if form == "weight-only-int4" else 1
    return -(-rounded.codes.numel() // half) + 4 * rounded.scales.numel()


def _rounded(weight: Tensor, form: str) -> Tensor:
    return weight.half().float() if form == "float16" else round_weight(weight, form).weight(weight.shape)


def _check(name: str, weight: Tensor, form: str) -> None:
    largest = float(weight.detach().abs().max())
    if not math.isfinite(largest):
        raise ModelError("NaN or an infinity among its weights", where=f"layer '{name}'", fix="train it again")
    if form == "float16" and largest > torch.finfo(torch.float16).max:
        fix = "rescale the layer, or use weight-only-int8"
        raise ModelError(f"a weight of {largest:.3g} is beyond float16", where=f"layer '{name}'", fix=fix)
