# SPDX-License-Identifier: Apache-2.0
"""The ``prune`` step: whole channels go."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

from compress.recipe_table import Table
from compress.steps.training import Training, read_training

__all__ = ["COSTS", "METHODS", "SCOPES", "Prune", "read_prune", "stages"]

METHODS: Final = ("taylor", "magnitude", "bn-scale", "lamp", "fpgm", "hessian")
SCOPES: Final = ("global", "layer", "saving")
COSTS: Final = ("macs", "parameters", "latency")


@dataclass(frozen=True)
class Prune:
    """Structured pruning, then fine-tuning.

    Attributes:
        method: Criterion of importance.
        target: What share of each cost stays: of ``macs``, ``parameters``, ``latency``, or of several.
        table: File of the latency table that a ``latency`` target is looked up in.
        round_to: Kept widths are multiples of it.
        scope: ``global`` ranks all channels together, ``layer`` takes the same share of each layer, ``saving`` weighs
            channels against what their removal saves.
        most: Largest share of one layer's channels that may go.
        keep: Layers whose outputs stay whole.
        samples: Training inputs on which gradients and statistics are taken.
        stages: Cuts that lead to the target.
        stage_epochs: Fine-tuning after each cut but the last.
        training: The fine-tuning after the last cut.
        augment: Whether it uses the data's augmentation.
        distill: Whether it learns from the teacher (if there is one).
        temperature, alpha: Of that.
        max_drop: As in ``Train``.
    """

    kind: ClassVar[str] = "prune"
    method: str = "hessian"
    target: Mapping[str, float] = field(default_factory=lambda: {"macs": 0.5})
    table: str = ""
    round_to: int = 8
    scope: str = "saving"
    most: float = 0.9
    keep: tuple[str, ...] = ()
    samples: int = 1024
    stages: int = 1
    stage_epochs: int = 0
    training: Training = field(default_factory=Training)
    augment: bool = True
    distill: bool = True
    temperature: float = 4.0
    alpha: float = 0.9
    max_drop: float | None = None


def stages(step: Prune) -> tuple[Prune, ...]:
    """Return the cuts that lead to a step's target, each a step with targets and epochs of its own.

    Every stage removes the same share of what the one before it left (share^(k/n) stays after stage k of n), so that no
    single cut is deep. The shares are of the network that enters the first stage.

    Example:
        >>> first, last = stages(Prune(target={"macs": 0.25}, stages=2))
        >>> first.target, first.training.epochs, last.target, last.training.epochs
        ({'macs': 0.5}, 0, {'macs': 0.25}, 10)
    """

    def at(k: int) -> Prune:
        target = {cost: share ** (k / step.stages) for cost, share in step.target.items()}
        training = step.training if k == step.stages else replace(step.training, epochs=step.stage_epochs)
        return replace(step, target=target, training=training, stages=1, stage_epochs=0)

    return tuple(at(k) for k in range(1, step.stages + 1))


def read_prune(table: Table) -> Prune:
    """Return a ``prune`` step.

    Only scores that are losses can be weighed against savings, so ``saving`` is the default of ``hessian`` alone: with
    the zoo's MobileNetV2 at half of the MACs, before fine-tuning, it lifts ``hessian`` from 29 to 89 % and takes
    ``taylor`` from 74 to 55 %.
    """
    method = table.text("method", "hessian", among=METHODS)
    step = Prune(
        method=method,
        target=_target(table),
        table=table.text("table", ""),
        round_to=table.integer("round_to", 8, minimum=1),
        scope=table.text("scope", "saving" if method == "hessian" else "global", among=SCOPES),
        most=table.number("most", 0.9, high=0.99),
        keep=table.texts("keep"),
        samples=table.integer("samples", 1024, minimum=2),
        stages=table.integer("stages", 1, minimum=1),
        stage_epochs=table.integer("stage_epochs", 0),
        training=read_training(table, epochs=5, learning_rate=1e-3),
        augment=table.flag("augment", default=True),
        distill=table.flag("distill", default=True),
        temperature=table.number("temperature", 4.0, low=0.1, high=100.0),
        alpha=table.number("alpha", 0.9, high=1.0),
        max_drop=table.number("max_drop", None, high=100.0),
    )
    if ("latency" in step.target) != bool(step.table):
        what = "a latency target without a table" if not step.table else "a table without a latency target"
        raise table.refuse("table", what, 'give both: target = { latency = 0.5 } and table = "latency.json"')
    return step


def _target(table: Table) -> dict[str, float]:
    target = table.table("target", where=f"{table.where} target")
    given = {cost: target.number(cost, None, low=0.01, high=1.0) for cost in COSTS}
    target.done()
    chosen = {cost: share for cost, share in given.items() if share is not None}
    if not chosen:
        raise table.refuse("target", "no cost", "write target = { macs = 0.5 }: the share that stays")
    return chosen
