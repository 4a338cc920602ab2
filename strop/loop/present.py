# SPDX-License-Identifier: Apache-2.0
"""The model that is shipped now, and its teacher, as an examination of captured inputs asks them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress import compressed, evaluate, sources
from compress import recipe as recipes
from compress.compressed import CompressedModel
from compress.quantize import integer
from compress.recipe import Recipe
from compress.splits import Split
from edge_agent.runner.observe import Observer
from edge_contract.counts import Counters
from edge_contract.errors import UsageError
from edge_contract.profile import ReferenceProfile

__all__ = ["Present", "open_present", "read_recipe"]

_MOST: Final = 512  # validation inputs on which the teacher's usual confidence is measured
Raw = NDArray[Any]


@dataclass(frozen=True)
class Present:
    """What a captured set is held against.

    Attributes:
        shape, dtype: Of one raw input, as the old data have them.
        answer: Raw inputs [N, …] → logits [N, K] and embedding [N, d] (None without) of the model that is shipped.
        sure: Raw inputs → the teacher's confidence in each [N].
        usual: Its mean confidence on old validation inputs.
    """

    shape: tuple[int, ...]
    dtype: str
    answer: Callable[[Raw], tuple[Raw, Raw | None]]
    sure: Callable[[Raw], Raw]
    usual: float

    def count(self, x: Raw, profile: ReferenceProfile) -> Counters:
        """Return raw inputs counted as the device counts them.

        Raises:
            ProfileError: The profile is another model's.
        """
        observer = Observer(profile)
        logits, embedding = self.answer(x)
        for row, raw in enumerate(x):
            observer.observe(logits[row], None if embedding is None else embedding[row], raw, 0.0)
        return observer.counters()


def open_present(folder: Path, teacher_weights: Path | None = None) -> Present:
    """Return the present model of a folder that ``strop compress run`` wrote, with its recipe's teacher.

    Args:
        folder: Of the compressed model.
        teacher_weights: In place of those that the recipe names.

    Raises:
        UsageError: The recipe has no teacher.
        StropError: Model, data or teacher are not as they must be.
    """
    model = compressed.load(folder)
    recipe = read_recipe(model, folder)
    teacher = sources.load_teacher(recipe, teacher_weights)
    if teacher is None:
        fix = "add teacher and teacher_weights to [model] of the recipe"
        raise UsageError("the recipe has no teacher: nobody labels what was captured", where=str(folder), fix=fix)
    data, _ = sources.load_data(recipe)
    ask = _Asked(recipe, model, teacher)
    usual = float(ask.sure(data.validation.x[:_MOST]).mean())
    return Present(data.validation.x.shape[1:], str(data.validation.x.dtype), ask.answer, ask.sure, usual)


def read_recipe(model: CompressedModel, folder: Path) -> Recipe:
    """Return the recipe that made a model, its relative names beside where it lay, or in the model's folder."""
    place = model.recipe_path if model.recipe_path.parent.is_dir() else folder / "recipe.toml"
    return recipes.parse(model.recipe_text, place)


class _Asked:
    """Model and teacher behind the recipe's preprocessing."""

    def __init__(self, recipe: Recipe, model: CompressedModel, teacher: nn.Module) -> None:
        self._recipe, self._model, self._teacher = recipe, model, teacher

    def _inputs(self, x: Raw) -> Tensor:
        return sources.tensors(self._recipe, Split.unlabelled(x)).x

    def answer(self, x: Raw) -> tuple[Raw, Raw | None]:
        plan = self._model.plan
        if plan is None:
            return evaluate.predict(self._model.model, self._inputs(x)).numpy(), None
        codes = integer.run(plan, self._inputs(x))
        found = {role: integer.dequantize(plan, role, values) for role, values in codes.items()}
        embedding = found.get("embedding")
        return found["logits"], None if embedding is None else embedding.reshape(len(x), -1)

    def sure(self, x: Raw) -> Raw:
        parts: Iterable[Tensor] = (evaluate.predict(self._teacher, self._inputs(part)) for part in _pieces(x))
        found: Raw = torch.cat([logits.softmax(1).amax(1) for logits in parts]).numpy()
        return found


def _pieces(x: Raw) -> list[Raw]:
    return np.array_split(x, max(1, len(x) // 256))
