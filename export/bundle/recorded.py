# SPDX-License-Identifier: Apache-2.0
"""A model whose answers were computed elsewhere, so that a profile can be made of a runtime that does not live here."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from export.runtimes.execution import Execution

__all__ = ["Recorded"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class _Answer:
    logits: Array
    embedding: Array | None


class Recorded:
    """Gives recorded answers one after the other, in the order of the inputs that they were computed for.

    Args:
        logits: Real values [N, K].
        embedding: Real values [N, d], or None.
    """

    def __init__(self, logits: Array, embedding: Array | None) -> None:
        self._answers = (_Answer(row, None if embedding is None else embedding[i]) for i, row in enumerate(logits))

    @classmethod
    def of(cls, execution: Execution) -> "Recorded":
        """Return the answers of an execution in real numbers."""
        return cls(execution.values["logits"], execution.values.get("embedding"))

    def infer(self, raw: Array, /) -> _Answer:
        """Return the next answer, whatever the input."""
        return next(self._answers)
