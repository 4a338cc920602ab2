# SPDX-License-Identifier: Apache-2.0
"""Who guesses a latency before anything is trained: called by name, because ``compress`` knows no board and no runtime.

A predictor orders candidates and leaves out those that cannot keep ``[budget] latency_ms``. What a search reports
is measured by the stopwatch.
"""

from pathlib import Path
from typing import Final, Protocol

from torch import Tensor, nn

__all__ = ["Forecast", "Predictor", "load"]

READER: Final = "strop.predictor:read"


class Forecast(Protocol):
    """Milliseconds that are expected, and the ends of their interval; ``high`` may be infinite."""

    @property
    def ms(self) -> float: ...

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...


class Predictor(Protocol):
    """(float model, inputs [N,C,H,W], whether its integers will run) → forecast of one input.

    Raises MeasurementError for a model that is unlike all that the predictor has learned from.
    """

    def __call__(self, model: nn.Module, inputs: Tensor, *, is_integer: bool) -> Forecast: ...


def load(reference: str) -> Predictor | None:
    """Return the predictor in a file of ``strop bench predict learn``, or behind ``module:callable``; None for "".

    Raises:
        RecipeError: No such module or name, or it cannot be called.
        MeasurementError: The file is not there, or holds no predictor.
    """
    from compress.sources import resolve

    if not reference:
        return None
    words = {"where": "--predictor", "key": "predictor", "folder": Path.cwd()}
    if not reference.endswith(".json"):
        found: Predictor = resolve(reference, **words)  # type: ignore[arg-type]
        return found
    read: Predictor = resolve(READER, **words)(Path(reference))  # type: ignore[arg-type]
    return read
