# SPDX-License-Identifier: Apache-2.0
"""The recipe's ``factorize`` step: weigh, choose ranks, put thinner layers in place; the caller fine-tunes."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as with_lost

import torch
from torch import Tensor, nn

from compress.cost import measure
from compress.edits import Change
from compress.factorize.edit import LAYERS, fill, most_ranks, replace, thin
from compress.factorize.energy import Roots, moments
from compress.factorize.ranks import HOWS, Option, Place, allocate, cheapest_with, energy_of, option_at, options, places
from compress.factorize.svd import balanced, channel_factors, spatial_factors
from compress.factorize.tucker import tucker_factors
from compress.prune.batch_norm import reestimate
from compress.recipe_table import nearest
from compress.sources import Tensors
from compress.steps.factorize import Factorize
from edge_contract.errors import BudgetError, ModelError, RecipeError

__all__ = ["Decision", "Factorized", "decide", "described", "factorize"]


@dataclass(frozen=True)
class Decision:
    """One layer.

    Attributes:
        layer: Its name.
        option: What it becomes; ``whole`` leaves it.
        lost: Share of its energy that is lost, 0 to 1.
    """

    layer: str
    option: Option
    lost: float

    @property
    def change(self) -> Change:
        """The replayable record."""
        return self.layer, self.option.how, self.option.ranks


@dataclass(frozen=True)
class Factorized:
    """What was decided: for every layer that was looked at, and why others were not."""

    decisions: tuple[Decision, ...]
    skipped: tuple[tuple[str, str], ...]

    @property
    def changes(self) -> tuple[Change, ...]:
        """Records of the layers that changed."""
        return tuple(decision.change for decision in self.decisions if decision.option.how != "whole")


def factorize(step: Factorize, model: nn.Module, data: Tensors, teacher: nn.Module | None = None) -> tuple[Change, ...]:
    """Replace layers in place by thinner ones, re-estimate the normalisations, and return the records.

    ``edit.apply`` replays the records on a fresh network.

    Args:
        step: Method, target, limits.
        model: Changed in place.
        data: The training split; its first ``step.samples`` inputs are looked at, without their labels.
        teacher: Not needed: the loss that weighs outputs is the model's own.

    Raises:
        BudgetError: The target cannot be met; says what came closest.
        RecipeError: ``keep`` or ``ranks`` name a layer that is not there.
        ModelError: No layer can be factorised, or the model uses a layer's insides.
    """
    del teacher
    found, roots, decided = _decided(step, model, data)
    model.eval()
    for decision in decided.decisions:
        if decision.option.how != "whole":
            _put(model, data.x[:1], found[decision.layer], decision, roots[decision.layer])
    reestimate(model, data.x[: step.samples])
    return decided.changes


def decide(step: Factorize, model: nn.Module, data: Tensors) -> Factorized:
    """Return what ``factorize`` would do; the model is not changed. Raises as that does."""
    return _decided(step, model, data)[2]


def described(changes: Sequence[Change]) -> str:
    """Return one line for the report.

    Example:
        >>> described([("head", "svd", (8,)), ("body.conv", "tucker-2", (4, 6))])
        'head svd 8, body.conv tucker-2 4×6'
    """
    return ", ".join(f"{name} {how} {'×'.join(map(str, ranks))}" for name, how, ranks in changes) or "nothing had to go"


def _decided(step: Factorize, model: nn.Module, data: Tensors) -> tuple[dict[str, Place], dict[str, Roots], Factorized]:
    every = places(model, data.x[:1])
    _check_names(step, model)
    for name, place in every.items():
        if not bool(torch.isfinite(place.module.weight).all()):
            raise ModelError("weights hold NaN or an infinity", where=name, fix="train the model again")
    skipped = {name: reason for name, place in every.items() if (reason := _reason(step, model, place))}
    skipped |= {
        name: f"its class {type(module).__name__} may compute more than its weight says"
        for name, module in model.named_modules()
        if isinstance(module, LAYERS) and type(module) not in LAYERS
    }
    found = {name: place for name, place in every.items() if name not in skipped}
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:3])
        what = f"no layer can be factorised ({reasons})" if reasons else "no Linear, Conv1d or Conv2d is called"
        raise ModelError(what, where="factorize", fix="leave the step out")
    roots = _roots(step, model, found, data.x[: step.samples])
    chosen = _by_hand(step, found, roots) if step.ranks else _chosen(step, model, data.x[:1], found, roots)
    decisions = tuple(
        Decision(name, option, option.lost / max(energy_of(found[name], roots[name]), 1e-300))
        for name, option in chosen.items()
    )
    return found, roots, Factorized(decisions, tuple(skipped.items()))


def _check_names(step: Factorize, model: nn.Module) -> None:
    names = [name for name, module in model.named_modules() if type(module) in LAYERS]
    for key, given in (("keep", step.keep), ("ranks", tuple(layer for layer, _ in step.ranks))):
        for name in given:
            if name not in names:
                what = f"key '{key}': no linear layer or convolution {name!r}"
                raise RecipeError(what, where="step factorize", fix=nearest(name, names))


def _reason(step: Factorize, model: nn.Module, place: Place) -> str:
    """Return why a layer is left alone, or nothing."""
    if place.name in step.keep:
        return "kept by the recipe"
    if getattr(place.module, "groups", 1) != 1:
        return f"a convolution of {place.module.groups} groups is thin already"
    if step.method != "auto" and not step.ranks and not most_ranks(place.module, step.method):
        return f"{step.method} takes apart k×k convolutions alone"
    users = [m for m in model.modules() if any(p is place.module.weight for p in m.parameters(recurse=False))]
    if len(users) > 1:
        return "its weight is shared with another layer"
    return ""


def _roots(step: Factorize, model: nn.Module, found: dict[str, Place], x: Tensor) -> dict[str, Roots]:
    if step.aware == "weights":
        return dict.fromkeys(found, Roots())
    layers = {name: place.module for name, place in found.items()}
    return moments(model, layers, x, gradients=step.aware == "outputs", seed=step.training.seed)


def _by_hand(step: Factorize, found: dict[str, Place], roots: dict[str, Roots]) -> dict[str, Option]:
    chosen = {}
    for name, ranks in step.ranks:
        if name not in found:
            raise RecipeError(f"key 'ranks': layer {name!r} is left alone", where="step factorize", fix="remove it")
        place = found[name]
        how = _how(place.module, step.method, ranks)
        thin(place.module, how, ranks, where=name)
        chosen[name] = option_at(place, roots[name], how, ranks)
    return chosen


def _how(module: nn.Module, method: str, ranks: tuple[int, ...]) -> str:
    if method != "auto":
        return method
    if len(ranks) == 2:
        return "tucker-2"
    return "spatial-svd" if most_ranks(module, "spatial-svd") else "svd"


def _chosen(
    step: Factorize, model: nn.Module, example: Tensor, found: dict[str, Place], roots: dict[str, Roots]
) -> dict[str, Option]:
    hows = HOWS if step.method == "auto" else (step.method,)
    choices = {n: options(place, roots[n], hows=hows, round_to=step.round_to) for n, place in found.items()}
    if step.share is None:
        assert step.energy is not None
        return {name: cheapest_with(place, roots[name], choices[name], step.energy) for name, place in found.items()}
    full = measure(model, example)
    total = full.macs if step.cost == "macs" else full.parameters
    fixed = total - sum(place.whole.cost(step.cost) for place in found.values())
    # Losses to the network are added up as they are; those of other energies know no common unit but the share.
    units = {n: 1.0 if step.aware == "outputs" else energy_of(place, roots[n]) for n, place in found.items()}
    scaled = {
        n: [with_lost(option, lost=option.lost / units[n]) for option in (*choices[n], place.whole)]
        for n, place in found.items()
    }
    chosen = allocate(scaled, step.cost, step.share * total - fixed)
    if chosen is None:
        least = fixed + sum(min(option.cost(step.cost) for option in every) for every in scaled.values())
        what = f"{step.share:.0%} of the {step.cost} asked for, {least / total:.0%} came closest"
        fix = "raise the target, lower round_to, or prune as well: layers that are thin already cannot lose rank"
        raise BudgetError(what, where="factorize", fix=fix)
    return {n: with_lost(option, lost=option.lost * units[n]) for n, option in chosen.items()}


def _put(model: nn.Module, example: Tensor, place: Place, decision: Decision, roots: Roots) -> None:
    """Put the thin layers of a decision in the layer's place, unless the model reads more of it than its answer."""
    module, (_, how, ranks) = place.module, decision.change
    turned = roots.turn(module.weight)
    factors: tuple[Tensor, ...]
    if how == "tucker-2":
        factors = tucker_factors(turned, (ranks[0], ranks[1]))
    else:
        factors = (channel_factors if how == "svd" else spatial_factors)(turned, ranks[0])
    made = thin(module, how, ranks, where=place.name).train(module.training)
    fill(made, balanced(roots.back(factors)), module.bias)
    replace(model, module, made)
    try:
        with torch.no_grad():
            model(example)  # without hooks, which keep PyTorch's transformer layers off their fast path
    except AttributeError as error:
        replace(model, made, module)
        what = f"the model reads the insides of this layer: {error}"
        raise ModelError(what, where=place.name, fix="name it in keep") from error
