# SPDX-License-Identifier: Apache-2.0
"""The ``factorize`` step: a layer becomes two or three thinner ones."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from compress.recipe_table import Table
from compress.steps.training import Training, read_training

__all__ = ["METHODS", "Factorize", "Ranks", "read_factorize", "stages"]

METHODS: Final = ("auto", "svd", "spatial-svd", "tucker-2")
Ranks = tuple[tuple[str, tuple[int, ...]], ...]
"""(layer, ranks): one rank of ``svd`` and ``spatial-svd``, two (of inputs, of outputs) of ``tucker-2``."""


@dataclass(frozen=True)
class Factorize:
    """Low rank, then fine-tuning. Exactly one of ``share``, ``energy`` and ``ranks`` decides the ranks.

    Attributes:
        method: ``svd`` of linear layers and convolutions, ``spatial-svd`` or ``tucker-2`` of k×k convolutions; ``auto``
            takes for each layer what loses least for its cost.
        cost, share: The target: this share of ``macs`` or ``parameters`` stays.
        energy: Share of each layer's energy (squared singular values) that stays at least.
        ranks: Chosen by hand.
        aware: What counts as energy: of the ``outputs`` on training inputs weighed by what they do to the loss, of the
            outputs weighed alike (``inputs``), or of the ``weights`` alone.
        round_to: Ranks are multiples of it.
        keep: Layers that stay whole.
        samples: Training inputs on which energy and statistics are taken.
        training: The fine-tuning.
        augment: Whether it uses the data's augmentation.
        distill: Whether it learns from the teacher (if there is one).
        temperature, alpha: Of that.
        max_drop: As in ``Train``.
    """

    kind: ClassVar[str] = "factorize"
    method: str = "auto"
    cost: str = "macs"
    share: float | None = None
    energy: float | None = None
    ranks: Ranks = ()
    aware: str = "outputs"
    round_to: int = 4
    keep: tuple[str, ...] = ()
    samples: int = 1024
    training: Training = field(default_factory=Training)
    augment: bool = True
    distill: bool = True
    temperature: float = 4.0
    alpha: float = 0.9
    max_drop: float | None = None


def stages(step: Factorize) -> tuple[Factorize, ...]:
    """Return the stages of the step: one cut, then its fine-tuning."""
    return (step,)


def read_factorize(table: Table) -> Factorize:
    """Return a ``factorize`` step.

    Example:
        >>> read_factorize(Table({"ranks": {"head": 8, "body.conv": [4, 6]}}, "r.toml [step 1]")).ranks
        (('head', (8,)), ('body.conv', (4, 6)))
    """
    method = table.text("method", "auto", among=METHODS)
    cost, share = _target(table)
    energy = table.number("energy", None, low=0.01, high=1.0)
    ranks = _ranks(table, method)
    if sum([share is not None, energy is not None, bool(ranks)]) != 1:
        what = "give one of target, energy and ranks"
        raise table.refuse("target", what, "write target = { macs = 0.6 }: the share that stays")
    return Factorize(
        method,
        cost,
        share,
        energy,
        ranks,
        table.text("aware", "outputs", among=("outputs", "inputs", "weights")),
        table.integer("round_to", 4, minimum=1),
        table.texts("keep"),
        table.integer("samples", 1024, minimum=2),
        read_training(table, epochs=5, learning_rate=1e-3),
        table.flag("augment", default=True),
        table.flag("distill", default=True),
        table.number("temperature", 4.0, low=0.1, high=100.0),
        table.number("alpha", 0.9, high=1.0),
        table.number("max_drop", None, high=100.0),
    )


def _target(table: Table) -> tuple[str, float | None]:
    if "target" not in table:
        table.raw("target", None)  # so that a slip such as "tarjet" is answered with it
        return "macs", None
    target = table.table("target", where=f"{table.where} target")
    given = [(cost, target.number(cost, None, low=0.01, high=1.0)) for cost in ("macs", "parameters")]
    target.done()
    chosen = [(cost, share) for cost, share in given if share is not None]
    if len(chosen) != 1:
        raise table.refuse("target", f"{len(chosen)} costs", "write target = { macs = 0.6 }: the share that stays")
    return chosen[0]


def _ranks(table: Table, method: str) -> Ranks:
    given = table.raw("ranks", None)
    if given is None:
        return ()
    if not isinstance(given, dict) or not given:
        raise table.refuse("ranks", "no table of layers", 'write ranks = { "head" = 8, "body.conv" = [4, 6] }')
    return tuple((layer, _numbers(table, method, layer, value)) for layer, value in given.items())


def _numbers(table: Table, method: str, layer: str, value: Any) -> tuple[int, ...]:
    numbers = value if isinstance(value, list) else [value]
    if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers):
        raise table.refuse("ranks", f"layer {layer!r}: {value!r} is no rank", "give whole numbers from 1")
    expected = {"auto": (1, 2), "tucker-2": (2,)}.get(method, (1,))
    if len(numbers) not in expected:
        counts = " or ".join(map(str, expected))
        fix = "give [of inputs, of outputs] for tucker-2 and one number for the others"
        raise table.refuse("ranks", f"layer {layer!r}: {len(numbers)} ranks where {method} has {counts}", fix)
    return tuple(numbers)
