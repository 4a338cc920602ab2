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
from compress.quantize.packing import stored_bytes
from compress.quantize.plan import QuantizationPlan
from compress.recipe import Recipe
from compress.report import ModelRow
from compress.report_parts import pack
from compress.sources import SealedSplit, load_model, tensors, with_answers
from edge_contract import targets

__all__ = ["Candidate", "candidate", "int8_logits", "plan_kb", "read_agreement", "read_test"]


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


def plan_kb(plan: QuantizationPlan, target: str) -> float:
    """Return the size of a plan's constants in KB as a file for a target stores them.

    int8 weights and int32 biases; float32 in wide layers; half a byte for a 4-bit weight where the target's runtimes
    read packed ones, of its formats the smaller.
    """
    forms = [name for name, rules in targets.load(target).integers.items() if rules.packed]
    return min(stored_bytes(plan, form) for form in ("", *forms)) / 1000


def int8_logits(plan: QuantizationPlan) -> Logits:
    """Return the integer evaluation of a plan as a function of float inputs [N,C,H,W]."""

    def logits(x: Tensor) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(integer.predict(plan, x)))

    return logits


def read_test(
    recipe: Recipe, sealed: SealedSplit, candidates: Mapping[str, Candidate]
) -> tuple[tuple[ModelRow, ...], Difference | None]:
    """Open the test split and return every candidate's row, and int8, which is the last one, against float, paired.

    A test split without labels (``metric = "agreement"``) is measured against the answers of the model that entered, or
    of the teacher; one with labels is measured by them.

    Raises:
        DataError: The split was read before.
    """
    opened = sealed.open()
    if not opened.is_labelled:
        judge = load_model(recipe) if recipe.model.is_trained else candidates["teacher"].logits
        opened = with_answers(recipe, opened, judge)
    test = tensors(recipe, opened)
    hits = {name: evaluate.hits(one.logits, test.x, test.y) for name, one in candidates.items()}
    rows = tuple(_row(name, one, hits[name]) for name, one in candidates.items())
    small = next(reversed(hits))
    change = None if small in ("teacher", "float") else evaluate.paired_difference(hits["float"], hits[small])
    return rows, change


def _row(name: str, one: Candidate, right: evaluate.Hits) -> ModelRow:
    score = evaluate.score(int(right.sum()), right.size)
    return ModelRow(name, score, one.macs, one.parameters, one.size_kb, pack(right))


def read_agreement(
    recipe: Recipe, sealed: SealedSplit | None, candidates: Mapping[str, Candidate]
) -> tuple[ModelRow, ...]:
    """Open the inputs without labels that no step saw, and return how often each model answers as the teacher does.

    Without a teacher in the recipe the model that entered takes its place. Empty where no inputs were held out.

    Raises:
        DataError: They were read before.
    """
    if sealed is None:
        return ()
    x = tensors(recipe, sealed.open()).x
    judge = candidates["teacher"].logits if "teacher" in candidates else load_model(recipe)
    y = evaluate.predict(judge, x).argmax(1)
    others = {name: one for name, one in candidates.items() if name != "teacher"}
    return tuple(_row(name, one, evaluate.hits(one.logits, x, y)) for name, one in others.items())
