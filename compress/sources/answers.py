# SPDX-License-Identifier: Apache-2.0
"""Data without labels: the answers of the float model stand in for them, and accuracy becomes agreement with it."""

from dataclasses import replace
from pathlib import Path

from torch import nn

from compress.evaluate import Logits, predict
from compress.recipe import Recipe
from compress.sources.data import load_data, tensors
from compress.sources.models import load_model, load_teacher
from compress.splits import SealedSplit, Split, WorkingData
from edge_contract.errors import RecipeError

__all__ = ["answered", "judge", "load_answered", "load_validation", "with_answers"]


def judge(recipe: Recipe, entering: nn.Module, teacher: nn.Module | None) -> nn.Module:
    """Return the model whose answers stand for labels: the one that enters trained, else the teacher.

    Raises:
        RecipeError: Neither knows anything.
    """
    if recipe.model.is_trained:
        return entering
    if teacher is None:
        what = "key 'metric': agreement with a model that enters untrained"
        fix = "add weights or a teacher to [model]"
        raise RecipeError(what, where=recipe.where("data"), fix=fix)
    return teacher


def with_answers(recipe: Recipe, split: Split, model: Logits) -> Split:
    """Return a split with the model's answers as its classes; one that has labels is returned as it is."""
    if recipe.data.metric != "agreement" or split.is_labelled:
        return split
    return replace(split, y=predict(model, tensors(recipe, split).x).argmax(1).numpy())


def answered(recipe: Recipe, data: WorkingData, entering: nn.Module, teacher: nn.Module | None) -> WorkingData:
    """Return the data with the judge's answers in every split that has no labels, for ``metric = "agreement"``.

    From there on top-1 accuracy is agreement, and every step can work. Classes without a name are called by their
    number. With another metric the data come back as they are.

    Raises:
        RecipeError: See ``judge``.
    """
    if recipe.data.metric != "agreement":
        return data
    model = judge(recipe, entering, teacher)
    train, calibration, validation = (
        with_answers(recipe, split, model) for split in (data.train, data.calibration, data.validation)
    )
    labels = data.labels
    if not labels:
        outputs = predict(model, tensors(recipe, data.calibration.take_first(1)).x).shape[1]
        labels = tuple(str(i) for i in range(outputs))
    return replace(data, train=train, calibration=calibration, validation=validation, labels=labels)


def load_answered(recipe: Recipe, teacher_weights: Path | None = None) -> tuple[WorkingData, SealedSplit]:
    """Return ``load_data``'s splits, with the judge's answers where ``metric = "agreement"`` asks for them.

    Args:
        recipe: Names data, model and teacher.
        teacher_weights: In place of ``[model] teacher_weights``.

    Raises:
        StropError: As ``load_data``, ``load_model`` and ``load_teacher``.
    """
    data, sealed = load_data(recipe)
    if recipe.data.metric != "agreement":
        return data, sealed
    teacher = None if recipe.model.is_trained else load_teacher(recipe, teacher_weights)
    return answered(recipe, data, load_model(recipe), teacher), sealed


def load_validation(recipe: Recipe) -> Split:
    """Return the validation split alone, with the judge's answers where there are no labels; errors as above."""
    data, _sealed = load_data(recipe)
    if recipe.data.metric != "agreement" or data.validation.is_labelled:
        return data.validation
    teacher = None if recipe.model.is_trained else load_teacher(recipe)
    return with_answers(recipe, data.validation, judge(recipe, load_model(recipe), teacher))
