# SPDX-License-Identifier: Apache-2.0
"""The recipe's ``train`` and ``distill`` steps: one training, with or without a teacher."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from compress.distill.inherit import inherit, start_afresh
from compress.distill.mutual import Mutual
from compress.distill.objective import Distillation
from compress.distill.remember import Remembering
from compress.distill.terms import Settings
from compress.losses import Loss, Objective, cross_entropy
from compress.sources import Tensors
from compress.steps import Distill, Train
from compress.trainer import AfterStep, Augment, EpochLog, Progress, train
from edge_contract.errors import RecipeError

__all__ = ["fit"]

INHERIT_SAMPLES: Final = 512  # training inputs that a student's first weights are fitted on


def fit(
    step: Train | Distill,
    model: nn.Module,
    data: Tensors,
    *,
    seed: int,
    teacher: nn.Module | None = None,
    augment: Augment | None = None,
    unlabelled: Tensor | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    after_step: AfterStep | None = None,
) -> tuple[EpochLog, ...]:
    """Train a model in place as a step says and return the log of its epochs.

    Args:
        step: What to do.
        model: Trained in place.
        data: The training split.
        seed: The recipe's, shifted by the step's number.
        teacher: Needed by ``Distill``, unless the step has a teacher of its own (itself, a peer).
        augment, checkpoint, progress, after_step: See ``compress.trainer.train``.
        unlabelled: Further inputs, float32 [M,C,H,W], on which only the teacher is followed.

    Raises:
        RecipeError: ``Distill`` without a teacher, or unlabelled inputs without one.
        ModelError: A named layer is not there, the teacher's weights do not fit, or the loss became infinite.
    """
    extra: nn.Module | None = None
    loss: Loss = cross_entropy(step.training.label_smoothing)
    if isinstance(step, Distill):
        loss, extra = _objective(step, model, teacher, data.x, seed)
    elif unlabelled is not None:
        raise RecipeError("unlabelled inputs without a teacher", fix="use kind = 'distill'")
    return train(
        model,
        data.x,
        data.y,
        replace(step.training, seed=seed),
        loss=loss,
        extra=extra,
        augment=augment if step.augment else None,
        unlabelled=unlabelled,
        checkpoint=checkpoint,
        progress=progress,
        after_step=after_step,
    )


def _objective(
    step: Distill, model: nn.Module, teacher: nn.Module | None, x: Tensor, seed: int
) -> tuple[Objective, nn.Module | None]:
    """Return the loss and what is trained along; the model gets the weights that it shall begin with."""
    if step.teacher == "itself":
        teacher = copy.deepcopy(model).requires_grad_(requires_grad=False)
    if step.init == "fresh":
        start_afresh(model, seed)
    smoothing = step.training.label_smoothing
    if step.teacher == "peer":
        words = {"temperature": step.temperature, "alpha": step.alpha, "label_smoothing": smoothing}
        mutual = Mutual(model, seed=seed + 1, **words)
        return mutual, mutual.peer
    if teacher is None:
        raise RecipeError("distill without a teacher", fix="add teacher to [model]")
    if step.init == "teacher":
        some = x[:: max(1, len(x) // INHERIT_SAMPLES)][:INHERIT_SAMPLES]  # from the whole split, were it sorted
        inherit(model, teacher.teacher if isinstance(teacher, Remembering) else teacher, some)
    settings = Settings(step.temperature, smoothing)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the adapters' first weights are part of the exact run
        loss = Distillation(teacher, model, step.terms, settings=settings, layers=step.layers, example=x[:1])
    return loss, loss.trained
