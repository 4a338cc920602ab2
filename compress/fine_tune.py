# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning after a step that changed a network: with the teacher's answers where there is a teacher, else labels."""

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from torch import nn

from compress.distill.soft_targets import combined
from compress.sources import Tensors
from compress.steps.training import Training
from compress.trainer import AfterStep, Augment, EpochLog, Loss, Progress, cross_entropy, train

__all__ = ["FineTuned", "fine_tune", "tuning_loss"]


class FineTuned(Protocol):
    """What every step that fine-tunes says about it."""

    @property
    def training(self) -> Training: ...

    @property
    def augment(self) -> bool: ...

    @property
    def distill(self) -> bool: ...

    @property
    def temperature(self) -> float: ...

    @property
    def alpha(self) -> float: ...


def tuning_loss(step: FineTuned, teacher: nn.Module | None) -> Loss:
    """Return the loss: soft targets and labels if the step distils and there is a teacher, else labels alone."""
    if teacher is not None and step.distill:
        return combined(teacher, temperature=step.temperature, alpha=step.alpha)
    return cross_entropy(step.training.label_smoothing)


def fine_tune(
    step: FineTuned,
    model: nn.Module,
    data: Tensors,
    *,
    seed: int,
    teacher: nn.Module | None = None,
    augment: Augment | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    after_step: AfterStep | None = None,
) -> tuple[EpochLog, ...]:
    """Train a changed model in place and return the log of its epochs; see ``compress.trainer.train``."""
    return train(
        model,
        data.x,
        data.y,
        replace(step.training, seed=seed),
        loss=tuning_loss(step, teacher),
        augment=augment if step.augment else None,
        checkpoint=checkpoint,
        progress=progress,
        after_step=after_step,
    )
