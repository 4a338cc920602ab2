# SPDX-License-Identifier: Apache-2.0
"""The steps that a recipe may ask for, one frozen class each, and how they are read."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Final

from compress.prune.importance import CRITERIA
from compress.recipe_table import Table, nearest
from compress.trainer import Training
from edge_contract.errors import RecipeError

__all__ = ["KINDS", "Distill", "Prune", "Quantize", "Step", "Train", "read_step"]


@dataclass(frozen=True)
class Train:
    """Plain supervised training.

    Attributes:
        training: Epochs, optimizer (the seed is the recipe's).
        augment: Whether the data's augmentation is used.
        max_drop: Largest loss in points of the metric; None asks nothing.
    """

    kind: ClassVar[str] = "train"
    method: str = "labels"
    training: Training = field(default_factory=Training)
    augment: bool = True
    max_drop: float | None = None


@dataclass(frozen=True)
class Distill(Train):
    """Training with a teacher.

    Attributes:
        temperature, alpha: Of the soft targets: alpha is the teacher's share of the loss.
        layers: Pairs (layer of the student, layer of the teacher) for ``features``.
        weight: Factor on the feature loss.
    """

    kind: ClassVar[str] = "distill"
    method: str = "soft-targets"
    temperature: float = 4.0
    alpha: float = 0.9
    layers: tuple[tuple[str, str], ...] = ()
    weight: float = 1.0


@dataclass(frozen=True)
class Prune:
    """Structured pruning, then fine-tuning.

    Attributes:
        method: Criterion of importance.
        cost, share: The target: this share of ``macs`` or ``parameters`` stays.
        round_to: Kept widths are multiples of it.
        scope: ``global`` ranks all channels together, ``layer`` takes the same share of each layer.
        most: Largest share of one layer's channels that may go.
        keep: Layers whose outputs stay whole.
        samples: Training inputs on which gradients and statistics are taken.
        training: The fine-tuning.
        augment: Whether it uses the data's augmentation.
        distill: Whether it learns from the teacher (if there is one).
        temperature, alpha: Of that.
        max_drop: As in ``Train``.
    """

    kind: ClassVar[str] = "prune"
    method: str = "taylor"
    cost: str = "macs"
    share: float = 0.5
    round_to: int = 8
    scope: str = "global"
    most: float = 0.9
    keep: tuple[str, ...] = ()
    samples: int = 1024
    training: Training = field(default_factory=Training)
    augment: bool = True
    distill: bool = True
    temperature: float = 4.0
    alpha: float = 0.9
    max_drop: float | None = None


@dataclass(frozen=True)
class Quantize:
    """Static int8 by the quantization plan.

    Attributes:
        observer: What decides activation ranges on the calibration split: ``squared-error``, ``percentile`` or
            ``min-max``.
        percentile: For the percentile observer.
        max_drop: As in ``Train``.
    """

    kind: ClassVar[str] = "quantize"
    method: str = "static-int8"
    observer: str = "squared-error"
    percentile: float = 99.99
    max_drop: float | None = None


Step = Train | Distill | Prune | Quantize


def _training(table: Table, *, epochs: int, learning_rate: float) -> Training:
    return Training(
        epochs=table.integer("epochs", epochs),
        batch=table.integer("batch", 64, minimum=2),
        learning_rate=table.number("learning_rate", learning_rate, low=1e-8, high=10.0),
        weight_decay=table.number("weight_decay", 1e-4, high=1.0),
        clip_norm=table.number("clip_norm", 1.0),
        ema=table.number("ema", 0.0, high=0.99999),
        label_smoothing=table.number("label_smoothing", 0.0, high=0.5),
    )


def _train(table: Table) -> Train:
    return Train(
        table.text("method", "labels", among=("labels",)),
        _training(table, epochs=10, learning_rate=3e-3),
        table.flag("augment", default=True),
        table.number("max_drop", None, high=100.0),
    )


def _distill(table: Table) -> Distill:
    method = table.text("method", "soft-targets", among=("soft-targets", "features"))
    step = Distill(
        method,
        _training(table, epochs=10, learning_rate=3e-3),
        table.flag("augment", default=True),
        table.number("max_drop", None, high=100.0),
        table.number("temperature", 4.0, low=0.1, high=100.0),
        table.number("alpha", 0.9, high=1.0),
        table.pairs("layers", []),
        table.number("weight", 1.0),
    )
    if (method == "features") != bool(step.layers):
        what = "features without layers" if method == "features" else f"layers with method '{method}'"
        raise table.refuse(
            "layers", what, 'use method = "features" with layers = [["of the student", "of the teacher"]]'
        )
    return step


def _prune(table: Table) -> Prune:
    method = table.text("method", "taylor", among=tuple(CRITERIA))
    cost, share = _target(table)
    return Prune(
        method,
        cost,
        share,
        table.integer("round_to", 8, minimum=1),
        table.text("scope", "global", among=("global", "layer")),
        table.number("most", 0.9, high=0.99),
        table.texts("keep"),
        table.integer("samples", 1024, minimum=2),
        _training(table, epochs=5, learning_rate=1e-3),
        table.flag("augment", default=True),
        table.flag("distill", default=True),
        table.number("temperature", 4.0, low=0.1, high=100.0),
        table.number("alpha", 0.9, high=1.0),
        table.number("max_drop", None, high=100.0),
    )


def _target(table: Table) -> tuple[str, float]:
    target = table.table("target", where=f"{table.where} target")
    given = [(cost, target.number(cost, None, low=0.01, high=1.0)) for cost in ("macs", "parameters")]
    target.done()
    chosen = [(cost, share) for cost, share in given if share is not None]
    if len(chosen) != 1:
        raise table.refuse("target", f"{len(chosen)} costs", "write target = { macs = 0.5 }: the share that stays")
    return chosen[0]


def _quantize(table: Table) -> Quantize:
    return Quantize(
        table.text("method", "static-int8", among=("static-int8",)),
        table.text("observer", "squared-error", among=("squared-error", "percentile", "min-max")),
        table.number("percentile", 99.99, low=50.01, high=100.0),
        table.number("max_drop", None, high=100.0),
    )


KINDS: Final[dict[str, Callable[[Table], Step]]] = {
    "train": _train,
    "distill": _distill,
    "prune": _prune,
    "quantize": _quantize,
}


def read_step(table: Table) -> Step:
    """Return the step in a ``[[step]]`` table.

    Raises:
        RecipeError: An unknown kind, key or value.

    Example:
        >>> read_step(Table({"kind": "prune", "target": {"macs": 0.5}}, "r.toml [step 1]")).share
        0.5
    """
    kind = table.text("kind")
    if kind not in KINDS:
        raise RecipeError(f"key 'kind': unknown value {kind!r}", where=table.where, fix=nearest(kind, tuple(KINDS)))
    step = KINDS[kind](table)
    table.done()
    return step
