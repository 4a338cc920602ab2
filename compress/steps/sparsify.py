# SPDX-License-Identifier: Apache-2.0
"""The ``sparsify`` step: single weights become zero, and the download packs better."""

import re
from dataclasses import dataclass, field
from typing import ClassVar, Final

from compress.recipe_table import Table
from compress.steps.training import Training, read_training

__all__ = ["METHODS", "Sparsify", "read_sparsify"]

METHODS: Final = ("magnitude", "lamp", "n:m")


@dataclass(frozen=True)
class Sparsify:
    """Zeros that grow while the model is fine-tuned, and are then held.

    Neither ONNX Runtime nor LiteRT computes faster for zeros: what shrinks is the packed file that is sent.

    Attributes:
        method: ``magnitude`` takes the smallest weights, ``lamp`` the smallest relative to the larger ones of their
            layer, ``n:m`` keeps the N largest of every M that follow each other along a layer's inputs.
        sparsity: Share of the weights that become zero (``magnitude``, ``lamp``).
        scope: ``global`` ranks all weights together, ``layer`` takes the same share of each layer (``magnitude``).
        pattern: (N, M) of ``n:m``.
        ramp: Share of the training over which zeros grow.
        every: Optimizer steps between two growths.
        keep: Layers that stay dense.
        samples: Training inputs on which batch normalisation is re-estimated if there is no training.
        training: The fine-tuning.
        augment: Whether it uses the data's augmentation.
        distill: Whether it learns from the teacher (if there is one).
        temperature, alpha: Of that.
        max_drop: As in ``Train``.
    """

    kind: ClassVar[str] = "sparsify"
    method: str = "magnitude"
    sparsity: float = 0.5
    scope: str = "global"
    pattern: tuple[int, int] = (2, 4)
    ramp: float = 0.6
    every: int = 20
    keep: tuple[str, ...] = ()
    samples: int = 1024
    training: Training = field(default_factory=Training)
    augment: bool = True
    distill: bool = True
    temperature: float = 4.0
    alpha: float = 0.9
    max_drop: float | None = None


def read_sparsify(table: Table) -> Sparsify:
    """Return a ``sparsify`` step.

    Example:
        >>> read_sparsify(Table({"method": "n:m", "pattern": "1:4"}, "r.toml [step 1]")).pattern
        (1, 4)
    """
    method = table.text("method", "magnitude", among=METHODS)
    pattern = _pattern(table)
    sparsity = table.number("sparsity", 0.5, low=0.01, high=0.99)
    _check_words(table, method)
    return Sparsify(
        method,
        sparsity,
        table.text("scope", "global", among=("global", "layer")),
        pattern,
        table.number("ramp", 0.6, high=1.0),
        table.integer("every", 20, minimum=1),
        table.texts("keep"),
        table.integer("samples", 1024, minimum=2),
        read_training(table, epochs=5, learning_rate=1e-3),
        table.flag("augment", default=True),
        table.flag("distill", default=True),
        table.number("temperature", 4.0, low=0.1, high=100.0),
        table.number("alpha", 0.9, high=1.0),
        table.number("max_drop", None, high=100.0),
    )


def _check_words(table: Table, method: str) -> None:
    """Refuse a key that the method would silently not hear."""
    deaf = {"n:m": ("sparsity", "scope"), "magnitude": ("pattern",), "lamp": ("pattern", "scope")}
    for key in deaf[method]:
        if key in table:
            users = [name for name in METHODS if key not in deaf[name]]
            raise table.refuse(key, f"method '{method}' has none", f'remove it, or use method = "{users[0]}"')


def _pattern(table: Table) -> tuple[int, int]:
    text = table.text("pattern", "2:4")
    found = re.fullmatch(r"(\d{1,3}):(\d{1,3})", text)
    kept, block = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 0 < kept < block:
        raise table.refuse("pattern", f"{text!r} is no N:M with 0 < N < M", 'write pattern = "2:4": two of four stay')
    return kept, block
