# SPDX-License-Identifier: Apache-2.0
"""``strop compress sensitivity``: what each layer of a trained model would cost in 4 bits, 8 bits, and wide."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from compress import compressed, recipe, sources
from compress.quantize import sensitivity
from compress.quantize.sensitivity import Sensitivity
from compress.quantize.step import Quantizer
from compress.recipe import Recipe
from compress.sources.program import load_program
from compress.steps import Quantize
from compress.steps.quantize import Settings
from compress.threads import threads
from edge_contract.errors import ModelError, UnsupportedOperatorError, UsageError

__all__ = ["of_path"]


def of_path(
    path: Path, *, samples: int = 0, most_threads: int = 0, progress: Callable[[int, int], None] | None = None
) -> Sensitivity:
    """Return what quantizing each layer alone costs, on the recipe's validation split; the test split stays closed.

    Args:
        path: Folder of a finished run, or a recipe whose model enters with weights.
        samples: How many validation samples, the first ones; 0 takes all.
        most_threads: In place of the recipe's.
        progress: Told (done, all) samples.

    Raises:
        UsageError: The recipe's model is not trained yet.
        DataError, ModelError, RecipeError, UnsupportedOperatorError: As when the recipe is run.
    """
    read, model = _model(path)
    data, _sealed = sources.load_data(read)
    kept = data.validation.take_first(samples) if samples else data.validation
    with threads(most_threads or read.threads):
        calibration = sources.tensors(read, data.calibration)
        validation = sources.tensors(read, sources.with_answers(read, kept, model))
        quantizer = Quantizer(model, calibration.x)
        plan = quantizer.plan(_settings(read))
        return sensitivity.measure(quantizer.graph, plan, validation.x, validation.y, progress=progress)


def _model(path: Path) -> tuple[Recipe, nn.Module]:
    if path.is_dir():
        made = compressed.load(path)
        read = recipe.parse(made.recipe_text, made.recipe_path)
        try:
            return read, load_program(path / "model.pt2")  # with the names of its layers, which a recipe can use
        except (ModelError, UnsupportedOperatorError):
            return read, made.model
    read = recipe.load(path)
    if not read.model.is_trained:
        fix = "give [model] weights, or the folder of a finished run"
        raise UsageError("its model is not trained yet", where=str(path), fix=fix)
    return read, sources.load_model(read)


def _settings(read: Recipe) -> Settings:
    """The ranges and biases of the recipe's quantize step; passes that rewrite the graph would hide single layers."""
    found = next((step.settings for step in read.steps if isinstance(step, Quantize)), Settings())
    return Settings(observer=found.observer, percentile=found.percentile, correct_bias=found.correct_bias)
