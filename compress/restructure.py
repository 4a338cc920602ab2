# SPDX-License-Identifier: Apache-2.0
"""The steps that change a network's structure, behind one pair of functions: which stages, and one stage's edit."""

from pathlib import Path

from torch import Tensor, nn

from compress.edits import Edit
from compress.factorize.step import factorize
from compress.latency import LatencyTable
from compress.prune import step as prune
from compress.sources import Tensors
from compress.steps import Factorize, Prune
from compress.steps import factorize as factorize_steps
from compress.steps import prune as prune_steps

__all__ = ["Restructuring", "Stage"]

Stage = Prune | Factorize


class Restructuring:
    """One step that restructures: its stages, and what their shares are shares of.

    Args:
        step: As the recipe has it.
        entering: The model that enters the step.
        example: One input, float32 [1,C,H,W].
        folder: Where relative files of the recipe lie.
    """

    def __init__(self, step: Stage, entering: nn.Module, example: Tensor, folder: Path) -> None:
        self._table = LatencyTable.load(folder / step.table) if isinstance(step, Prune) and step.table else None
        if isinstance(step, Prune):
            self.stages: tuple[Stage, ...] = prune_steps.stages(step)
            self._full = prune.totals(step, entering, example, table=self._table)
        else:
            self.stages = factorize_steps.stages(step)

    def edit(self, stage: Stage, model: nn.Module, data: Tensors, teacher: nn.Module | None) -> Edit:
        """Restructure a model in place as one stage says, and return the record.

        Raises:
            BudgetError: The stage's target cannot be met.
            UnsupportedOperatorError: A layer that the step does not handle, by name.
        """
        if isinstance(stage, Factorize):
            return Edit("factorize", factorize(stage, model, data, teacher))
        made = prune.cut(stage, model, data, teacher=teacher, full=self._full, table=self._table)
        return Edit("prune", tuple((layer, "", channels) for layer, channels in made.prunings))
