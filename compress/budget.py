# SPDX-License-Identifier: Apache-2.0
"""Does a result keep its budget, and if not, what came closest?"""

from collections.abc import Sequence

from compress.recipe import Budget
from compress.report import BudgetLine, StepReport
from edge_contract.errors import BudgetError

__all__ = ["check_step", "check_total", "judge"]

MARGIN = 1e-9
"""Drops are differences of floats: 0.4 points of 750 samples must not miss 0.4 by rounding."""


def judge(budget: Budget, step: StepReport, latency_ms: float | None = None) -> tuple[BudgetLine, ...]:
    """Return the budget's lines for a result; what the budget does not ask for has no line."""
    drop = None if step.drop is None else round(step.drop, 6)
    lines = (
        ("size_kb", budget.size_kb, step.size_kb),
        ("macs", budget.macs, step.cost.macs),
        ("parameters", budget.parameters, step.cost.parameters),
        ("latency_ms", budget.latency_ms, latency_ms),
        ("max_drop", budget.max_drop, drop),
    )
    return tuple(BudgetLine(n, limit, value) for n, limit, value in lines if limit is not None and value is not None)


def check_step(step: StepReport, max_drop: float | None, where: str) -> None:
    """Refuse a step that lost more than it may.

    Raises:
        BudgetError: Says how much was lost, how sure that is, and what to relax.
    """
    if max_drop is None or step.drop is None or step.drop <= max_drop + MARGIN:
        return
    sure = f" (the step itself {step.change})" if step.change else ""
    what = f"{step.kind} lost {step.drop:.2f} points, allowed {max_drop:g}{sure}"
    fix = "give it more epochs, a milder target, or raise max_drop"
    if step.kind == "quantize":
        fix = "raise max_drop, or give the calibration split more typical samples"
    raise BudgetError(what, where=where, fix=fix)


def check_total(budget: Budget, lines: Sequence[BudgetLine], steps: Sequence[StepReport], where: str) -> None:
    """Refuse a result that misses its budget.

    Raises:
        BudgetError: Names each missed line and the step whose result came closest.
    """
    missed = [line for line in lines if not line.is_kept]
    if not missed:
        return
    what = ", ".join(f"{line.name} is {line.value:g}, allowed {line.limit:g}" for line in missed)
    closest = min((step for step in steps if step.number), key=lambda step: _excess(budget, step))
    drop = "" if closest.drop is None else f", drop {closest.drop:.2f}"
    came = (
        f"step {closest.number} ({closest.kind}) came closest: {closest.size_kb:.1f} KB, {closest.cost.macs} MACs{drop}"
    )
    names = " and ".join(line.name for line in missed)
    raise BudgetError(f"{what}; {came}", where=where, fix=f"raise {names}, or change the steps that decide it")


def _excess(budget: Budget, step: StepReport) -> float:
    """Return how far a result is above the budget, as a sum of relative excesses."""
    excess = 0.0
    for line in judge(budget, step):
        excess += max(0.0, line.value - line.limit) / max(abs(line.limit), 0.1)
    return excess
