# SPDX-License-Identifier: Apache-2.0
"""The four splits of a recipe's data, from wherever it says, and as the tensors that networks take."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compress.named_sources import NPZ
from compress.recipe import Recipe
from compress.separation import separate
from compress.sources.archives import read_archive
from compress.sources.names import call, resolve
from compress.sources.unlabelled import read_unlabelled
from compress.splits import DataSplits, SealedSplit, Split, WorkingData
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
    more, held_out = read_unlabelled(recipe)
    return separate(splits, where=where, needs_labels=needs_labels, unlabelled=more, held_out=held_out)


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
