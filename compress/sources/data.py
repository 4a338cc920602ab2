# SPDX-License-Identifier: Apache-2.0
"""The four splits of a recipe's data, from wherever it says, and as the tensors that networks take."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.named_sources import NPZ
from compress.recipe import Recipe
from compress.sources.archives import read_archive, read_inputs
from compress.sources.names import call, resolve
from compress.splits import DataSplits, SealedSplit, Split, WorkingData, separate
from compress.trainer import Augment
from edge_agent.runner import preprocess
from edge_contract.errors import DataError

__all__ = ["Tensors", "load_augment", "load_data", "tensors"]


@dataclass(frozen=True)
class Tensors:
    """A split after preprocessing: inputs float32 [N,C,H,W], of series [N,C,T], and labels int64 [N]."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


def load_data(recipe: Recipe) -> tuple[WorkingData, SealedSplit]:
    """Return what steps may see, and the sealed test split.

    Raises:
        RecipeError: The source's name is wrong.
        DataError: The source failed, or its splits are empty, mislabelled or overlap.
    """
    where = f"{recipe.where('data')} source {recipe.data.source!r}"
    splits = _splits(recipe, where)
    needs_labels = recipe.data.metric != "agreement"
    return separate(splits, where=where, needs_labels=needs_labels, unlabelled=_unlabelled(recipe))


def _splits(recipe: Recipe, where: str) -> DataSplits:
    data = recipe.data
    if data.is_folder():
        from compress.sources.folders import read_folder

        return read_folder(recipe.file(data.source), recipe.preprocess, seed=recipe.seed)
    if data.source.endswith(NPZ):
        return read_archive(recipe.file(data.source), seed=recipe.seed)
    if data.is_file():
        from compress.sources.tables import read_table

        return read_table(recipe.file(data.source), data, recipe.preprocess, seed=recipe.seed)
    return _from_callable(recipe, where)


def _from_callable(recipe: Recipe, where: str) -> DataSplits:
    source = recipe.data.source
    function = resolve(source, where=recipe.where("data"), key="source", folder=recipe.path.parent)
    splits = call(function, source, where, DataError)
    if not isinstance(splits, DataSplits):
        fix = "return compress.sources.DataSplits(train, calibration, validation, test)"
        raise DataError(f"returned a {type(splits).__name__}", where=where, fix=fix)
    return splits


def _unlabelled(recipe: Recipe) -> NDArray[Any] | None:
    """Return the inputs that ``[data] unlabelled`` names, raw, or None."""
    name = recipe.data.unlabelled
    if not name:
        return None
    if name.endswith("/"):
        from compress.sources.folders import read_images

        return read_images(recipe.file(name), recipe.preprocess)
    if name.endswith(NPZ):
        return read_inputs(recipe.file(name))
    where = f"{recipe.where('data')} unlabelled {name!r}"
    function = resolve(name, where=recipe.where("data"), key="unlabelled", folder=recipe.path.parent)
    found = call(function, name, where, DataError)
    found = found.x if isinstance(found, Split) else found
    if not isinstance(found, np.ndarray):
        raise DataError(f"returned a {type(found).__name__}", where=where, fix="return an array of inputs [N, …]")
    return found


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
