# SPDX-License-Identifier: Apache-2.0
"""The ``quantize`` step: float becomes int8."""

from dataclasses import dataclass
from typing import ClassVar

from compress.recipe_table import Table

__all__ = ["Quantize", "read_quantize"]


@dataclass(frozen=True)
class Quantize:
    """Static int8 by the quantization plan.

    Attributes:
        observer: What decides activation ranges on the calibration split: ``squared-error``, ``percentile`` or
            ``min-max``.
        percentile: For the percentile observer.
        max_drop: As in ``Train``.
    """

    kind: ClassVar[str] = "quantize"
    method: str = "static-int8"
    observer: str = "squared-error"
    percentile: float = 99.99
    max_drop: float | None = None


def read_quantize(table: Table) -> Quantize:
    """Return a ``quantize`` step."""
    return Quantize(
        table.text("method", "static-int8", among=("static-int8",)),
        table.text("observer", "squared-error", among=("squared-error", "percentile", "min-max")),
        table.number("percentile", 99.99, low=50.01, high=100.0),
        table.number("max_drop", None, high=100.0),
    )
