# SPDX-License-Identifier: Apache-2.0
"""Runs the checks of a recipe, in its order, and refuses before any training those that could never run."""

from collections.abc import Callable
from typing import Any, Final

from compress.checks.asked import Functionality, Slices
from compress.checks.calibration_error import calibration_error
from compress.checks.functionality import functionality, load_set
from compress.checks.invariance import direction, invariance
from compress.checks.outcome import CheckResult
from compress.checks.schema import schema
from compress.checks.slices import check_column, slices
from compress.checks.splits_compared import balance, gap, leakage
from compress.checks.subject import Subject
from compress.recipe import Recipe
from compress.splits import WorkingData

__all__ = ["examine", "prepare"]

_RUN: Final[dict[str, Callable[[Any, Subject], CheckResult]]] = {
    "slices": slices,
    "functionality": functionality,
    "invariance": invariance,
    "direction": direction,
    "gap": gap,
    "balance": balance,
    "leakage": leakage,
    "schema": schema,
    "calibration-error": calibration_error,
}


def examine(subject: Subject) -> tuple[CheckResult, ...]:
    """Return what every check of the subject's recipe found, on the shipped model and the validation split."""
    return tuple(_RUN[check.kind](check, subject) for check in subject.recipe.checks)


def prepare(recipe: Recipe, data: WorkingData, labels: tuple[str, ...]) -> None:
    """Look up what the checks name, before hours are spent on training.

    Raises:
        RecipeError: A column, file or function that is not there.
        DataError: A set of inputs that cannot be used.
    """
    for check in recipe.checks:
        where = recipe.where(f"check '{check.name}'")
        if isinstance(check, Slices):
            check_column(check, dict(data.validation.metadata), where)
        elif isinstance(check, Functionality):
            load_set(check, recipe, labels, where)
