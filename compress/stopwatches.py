# SPDX-License-Identifier: Apache-2.0
"""Who measures latency: a callable that is named on the command line, because ``compress`` knows no runtime."""

from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from compress.quantize.plan import QuantizationPlan

__all__ = ["Noted", "Stopwatch", "load"]


class Stopwatch(Protocol):
    """(float model, one input [1,C,H,W], plan) → latency of one input on the recipe's target in milliseconds.

    With a plan the int8 model is timed, else the float one.
    """

    def __call__(self, model: nn.Module, example: Tensor, plan: QuantizationPlan | None = None) -> float: ...


class Noted:
    """A stopwatch that keeps what it measured last: a search wants the latency also where no budget judges it.

    Attributes:
        ms: The last measurement, None before the first.

    Example:
        >>> import torch
        >>> noted = Noted(lambda model, example, plan=None: 1.5)
        >>> noted(nn.Identity(), torch.zeros(1)), noted.ms
        (1.5, 1.5)
    """

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self.ms: float | None = None

    def __call__(self, model: nn.Module, example: Tensor, plan: QuantizationPlan | None = None) -> float:
        self.ms = self._stopwatch(model, example, plan)
        return self.ms


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
