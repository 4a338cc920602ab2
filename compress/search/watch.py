# SPDX-License-Identifier: Apache-2.0
"""Stops a trial that cannot win: by its cost before it trains, by its accuracy after a step."""

from collections.abc import Sequence
from pathlib import Path

from compress.dry_run import Estimate, dry_run
from compress.listener import Silent
from compress.recipe import Recipe
from compress.report import StepReport
from compress.search.task import Rival
from edge_contract.errors import BudgetError

__all__ = ["Watcher", "affordable"]

SLACK = 1.02
"""Estimated sizes are off by a little (rounded widths of single layers): only what misses by more is refused."""


def affordable(recipe: Recipe, teacher_weights: Path | None = None) -> Estimate:
    """Return what the result of a recipe will cost.

    Raises:
        BudgetError: More than the budget has, whatever training does.
    """
    last, budget = dry_run(recipe, teacher_weights)[-1], recipe.budget
    costs = (
        ("size_kb", last.size_kb, budget.size_kb),
        ("macs", last.macs, budget.macs),
        ("parameters", last.parameters, budget.parameters),
    )
    for name, value, limit in costs:
        if limit is not None and value > SLACK * limit:
            what = f"{name} would be {value:g}, allowed {limit:g}"
            raise BudgetError(what, where=recipe.where("budget"), fix="choose a smaller target")
    return last


class Watcher(Silent):
    """A listener that ends a trial once a rival of no greater cost is surely more accurate at the same step.

    Attributes:
        accuracies: Validation accuracy after each step so far.
    """

    def __init__(self, rivals: Sequence[Rival], cost: Estimate) -> None:
        self._rivals = [r for r in rivals if r.size_kb <= cost.size_kb and r.macs <= cost.macs]
        self.accuracies: list[float] = []

    def ends(self, done: StepReport, *, resumed: bool) -> None:
        if not done.number:
            return
        self.accuracies.append(done.score.accuracy)
        for rival in self._rivals:
            if len(rival.accuracies) >= done.number and rival.accuracies[done.number - 1] > done.score.high:
                had = f"{100 * rival.accuracies[done.number - 1]:.1f} %"
                raise BudgetError(f"{done.score} after step {done.number}, where a trial of no greater cost had {had}")
