# SPDX-License-Identifier: Apache-2.0
"""The one reading of the test split, after every decision was made."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from compress import cost, evaluate
from compress.evaluate import Difference, Logits
from compress.quantize import integer
from compress.quantize.plan import QuantizationPlan
from compress.recipe import Recipe
from compress.report import ModelRow
from compress.sources import SealedSplit, tensors

__all__ = ["Candidate", "candidate", "int8_logits", "plan_kb", "read_test"]


@dataclass(frozen=True)
class Candidate:
    """A model that is measured at the end: what answers, and what it costs."""

    logits: Logits
    macs: int
    parameters: int
    size_kb: float


def candidate(model: nn.Module, example: Tensor) -> Candidate:
    """Return a float model as a candidate."""
    found = cost.measure(model, example)
    return Candidate(model, found.macs, found.parameters, cost.weight_bytes(model) / 1000)


def plan_kb(plan: QuantizationPlan) -> float:
    """Return the size of a plan's integers in KB: int8 weights, int32 biases."""
    return sum(constant.codes.nbytes for constant in plan.constants.values()) / 1000


def int8_logits(plan: QuantizationPlan) -> Logits:
    """Return the integer evaluation of a plan as a function of float inputs [N,C,H,W]."""

    def logits(x: Tensor) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(integer.predict(plan, x)))

    return logits


def read_test(
    recipe: Recipe, sealed: SealedSplit, candidates: Mapping[str, Candidate]
) -> tuple[tuple[ModelRow, ...], Difference | None]:
    """Open the test split and return every candidate's row, and int8 against float, paired.

    Raises:
        DataError: The split was read before.
    """
    test = tensors(recipe, sealed.open())
    hits = {name: evaluate.hits(one.logits, test.x, test.y) for name, one in candidates.items()}
    rows = tuple(
        ModelRow(name, evaluate.score(int(right.sum()), right.size), one.macs, one.parameters, one.size_kb)
        for (name, one), right in zip(candidates.items(), hits.values(), strict=True)
    )
    change = evaluate.paired_difference(hits["float"], hits["int8"]) if "int8" in hits else None
    return rows, change
