# SPDX-License-Identifier: Apache-2.0
"""Models and data by name: ``module:callable`` and ``.npz``; every wrong name is one line about the recipe."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.checkpoint import read_weights
from compress.recipe import DataSource, Recipe
from compress.recipe_table import nearest
from compress.splits import NAMES, DataSplits, SealedSplit, Split, WorkingData, separate, split_by_class
from compress.trainer import Augment
from edge_agent.runner import preprocess
from edge_contract.errors import DataError, ModelError, RecipeError, StropError

__all__ = [
    "DataSplits",
    "SealedSplit",
    "Split",
    "Tensors",
    "WorkingData",
    "load_augment",
    "load_data",
    "load_model",
    "load_teacher",
    "resolve",
    "split_by_class",
    "tensors",
]

NPZ_SHARES = {"train": 0.6, "calibration": 0.05, "validation": 0.15, "test": 0.2}


@dataclass(frozen=True)
class Tensors:
    """A split after preprocessing: inputs float32 [N,C,H,W], of series [N,C,T], and labels int64 [N]."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let ``module:callable`` name modules beside the recipe and in the current folder, as ``python -m`` does."""
    added = [str(path) for path in (Path.cwd(), folder.resolve()) if str(path) not in sys.path]
    sys.path.extend(added)
    try:
        yield
    finally:
        for path in added:
            sys.path.remove(path)


def resolve(reference: str, *, where: str, key: str, folder: Path) -> Callable[..., Any]:
    """Return the callable behind ``module:callable``.

    Raises:
        RecipeError: No such module or name, or it cannot be called; names file, key, value and the nearest name.
    """
    module_name, _, name = reference.partition(":")
    try:
        with _importable(folder):
            found: Any = importlib.import_module(module_name)
    except StropError:
        raise
    except ModuleNotFoundError as error:
        fix = "check the spelling, or run in the folder that holds it"
        if error.name and not module_name.startswith(error.name):
            fix = f"install {error.name}, which it imports"
        raise RecipeError(f"key '{key}': no module {error.name!r} for {reference!r}", where=where, fix=fix) from error
    except Exception as error:
        what = f"key '{key}': importing {module_name!r} failed: {type(error).__name__}: {error}"
        raise RecipeError(what, where=where, fix="correct the module") from error
    for part in name.split("."):
        if not hasattr(found, part):
            public = [word for word in dir(found) if not word.startswith("_")]
            what = f"key '{key}': {module_name!r} has no {part!r}"
            raise RecipeError(what, where=where, fix=nearest(part, public))
        found = getattr(found, part)
    if not callable(found):
        raise RecipeError(f"key '{key}': {reference!r} cannot be called", where=where, fix="name a function")
    return found  # type: ignore[no-any-return]


def _call(function: Callable[..., Any], reference: str, where: str, error_type: type[StropError]) -> Any:
    try:
        return function()
    except StropError:
        raise
    except Exception as error:
        what = f"{reference}() failed: {type(error).__name__}: {error}"
        raise error_type(what, where=where, fix="correct the function; it is called without arguments") from error


def load_data(recipe: Recipe) -> tuple[WorkingData, SealedSplit]:
    """Return what steps may see, and the sealed test split.

    Raises:
        RecipeError: The source's name is wrong.
        DataError: The source failed, or its splits are empty, mislabelled or overlap.
    """
    source = recipe.data.source
    where = f"{recipe.where('data')} source {source!r}"
    splits = _npz(recipe) if source.endswith(".npz") else _from_callable(recipe.data, recipe, where)
    return separate(splits, where=where)


def _from_callable(data: DataSource, recipe: Recipe, where: str) -> DataSplits:
    function = resolve(data.source, where=recipe.where("data"), key="source", folder=recipe.path.parent)
    splits = _call(function, data.source, where, DataError)
    if not isinstance(splits, DataSplits):
        fix = "return compress.sources.DataSplits(train, calibration, validation, test)"
        raise DataError(f"returned a {type(splits).__name__}", where=where, fix=fix)
    return splits


def _npz(recipe: Recipe) -> DataSplits:
    """Read arrays ``x`` and ``y``, split by class; or ``train_x``, ``train_y`` and so on, taken as they are."""
    path = recipe.file(recipe.data.source)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:
        fix = "write it with numpy.savez(path, x=…, y=…)"
        raise DataError(f"no .npz archive: {type(error).__name__}", where=str(path), fix=fix) from error
    if {"x", "y"} <= set(arrays):
        if len(arrays["x"]) != len(arrays["y"]):
            what = f"{len(arrays['x'])} inputs and {len(arrays['y'])} labels"
            raise DataError(what, where=str(path), fix="give one label per input")
        sizes = {name: int(share * len(arrays["y"])) for name, share in NPZ_SHARES.items()}
        return split_by_class(arrays["x"], arrays["y"].astype(np.int64), sizes, seed=recipe.seed)
    missing = [f"{name}_{part}" for name in NAMES for part in "xy" if f"{name}_{part}" not in arrays]
    if missing:
        what = f"arrays {', '.join(sorted(arrays)) or 'none'}; {missing[0]} is missing"
        raise DataError(what, where=str(path), fix="give x and y, or train_x, train_y and so on for each split")
    parts = [Split(arrays[f"{name}_x"], arrays[f"{name}_y"].astype(np.int64)) for name in NAMES]
    return DataSplits(parts[0], parts[1], parts[2], parts[3])


def tensors(recipe: Recipe, split: Split) -> Tensors:
    """Return a split after the recipe's preprocessing, by the same code that runs on the device."""
    x = preprocess.apply_batch(recipe.preprocess, split.x)
    channels_first = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    return Tensors(torch.from_numpy(channels_first), torch.from_numpy(split.y.astype(np.int64)))


def load_augment(recipe: Recipe) -> Augment | None:
    """Return the recipe's augmentation, or None."""
    name = recipe.data.augment
    if not name:
        return None
    return resolve(name, where=recipe.where("data"), key="augment", folder=recipe.path.parent)


def _build(recipe: Recipe, key: str, reference: str, weights: Path | None) -> nn.Module:
    where = recipe.where("model")
    function = resolve(reference, where=where, key=key, folder=recipe.path.parent)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)  # the initial weights belong to the recipe
        model = _call(function, reference, where, ModelError)
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
    path = weights or (recipe.file(recipe.model.teacher_weights) if recipe.model.teacher_weights else None)
    if path is None or not path.is_file():
        what = "the teacher has no weights" if path is None else f"key 'teacher_weights': no file '{path}'"
        fix = "train it and give --teacher-weights FILE, or set teacher_weights in [model]"
        raise RecipeError(what, where=recipe.where("model"), fix=fix)
    return _build(recipe, "teacher", recipe.model.teacher, path).requires_grad_(requires_grad=False)
