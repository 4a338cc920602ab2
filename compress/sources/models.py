# SPDX-License-Identifier: Apache-2.0
"""The network that enters a recipe, and its teacher: built by a function, or read from a file with its weights."""

from pathlib import Path

import torch
from torch import Tensor, nn

from compress.checkpoint import read_weights
from compress.named_sources import is_model_file
from compress.recipe import Recipe
from compress.recipe_table import nearest
from compress.sources.names import call, resolve
from edge_contract.errors import ModelError, RecipeError
from edge_contract.preprocess import Preprocess, Preprocessing

__all__ = ["check_kept", "check_teacher", "labels_for", "load_model", "load_teacher", "notes_of"]


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
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            place, fix = (where, f"correct {reference}") if weights is None else (str(weights), "train the model again")
            raise ModelError(f"weight '{name}' holds NaN or Inf", where=place, fix=fix)
    return model.eval()


def _fill(model: nn.Module, path: Path) -> None:
    state = read_weights(path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        fix = "use the weights of this network"
        raise ModelError(f"the weights do not fit: {reason}", where=str(path), fix=fix) from error


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


def labels_for(recipe: Recipe, model: nn.Module, example: Tensor, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the classes, one for each output of the model; classes without names are numbered on.

    Args:
        recipe: For messages.
        model: In eval mode.
        example: One input, float32 [1,…].
        labels: Of the data.

    Raises:
        ModelError: The model refuses the input, or its outputs are not the classes.
    """
    outputs = _outputs(model, example, "the model", recipe.where("model"))
    if outputs is None or outputs == len(labels):
        return labels
    if outputs > len(labels) and labels == tuple(str(i) for i in range(len(labels))):
        return tuple(str(i) for i in range(outputs))
    what = f"{outputs} outputs for {len(labels)} classes ({', '.join(labels[:8])}{' …' if len(labels) > 8 else ''})"
    raise ModelError(what, where=recipe.where("model"), fix="give the model one output for each class")


def check_kept(recipe: Recipe, model: nn.Module) -> None:
    """Refuse names of layers to keep that the model does not have; after a factorize step there are new names.

    Raises:
        RecipeError: Names the step, the layer, and the nearest name.
    """
    known = [name for name, _ in model.named_modules() if name]
    for number, step in enumerate(recipe.steps, 1):
        for name in getattr(step, "keep", ()):
            if name not in known:
                what = f"key 'keep': no layer {name!r}"
                raise RecipeError(what, where=recipe.where(f"step {number}"), fix=nearest(name, known))
        if step.kind == "factorize":
            return


def check_teacher(recipe: Recipe, teacher: nn.Module | None, model: nn.Module, example: Tensor) -> None:
    """Refuse a teacher that refuses the input, or that answers with another number of classes than the model.

    Raises:
        ModelError: Says which.
    """
    if teacher is None:
        return
    where = recipe.where("model")
    theirs, ours = _outputs(teacher, example, "the teacher", where), _outputs(model, example, "the model", where)
    if theirs is not None and ours is not None and theirs != ours:
        fix = "take a teacher of the same classes"
        raise ModelError(f"the teacher has {theirs} outputs, the model {ours}", where=where, fix=fix)


@torch.no_grad()
def _outputs(model: nn.Module, example: Tensor, who: str, where: str) -> int | None:
    """Return how many logits a model answers with; None for another kind of answer, judged where it is used."""
    try:
        answer = model(example)
    except Exception as error:  # a forward is anybody's code
        reason = " ".join(str(error).split())[:160].rstrip(". ")
        what = f"{who} refuses {list(example.shape)}: {type(error).__name__}: {reason}"
        raise ModelError(what, where=where, fix="make [preprocess] and the model agree") from error
    return int(answer.shape[1]) if isinstance(answer, Tensor) and answer.ndim == 2 else None
