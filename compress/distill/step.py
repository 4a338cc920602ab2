# SPDX-License-Identifier: Apache-2.0
"""The recipe's ``train`` and ``distill`` steps: one training, with or without a teacher."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from compress.distill.features import features, with_features
from compress.distill.soft_targets import combined
from compress.sources import Tensors
from compress.steps import Distill, Train
from compress.trainer import Augment, EpochLog, Loss, Progress, cross_entropy, train
from edge_contract.errors import RecipeError

__all__ = ["fit"]


def fit(
    step: Train | Distill,
    model: nn.Module,
    data: Tensors,
    *,
    seed: int,
    teacher: nn.Module | None = None,
    augment: Augment | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> tuple[EpochLog, ...]:
    """Train a model in place as a step says and return the log of its epochs.

    Args:
        step: What to do.
        model: Trained in place.
        data: The training split.
        seed: The recipe's, shifted by the step's number.
        teacher: Needed by ``Distill``.
        augment, checkpoint, progress: See ``compress.trainer.train``.

    Raises:
        RecipeError: ``Distill`` without a teacher.
        ModelError: A named layer is not there, or the loss became infinite.
    """
    extra: nn.Module | None = None
    loss: Loss = cross_entropy(step.training.label_smoothing)
    if isinstance(step, Distill):
        loss, extra = _with_teacher(step, model, teacher, data, seed)
    return train(
        model,
        data.x,
        data.y,
        replace(step.training, seed=seed),
        loss=loss,
        extra=extra,
        augment=augment if step.augment else None,
        checkpoint=checkpoint,
        progress=progress,
    )


def _with_teacher(
    step: Distill, model: nn.Module, teacher: nn.Module | None, data: Tensors, seed: int
) -> tuple[Loss, nn.Module | None]:
    if teacher is None:
        raise RecipeError("distill without a teacher", fix="add teacher to [model]")
    smoothing = step.training.label_smoothing
    base = combined(teacher, temperature=step.temperature, alpha=step.alpha, label_smoothing=smoothing)
    if not step.layers:
        return base, None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the adapters' first weights are part of the exact run
        adapters, layers = features(model, teacher, step.layers, data.x[:1])
    return with_features(base, teacher, adapters, layers, step.weight), adapters
