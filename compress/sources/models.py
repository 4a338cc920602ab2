# SPDX-License-Identifier: Apache-2.0
"""The network that enters a recipe, and its teacher: built by a function, or read from a file with its weights."""

from pathlib import Path

import torch
from torch import nn

from compress.checkpoint import read_weights
from compress.named_sources import is_model_file
from compress.recipe import Recipe
from compress.sources.names import call, resolve
from edge_contract.errors import ModelError, RecipeError
from edge_contract.preprocess import Preprocess, Preprocessing

__all__ = ["load_model", "load_teacher", "notes_of"]


def notes_of(model: nn.Module) -> tuple[str, ...]:
    """Return what a person should know about a network that was read from a file: what was left out or changed."""
    return tuple(getattr(model, "meta", {}).get("notes", ()))


def _build(recipe: Recipe, key: str, reference: str, weights: Path | None) -> nn.Module:
    if is_model_file(reference):
        return _from_file(recipe, reference)
    where = recipe.where("model")
    function = resolve(reference, where=where, key=key, folder=recipe.path.parent)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)  # the initial weights belong to the recipe
        model = call(function, reference, where, ModelError)
    if not isinstance(model, nn.Module):
        raise ModelError(f"{reference} returned a {type(model).__name__}", where=where, fix="return an nn.Module")
    if weights is not None:
        _fill(model, weights)
    return model.eval()


def _fill(model: nn.Module, path: Path) -> None:
    state = read_weights(path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        fix = "use the weights of this network"
        raise ModelError(f"the weights do not fit: {reason}", where=str(path), fix=fix) from error
    for name, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ModelError(f"weight '{name}' holds NaN or Inf", where=str(path), fix="train the model again")


def _from_file(recipe: Recipe, name: str) -> nn.Module:
    path = recipe.file(name)
    if name.endswith(".pt2"):
        from compress.sources.program import load_program

        return load_program(path)
    from compress.sources.keras_file import load_keras

    return load_keras(path, size=_image_size(recipe.preprocess))


def _image_size(preprocess: Preprocessing) -> tuple[int, int] | None:
    """Return the height and width of the model's input, None where the images decide it."""
    if not isinstance(preprocess, Preprocess):
        return None
    return preprocess.pad or preprocess.crop or preprocess.resize


def load_model(recipe: Recipe) -> nn.Module:
    """Return the model that enters the recipe, in eval mode.

    Raises:
        RecipeError, ModelError: A wrong name, a failing factory, weights that do not fit.
    """
    weights = recipe.file(recipe.model.weights) if recipe.model.weights else None
    return _build(recipe, "source", recipe.model.source, weights)


def load_teacher(recipe: Recipe, weights: Path | None = None) -> nn.Module | None:
    """Return the trained teacher in eval mode, or None if the recipe has none.

    Args:
        recipe: Names the factory and, unless ``weights`` is given, the weights.
        weights: Replaces ``[model] teacher_weights``.

    Raises:
        RecipeError: A teacher without weights knows nothing: says how to give them.
    """
    if not recipe.model.teacher:
        return None
    if is_model_file(recipe.model.teacher):
        return _from_file(recipe, recipe.model.teacher).requires_grad_(requires_grad=False)
    path = weights or (recipe.file(recipe.model.teacher_weights) if recipe.model.teacher_weights else None)
    if path is None or not path.is_file():
        what = "the teacher has no weights" if path is None else f"key 'teacher_weights': no file '{path}'"
        fix = "train it and give --teacher-weights FILE, or set teacher_weights in [model]"
        raise RecipeError(what, where=recipe.where("model"), fix=fix)
    return _build(recipe, "teacher", recipe.model.teacher, path).requires_grad_(requires_grad=False)
