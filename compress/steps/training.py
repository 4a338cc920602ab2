# SPDX-License-Identifier: Apache-2.0
"""The steps that train: ``train`` and ``distill``; and how a training is described."""

from dataclasses import dataclass, field
from typing import ClassVar, Final

from compress.recipe_table import Table

__all__ = ["EMBEDDED", "LAYERED", "METHODS", "TERMS", "Distill", "Train", "Training", "read_distill", "read_train"]
__all__ += ["read_training"]

TERMS: Final = ("labels", "soft-targets", "features", "attention", "relational", "contrastive")
"""Of the loss of a distillation; ``labels`` is the cross-entropy."""
LAYERED: Final = frozenset({"features", "attention"})
"""Terms that compare feature maps of named layers."""
EMBEDDED: Final = frozenset({"relational", "contrastive"})
"""Terms that compare what enters the last linear layer."""
_ADDED: Final = {"features": 1.0, "attention": 20.0, "relational": 25.0, "contrastive": 0.8}
"""Method → default weight of its term."""
METHODS: Final = ("soft-targets", "features", "attention", "relational", "contrastive", "self", "mutual", "combined")
INITS: Final = ("as-is", "teacher", "fresh")
TEACHERS: Final = ("recipe", "itself", "peer")
_OWN_TEACHER: Final = {"self": "itself", "mutual": "peer"}  # method → whom it learns from
_SHARES: Final = "such as labels = 0.1 and soft-targets = 0.9"


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
        accumulate: Pieces in which a batch passes, one after the other; their gradients are added up.
        mixed_precision: Whether float16 is used where it is safe, on a GPU.
        seed: Decides order, augmentation and every other random draw.
    """

    epochs: int = 10
    batch: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    ema: float = 0.0
    label_smoothing: float = 0.0
    accumulate: int = 1
    mixed_precision: bool = True
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
        method: One of ``METHODS``; ``combined`` takes its terms from ``losses``.
        temperature, alpha: Of the soft targets: alpha is the teacher's share of the loss.
        layers: Pairs (layer of the student, layer of the teacher) for terms that compare feature maps.
        weight: Factor on the term that ``method`` adds.
        losses: Pairs (term, weight) for ``combined``.
        init: ``as-is`` goes on from the model that enters, ``teacher`` takes the teacher's most important channels,
            ``fresh`` draws new weights.
        teacher: ``recipe`` for the recipe's, ``itself`` for a frozen copy of the model that enters, ``peer`` for a
            second network of its kind that is trained along.
    """

    kind: ClassVar[str] = "distill"
    method: str = "soft-targets"
    temperature: float = 4.0
    alpha: float = 0.9
    layers: tuple[tuple[str, str], ...] = ()
    weight: float = 1.0
    losses: tuple[tuple[str, float], ...] = ()
    init: str = "as-is"
    teacher: str = "recipe"

    @property
    def terms(self) -> dict[str, float]:
        """Term of the loss → weight, without those of weight 0.

        Example:
            >>> Distill("attention", alpha=0.75, weight=20.0).terms
            {'labels': 0.25, 'soft-targets': 0.75, 'attention': 20.0}
        """
        if self.losses:
            return {name: weight for name, weight in self.losses if weight}
        weights = {"labels": 1.0 - self.alpha, "soft-targets": self.alpha}
        if self.method in _ADDED:
            weights[self.method] = self.weight
        return {name: weight for name, weight in weights.items() if weight}


def read_training(
    table: Table, *, epochs: int, learning_rate: float, batch: int = 64, weight_decay: float = 1e-4
) -> Training:
    """Return the training that a step's table asks for; the keywords are its defaults."""
    return Training(
        epochs=table.integer("epochs", epochs),
        batch=table.integer("batch", batch, minimum=2),
        learning_rate=table.number("learning_rate", learning_rate, low=1e-8, high=10.0),
        weight_decay=table.number("weight_decay", weight_decay, high=1.0),
        clip_norm=table.number("clip_norm", 1.0),
        ema=table.number("ema", 0.0, high=0.99999),
        label_smoothing=table.number("label_smoothing", 0.0, high=0.5),
        accumulate=table.integer("accumulate", 1, minimum=1),
        mixed_precision=table.flag("mixed_precision", default=True),
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
    """Return a ``distill`` step.

    Raises:
        RecipeError: An unknown term or value, terms without their layers, or layers without such a term.

    Example:
        >>> step = read_distill(Table({"losses": {"soft-targets": 0.9, "relational": 25}}, "r.toml [step 1]"))
        >>> step.method, step.terms
        ('combined', {'soft-targets': 0.9, 'relational': 25.0})
    """
    losses = _read_losses(table)
    method = table.text("method", "combined" if losses else "soft-targets", among=METHODS)
    if (method == "combined") != bool(losses):
        what, fix = f"losses with method '{method}'", "remove method, or losses"
        if not losses:
            what, fix = "no losses to combine", "add losses = { labels = 0.1, soft-targets = 0.9 }"
        raise table.refuse("losses", what, fix)
    temperature, alpha = (1.0, 0.5) if method == "mutual" else (4.0, 0.9)  # Zhang et al. 2018 for mutual
    step = Distill(
        method,
        read_training(table, epochs=10, learning_rate=3e-3),
        table.flag("augment", default=True),
        table.number("max_drop", None, high=100.0),
        table.number("temperature", temperature, low=0.1, high=100.0),
        0.0 if losses else table.number("alpha", alpha, high=1.0),
        table.pairs("layers", []),
        0.0 if losses else table.number("weight", _ADDED.get(method, 1.0)),
        losses,
        table.text("init", "as-is", among=INITS),
        table.text("teacher", _OWN_TEACHER.get(method, "recipe"), among=TEACHERS),
    )
    _check_distill(table, step)
    return step


def _read_losses(table: Table) -> tuple[tuple[str, float], ...]:
    if "losses" not in table:
        return ()
    inner = table.table("losses")
    found = tuple((name, inner.number(name, 0.0)) for name in TERMS)
    inner.done()
    for key in ("alpha", "weight"):
        if key in table:
            raise table.refuse(key, "given beside losses", f"remove it; losses = {{ … }} holds all weights, {_SHARES}")
    return tuple((name, weight) for name, weight in found if weight)


def _check_distill(table: Table, step: Distill) -> None:
    terms = step.terms
    if terms.keys() <= {"labels"}:
        raise table.refuse("losses", "no term asks the teacher", "add soft-targets, or use kind = 'train'")
    layered = terms.keys() & LAYERED
    if bool(layered) != bool(step.layers):
        what = f"layers with method '{step.method}'" if step.layers else f"{min(layered)} without layers"
        fix = 'use method = "features" with layers = [["of the student", "of the teacher"]]'
        raise table.refuse("layers", what, fix)
    own = _OWN_TEACHER.get(step.method, step.teacher)
    if own != step.teacher:
        raise table.refuse("teacher", f"'{step.teacher}' with method '{step.method}'", f"write '{own}', or remove it")
    if step.init == "teacher" and step.teacher != "recipe":
        raise table.refuse("init", f"the teacher is '{step.teacher}'", 'write init = "as-is", or "fresh"')
    if step.teacher == "peer" and step.method not in ("mutual", "soft-targets"):
        raise table.refuse("teacher", f"'peer' with method '{step.method}'", "write method = 'mutual'")
