# SPDX-License-Identifier: Apache-2.0
"""The ``cluster`` step: the weights of a layer share a few values, and the download packs better."""

from dataclasses import dataclass, field
from typing import ClassVar, Final

from compress.recipe_table import Table
from compress.steps.training import Training, read_training

__all__ = ["METHODS", "Cluster", "read_cluster"]

METHODS: Final = ("k-means",)


@dataclass(frozen=True)
class Cluster:
    """Weight sharing, then fine-tuning of the shared values.

    Neither ONNX Runtime nor LiteRT computes faster for shared values: what shrinks is the packed file that is sent.

    Attributes:
        method: ``k-means`` in one dimension.
        clusters: Values that a layer may have beside zero; zeros stay zeros.
        least: Layers with fewer weights stay as they are.
        keep: Layers that stay as they are.
        samples: Training inputs on which batch normalisation is re-estimated if there is no training.
        training: The fine-tuning of the shared values.
        augment: Whether it uses the data's augmentation.
        distill: Whether it learns from the teacher (if there is one).
        temperature, alpha: Of that.
        max_drop: As in ``Train``.
    """

    kind: ClassVar[str] = "cluster"
    method: str = "k-means"
    clusters: int = 16
    least: int = 256
    keep: tuple[str, ...] = ()
    samples: int = 1024
    training: Training = field(default_factory=Training)
    augment: bool = True
    distill: bool = True
    temperature: float = 4.0
    alpha: float = 0.9
    max_drop: float | None = None


def read_cluster(table: Table) -> Cluster:
    """Return a ``cluster`` step.

    Example:
        >>> read_cluster(Table({"clusters": 32, "epochs": 0}, "r.toml [step 1]")).clusters
        32
    """
    return Cluster(
        table.text("method", "k-means", among=METHODS),
        _clusters(table),
        table.integer("least", 256, minimum=1),
        table.texts("keep"),
        table.integer("samples", 1024, minimum=2),
        read_training(table, epochs=2, learning_rate=3e-4),
        table.flag("augment", default=True),
        table.flag("distill", default=True),
        table.number("temperature", 4.0, low=0.1, high=100.0),
        table.number("alpha", 0.9, high=1.0),
        table.number("max_drop", None, high=100.0),
    )


def _clusters(table: Table) -> int:
    clusters = table.integer("clusters", 16, minimum=2)
    if clusters > 256:
        raise table.refuse("clusters", f"{clusters} is more than int8 tells apart", "give 2 to 256")
    return clusters
