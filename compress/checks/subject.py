# SPDX-License-Identifier: Apache-2.0
"""What is examined: the model as it ships, the data, and what the model is compared with; answers are computed once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from compress import evaluate
from compress.evaluate import Hits, Logits
from compress.quantize.plan import QuantizationPlan
from compress.recipe import Recipe
from compress.splits import Split, WorkingData

__all__ = ["Subject", "Tensors"]

Raw = NDArray[Any]
Tensors = Callable[[Split], tuple[Tensor, Tensor]]
"""A split → inputs float32 [N,C,H,W] and classes int64 [N]."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and its data, as the checks see them.

    Attributes:
        recipe: Names sources and preprocessing.
        data: The splits, with answers in place of labels where there are none; the test split is not among them.
        labels: Names of the classes.
        shipped: What answers on the device: the plan's integers, rounded weights, or the float network.
        plan: The integers; None where the recipe does not quantize to a plan.
        reference: ``teacher``, ``original`` or ``float`` → the model of that name, in float.
        tensors: Preprocessing as on the device.
        test_digests: Digest of a raw input → those of the test split, which stays closed.
    """

    recipe: Recipe
    data: WorkingData
    labels: tuple[str, ...]
    shipped: Logits
    plan: QuantizationPlan | None
    reference: Callable[[str], Logits]
    tensors: Tensors
    test_digests: Callable[[Callable[[Raw], list[bytes]]], list[bytes]]

    @cached_property
    def validation(self) -> tuple[Tensor, Tensor]:
        """Inputs and classes of the validation split."""
        return self.tensors(self.data.validation)

    @cached_property
    def logits(self) -> Tensor:
        """What the shipped model answers to the validation split, [N,K]."""
        return evaluate.predict(self.shipped, self.validation[0])

    @cached_property
    def answers(self) -> NDArray[np.int64]:
        """The class that the shipped model names for each validation sample, [N]."""
        found: NDArray[np.int64] = self.logits.argmax(1).numpy()
        return found

    @cached_property
    def hits(self) -> Hits:
        """Right or wrong for each validation sample, [N]."""
        return np.asarray(self.answers == self.data.validation.y, np.bool_)

    def logits_of(self, raw: Raw) -> Tensor:
        """Return what the shipped model answers to raw inputs, [N,K]."""
        return evaluate.predict(self.shipped, self.tensors(Split.unlabelled(raw))[0])
