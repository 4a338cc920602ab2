# SPDX-License-Identifier: Apache-2.0
"""The ``prune`` step: whole channels go."""

from dataclasses import dataclass, field
from typing import ClassVar, Final

from compress.recipe_table import Table
from compress.steps.training import Training, read_training

__all__ = ["METHODS", "Prune", "read_prune"]

METHODS: Final = ("taylor", "magnitude", "bn-scale")


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


def read_prune(table: Table) -> Prune:
    """Return a ``prune`` step."""
    method = table.text("method", "taylor", among=METHODS)
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
        read_training(table, epochs=5, learning_rate=1e-3),
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
