# SPDX-License-Identifier: Apache-2.0
"""What a recipe would do, without training: widths, parameters, multiply-accumulates and size after each step."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compress import cost, sources
from compress.factorize.step import described, factorize
from compress.prune.step import cut
from compress.quantize import weight_only
from compress.recipe import Recipe
from compress.steps import Factorize, Prune, Quantize
from compress.steps.quantize import PLANNED

__all__ = ["DryModel", "Estimate", "dry_model", "dry_run"]

CONVOLUTIONS = nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d
ROWS = 64
"""Training inputs that statistics are taken on; without trained weights more of them say nothing more."""


@dataclass(frozen=True)
class Estimate:
    """What is expected after one step; ``size_kb`` counts weights."""

    number: int
    kind: str
    method: str
    epochs: int = 0
    macs: int = 0
    parameters: int = 0
    size_kb: float = 0.0
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def dry_run(recipe: Recipe, teacher_weights: Path | None = None) -> tuple[Estimate, ...]:
    """Return the entering model and the estimate after each step; nothing is trained and nothing is written.

    Data, model and teacher are really loaded, so every wrong name shows here. Pruning is done for its cost, with
    weights that were not trained: the widths of single layers will differ, the target will be met alike.

    Args:
        recipe: What would be done.
        teacher_weights: If given, they are loaded and checked.

    Raises:
        StropError: Whatever ``compress.pipeline.run`` would refuse before its first epoch, or for a pruning target.
    """
    return dry_model(recipe, teacher_weights).estimates


@dataclass(frozen=True)
class DryModel:
    """What a dry run leaves: estimates, a float network of the result's widths, and some training inputs [N,C,H,W]."""

    estimates: tuple[Estimate, ...]
    model: nn.Module
    inputs: Tensor


def dry_model(recipe: Recipe, teacher_weights: Path | None = None) -> DryModel:
    """Return the estimates of ``dry_run`` with the network that they speak of; arguments and errors are the same."""
    data, _sealed = sources.load_data(recipe)
    sources.load_augment(recipe)
    model = sources.load_model(recipe)
    train = sources.tensors(recipe, data.train.take_first(ROWS))
    sources.check_kept(recipe, model)
    if recipe.data.metric != "agreement":
        sources.labels_for(recipe, model, train.x[:1], data.labels)
    if teacher_weights is not None or recipe.model.teacher_weights:
        sources.check_teacher(recipe, sources.load_teacher(recipe, teacher_weights), model, train.x[:1])
    entering = "weights" if recipe.model.is_trained else "untrained"
    found = [_estimate(Estimate(0, "enter", entering), model, train)]
    for number, step in enumerate(recipe.steps, 1):
        now = Estimate(number, step.kind, step.method)
        if not isinstance(step, Quantize):
            now = replace(now, epochs=step.training.epochs)
        if isinstance(step, Prune):
            now = replace(now, note=cut(replace(step, method="magnitude"), model, train).note)
        elif isinstance(step, Factorize):
            now = replace(now, note=described(factorize(step, model, train)))
        now = _estimate(now, model, train)
        found.append(replace(now, size_kb=_quantized_kb(step, model)) if isinstance(step, Quantize) else now)
    return DryModel(tuple(found), model, train.x)


def _estimate(step: Estimate, model: nn.Module, train: sources.Tensors) -> Estimate:
    total = cost.measure(model, train.x[:1])
    return replace(step, macs=total.macs, parameters=total.parameters, size_kb=cost.weight_bytes(model) / 1000)


def _quantized_kb(step: Quantize, model: nn.Module) -> float:
    if step.method not in PLANNED:
        return weight_only.stored_bytes(model, step.method) / 1000
    return _int8_kb(model) if step.mixed is None else step.mixed.size_kb


def _int8_kb(model: nn.Module) -> float:
    """One byte for each weight, four for each bias; every layer with weights has a bias once it is folded."""
    layers = [module for module in model.modules() if isinstance(module, CONVOLUTIONS | nn.Linear)]
    return sum(layer.weight.numel() + 4 * _outputs(layer) for layer in layers) / 1000


def _outputs(layer: nn.Module) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)  # type: ignore[arg-type]
