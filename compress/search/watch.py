# SPDX-License-Identifier: Apache-2.0
"""Stops a trial that cannot win: by its cost before it trains, by its accuracy after a step."""

from collections.abc import Sequence
from pathlib import Path

from compress.dry_run import DryModel, Estimate, dry_model
from compress.listener import Silent
from compress.predictors import Forecast, Predictor
from compress.recipe import Recipe
from compress.report import StepReport
from compress.search.task import Rival
from compress.steps import Quantize
from compress.steps.quantize import PLANNED
from edge_contract.errors import BudgetError, MeasurementError, UnsupportedOperatorError

__all__ = ["Watcher", "affordable", "foreseen"]

SLACK = 1.02
"""Estimated sizes are off by a little (rounded widths of single layers): only what misses by more is refused."""


def affordable(
    recipe: Recipe, teacher_weights: Path | None = None, predictor: Predictor | None = None
) -> tuple[Estimate, Forecast | None]:
    """Return what the result of a recipe will cost, and its latency's forecast where somebody can give one.

    Args:
        recipe: Of the trial.
        teacher_weights: As in ``pipeline.run``.
        predictor: Of the target; only the lower end of its interval can refuse.

    Raises:
        BudgetError: More than the budget has, whatever training does.
    """
    dry = dry_model(recipe, teacher_weights)
    last, budget = dry.estimates[-1], recipe.budget
    costs = (
        ("size_kb", last.size_kb, budget.size_kb),
        ("macs", last.macs, budget.macs),
        ("parameters", last.parameters, budget.parameters),
    )
    for name, value, limit in costs:
        if limit is not None and value > SLACK * limit:
            what = f"{name} would be {value:g}, allowed {limit:g}"
            raise BudgetError(what, where=recipe.where("budget"), fix="choose a smaller target")
    forecast = foreseen(recipe, dry, predictor)
    limit = budget.latency_ms
    if forecast is not None and limit is not None and forecast.low > SLACK * limit:
        what = f"latency_ms would be {forecast.low:.3g} or more, predicted {forecast.ms:.3g}, allowed {limit:g}"
        raise BudgetError(what, where=recipe.where("budget"), fix="choose a smaller target")
    return last, forecast


def foreseen(recipe: Recipe, dry: DryModel, predictor: Predictor | None) -> Forecast | None:
    """Return the forecast of a recipe's result, None where nobody can give one: then it is measured like any other."""
    if predictor is None:
        return None
    is_integer = any(isinstance(step, Quantize) and step.method in PLANNED for step in recipe.steps)
    try:
        return predictor(dry.model.eval(), dry.inputs, is_integer=is_integer)
    except (MeasurementError, UnsupportedOperatorError):
        return None


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
