# SPDX-License-Identifier: Apache-2.0
"""The steps that train: ``train`` and ``distill``; and how a training is described."""

from dataclasses import dataclass, field
from typing import ClassVar

from compress.recipe_table import Table

__all__ = ["Distill", "Train", "Training", "read_distill", "read_train", "read_training"]


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    Attributes:
        epochs: Passes over the training split; 0 leaves the model as it is.
        batch: Samples in one optimizer step; a last batch of one sample is dropped (BN cannot normalise it).
        learning_rate: Peak of AdamW's learning rate; a linear warm-up over 5 % of the steps leads to it,
            a cosine leads from it to 0.
        weight_decay: AdamW's decoupled decay; biases and normalisation scales are spared.
        clip_norm: Largest gradient norm; 0 does not clip.
        ema: Decay of the averaged weights that become the result; 0 takes the last weights.
        label_smoothing: Share of each label spread over all classes in the cross-entropy.
        seed: Decides order, augmentation and every other random draw.
    """

    epochs: int = 10
    batch: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    ema: float = 0.0
    label_smoothing: float = 0.0
    seed: int = 0


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


def read_training(table: Table, *, epochs: int, learning_rate: float) -> Training:
    """Return the training that a step's table asks for; the keywords are its defaults."""
    return Training(
        epochs=table.integer("epochs", epochs),
        batch=table.integer("batch", 64, minimum=2),
        learning_rate=table.number("learning_rate", learning_rate, low=1e-8, high=10.0),
        weight_decay=table.number("weight_decay", 1e-4, high=1.0),
        clip_norm=table.number("clip_norm", 1.0),
        ema=table.number("ema", 0.0, high=0.99999),
        label_smoothing=table.number("label_smoothing", 0.0, high=0.5),
    )


def read_train(table: Table) -> Train:
    """Return a ``train`` step."""
    return Train(
        table.text("method", "labels", among=("labels",)),
        read_training(table, epochs=10, learning_rate=3e-3),
        table.flag("augment", default=True),
        table.number("max_drop", None, high=100.0),
    )


def read_distill(table: Table) -> Distill:
    """Return a ``distill`` step."""
    method = table.text("method", "soft-targets", among=("soft-targets", "features"))
    step = Distill(
        method,
        read_training(table, epochs=10, learning_rate=3e-3),
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
