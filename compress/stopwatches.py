# SPDX-License-Identifier: Apache-2.0
"""Who measures latency: a callable that is named on the command line, because ``compress`` knows no runtime."""

from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from compress.quantize.plan import QuantizationPlan

__all__ = ["Stopwatch", "load"]


class Stopwatch(Protocol):
    """(float model, one input [1,C,H,W], plan) → latency of one input on the recipe's target in milliseconds.

    With a plan the int8 model is timed, else the float one.
    """

    def __call__(self, model: nn.Module, example: Tensor, plan: QuantizationPlan | None = None) -> float: ...


def load(reference: str) -> Stopwatch | None:
    """Return the stopwatch behind ``module:callable``, None for an empty text.

    Raises:
        RecipeError: No such module or name, or it cannot be called.
    """
    from compress.sources import resolve

    if not reference:
        return None
    found: Stopwatch = resolve(reference, where="--stopwatch", key="stopwatch", folder=Path.cwd())
    return found
