# SPDX-License-Identifier: Apache-2.0
"""Which layers lose rank, and how much: what every choice costs and loses, and the choice that meets a target.

A choice that saves neither products nor parameters is none: a 1×1 convolution must fall below in·out/(in + out) before
it pays. So some layers are left alone, and a target may be out of reach.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compress.factorize.edit import LAYERS, most_ranks
from compress.factorize.energy import Roots
from compress.factorize.svd import matrix_of, tails
from compress.factorize.tucker import hosvd_tails

__all__ = ["HOWS", "Option", "Place", "allocate", "cheapest_with", "energy_of", "option_at", "options", "places"]

HOWS = ("svd", "spatial-svd", "tucker-2")


@dataclass(frozen=True)
class Option:
    """One way to have a layer: ``whole``, or factorised.

    Attributes:
        how, ranks: As in a change.
        macs, parameters: Of the layer then; biases are not counted.
        lost: Energy that is lost.
    """

    how: str
    ranks: tuple[int, ...]
    macs: int
    parameters: int
    lost: float

    def cost(self, kind: str) -> int:
        return self.macs if kind == "macs" else self.parameters


@dataclass
class Place:
    """A layer with weights and where it works.

    Attributes:
        name, module: Of the layer.
        calls: (height, width) of input and output each time it is called on one sample; (n, 1) for series and (n, 1)
            for n vectors.
    """

    name: str
    module: Any
    calls: list[tuple[tuple[int, int], tuple[int, int]]] = field(default_factory=list)

    @property
    def whole(self) -> Option:
        """The layer as it is."""
        weight = self.module.weight
        places = sum(out[0] * out[1] for _, out in self.calls)
        return Option("whole", (), weight.numel() * places, weight.numel(), 0.0)

    def option(self, how: str, ranks: tuple[int, ...], lost: float) -> Option:
        """Return what the layer costs at these ranks."""
        outputs, inputs, *kernel = self.module.weight.shape
        taps = torch.Size(kernel).numel()
        sizes: tuple[int, ...]
        if how == "svd":
            sizes = (ranks[0] * inputs * taps, outputs * ranks[0])
        elif how == "spatial-svd":
            sizes = (ranks[0] * inputs * kernel[0], outputs * ranks[0] * kernel[1])
        else:
            sizes = (ranks[0] * inputs, ranks[1] * ranks[0] * taps, outputs * ranks[1])
        macs = sum(sum(a * b for a, b in zip(sizes, self._works(how, *call), strict=True)) for call in self.calls)
        return Option(how, ranks, macs, sum(sizes), lost)

    @staticmethod
    def _works(how: str, source: tuple[int, int], target: tuple[int, int]) -> tuple[int, ...]:
        """Return at how many places each of the layers works: a stride is taken by the layer that has the kernel."""
        after = target[0] * target[1]
        if how == "svd":
            return after, after
        if how == "spatial-svd":
            return target[0] * source[1], after
        return source[0] * source[1], after, after


def places(model: nn.Module, example: Tensor) -> dict[str, Place]:
    """Return every layer of a plain type that is called on one sample, by name.

    Args:
        model: Evaluated in eval mode.
        example: One input, float32 [1,C,H,W].
    """
    found = {module: Place(name, module) for name, module in model.named_modules() if type(module) in LAYERS}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found[module].calls.append((_frame(module, inputs[0]), _frame(module, output)))

    hooks = [module.register_forward_hook(note) for module in found]
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(example)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return {place.name: place for place in found.values() if place.calls}


def _frame(module: nn.Module, tensor: Tensor) -> tuple[int, int]:
    if isinstance(module, nn.Linear):
        return tensor[0, ..., :1].numel(), 1
    height, *width = tensor.shape[2:]
    return int(height), int(width[0]) if width else 1


def options(place: Place, roots: Roots, *, hows: Sequence[str] = HOWS, round_to: int = 1) -> list[Option]:
    """Return the choices that save something and of which none loses more for more, the cheapest first.

    Args:
        place: The layer.
        roots: What counts as energy there.
        hows: Factorisations to look at.
        round_to: Ranks are multiples of it, or full.
    """
    weight, whole = roots.turn(place.module.weight), place.whole
    found = [option for how in hows if most_ranks(place.module, how) for option in _all(place, weight, how, round_to)]
    return _front([o for o in found if o.macs <= whole.macs and o.parameters <= whole.parameters])


def option_at(place: Place, roots: Roots, how: str, ranks: tuple[int, ...]) -> Option:
    """Return one choice, whether it saves anything or not."""
    return place.option(how, ranks, float(_lost(roots.turn(place.module.weight), how)[ranks]))


def _lost(weight: Tensor, how: str) -> Tensor:
    """Return the energy lost at every rank or pair of ranks; HOOI loses no more than its start, HOSVD."""
    return hosvd_tails(weight) if how == "tucker-2" else tails(matrix_of(weight, how))


def _all(place: Place, weight: Tensor, how: str, round_to: int) -> list[Option]:
    lost = _lost(weight, how)
    every = itertools.product(*(_steps(most, round_to) for most in most_ranks(place.module, how)))
    return [place.option(how, ranks, float(lost[ranks])) for ranks in every]


def _steps(most: int, round_to: int) -> list[int]:
    return [*range(round_to, most, round_to), most]


def _front(found: list[Option]) -> list[Option]:
    """Keep an option only if all cheaper ones lose more."""
    kept: list[Option] = []
    for option in sorted(found, key=lambda o: (o.macs, o.lost)):
        if not kept or option.lost < kept[-1].lost:
            kept.append(option)
    return kept


def energy_of(place: Place, roots: Roots) -> float:
    """Return the whole energy of a layer."""
    return float(roots.turn(place.module.weight).square().sum())


def cheapest_with(place: Place, roots: Roots, found: Sequence[Option], energy: float) -> Option:
    """Return the cheapest option that keeps a share of the energy, else the layer as it is."""
    allowed = (1 - energy) * energy_of(place, roots) * (1 + 1e-9)
    return next((option for option in found if option.lost <= allowed), place.whole)


def allocate(choices: Mapping[str, Sequence[Option]], kind: str, most: float) -> dict[str, Option] | None:
    """Return one option for each layer: together within a cost, losing as little as water-filling finds.

    Every layer starts at its cheapest option. Steps along the lower convex hull of (cost, lost) are then taken, the
    one that saves most energy for its cost first, as long as they fit; what is left over then goes to the options
    beside the hulls, the one that saves most first. The sum is optimal but for the last step that did not fit.

    Args:
        choices: Options of each layer, the whole layer among them.
        kind: ``macs`` or ``parameters``.
        most: What all layers may cost together.

    Returns:
        None if even the cheapest options cost more.

    Example:
        >>> a = [Option("svd", (1,), 1, 1, 9.0), Option("svd", (2,), 2, 2, 4.0), Option("whole", (), 4, 4, 0.0)]
        >>> b = [Option("svd", (1,), 1, 1, 2.0), Option("whole", (), 4, 4, 0.0)]
        >>> {name: option.ranks for name, option in allocate({"a": a, "b": b}, "macs", 5).items()}
        {'a': (), 'b': (1,)}

    Reference:
        Sinha & Zoltners 1979, "The multiple-choice knapsack problem", section 2 (its linear relaxation).
    """
    hulls = {name: _hull(list(found), kind) for name, found in choices.items()}
    at = dict.fromkeys(hulls, 0)
    spent = sum(hull[0].cost(kind) for hull in hulls.values())
    if spent > most:
        return None
    steps = sorted(
        ((_slope(hull[i], hull[i + 1], kind), name, i) for name, hull in hulls.items() for i in range(len(hull) - 1)),
        key=lambda step: (-step[0], step[1], step[2]),
    )
    for _, name, i in steps:
        more = hulls[name][i + 1].cost(kind) - hulls[name][i].cost(kind)
        if at[name] == i and spent + more <= most:
            at[name], spent = i + 1, spent + more
    chosen = {name: hull[at[name]] for name, hull in hulls.items()}
    while better := _best_that_fits(choices, chosen, kind, most - spent):
        name, option = better
        spent += option.cost(kind) - chosen[name].cost(kind)
        chosen[name] = option
    return chosen


def _best_that_fits(
    choices: Mapping[str, Sequence[Option]], chosen: Mapping[str, Option], kind: str, left: float
) -> tuple[str, Option] | None:
    fits = [
        (chosen[name].lost - option.lost, name, option)
        for name, found in choices.items()
        for option in found
        if option.lost < chosen[name].lost and option.cost(kind) - chosen[name].cost(kind) <= left
    ]
    return max(fits, key=lambda fit: (fit[0], fit[1]))[1:] if fits else None


def _slope(a: Option, b: Option, kind: str) -> float:
    return (a.lost - b.lost) / (b.cost(kind) - a.cost(kind))


def _hull(found: list[Option], kind: str) -> list[Option]:
    """Return the options on the lower convex hull of (cost, lost), from the cheapest to the one that loses least."""
    hull: list[Option] = []
    for option in sorted(found, key=lambda o: (o.cost(kind), o.lost)):
        if hull and option.lost >= hull[-1].lost:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1], kind) <= _slope(hull[-1], option, kind):
            hull.pop()
        hull.append(option)
    return hull
