# SPDX-License-Identifier: Apache-2.0
"""The recipe's ``prune`` step: score, choose, remove, re-estimate, fine-tune."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.cost import measure
from compress.distill.soft_targets import combined
from compress.prune.batch_norm import reestimate
from compress.prune.graph import Group, Pruning, PruningGraph
from compress.prune.importance import CRITERIA, normalised
from compress.prune.schedule import Limits, choose
from compress.sources import Tensors
from compress.steps import Prune
from compress.trainer import Augment, EpochLog, Loss, Progress, cross_entropy, train

__all__ = ["Cut", "cut", "fine_tune"]


@dataclass(frozen=True)
class Cut:
    """What was removed: the replayable record, and each group's width before and after."""

    prunings: tuple[Pruning, ...]
    widths: dict[str, tuple[int, int]]

    @property
    def note(self) -> str:
        """One line for the report."""
        return ", ".join(f"{name} {old}→{new}" for name, (old, new) in self.widths.items() if old != new)


def cut(step: Prune, model: nn.Module, data: Tensors, *, teacher: nn.Module | None = None) -> Cut:
    """Remove channels in place until the step's target is met.

    Args:
        step: Criterion, target, limits.
        model: Pruned in place.
        data: The training split; its first ``step.samples`` inputs give the gradients.
        teacher: If the step distils, the loss of the Taylor criterion includes its answers.

    Raises:
        BudgetError: The target cannot be met within the limits; says what came closest.
        UnsupportedOperatorError: A layer that pruning does not handle, by name.
    """
    example = data.x[:1]
    cost = measure(model, example)
    graph = PruningGraph(model, example, step.keep)
    groups = graph.groups
    part = Tensors(data.x[: step.samples], data.y[: step.samples])
    scores = _scores(step, model, part, groups, _loss(step, teacher))
    limits = Limits(step.cost, step.share, step.round_to, step.most, step.scope)
    chosen = choose(cost, groups, scores, limits)
    prunings = tuple(graph.remove(name, channels) for name, channels in chosen.items())
    return Cut(prunings, {g.name: (g.width, g.width - len(chosen.get(g.name, ()))) for g in groups})


def _loss(step: Prune, teacher: nn.Module | None) -> Loss:
    if teacher is not None and step.distill:
        return combined(teacher, temperature=step.temperature, alpha=step.alpha)
    return cross_entropy(step.training.label_smoothing)


def _scores(step: Prune, model: nn.Module, data: Tensors, groups: tuple[Group, ...], loss: Loss) -> dict[str, Tensor]:
    """Return normalised scores. Taylor scores are averaged over batches, so that opposite signs do not cancel."""
    criterion = CRITERIA[step.method]
    if step.method != "taylor":
        return {group.name: normalised(criterion(group)) for group in groups}
    totals = {group.name: torch.zeros(group.width) for group in groups}
    model.eval()  # the statistics are those of inference
    for x, y in zip(torch.split(data.x, 64), torch.split(data.y, 64), strict=True):
        model.zero_grad(set_to_none=True)
        loss(model, x, y).backward()  # type: ignore[no-untyped-call]
        for group in groups:
            totals[group.name] += criterion(group)
    model.zero_grad(set_to_none=True)
    return {name: normalised(values) for name, values in totals.items()}


def fine_tune(
    step: Prune,
    model: nn.Module,
    data: Tensors,
    *,
    seed: int,
    teacher: nn.Module | None = None,
    augment: Augment | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> tuple[EpochLog, ...]:
    """Re-estimate the normalisations, then train a pruned model in place; return the log of its epochs."""
    reestimate(model, data.x[: step.samples])
    return train(
        model,
        data.x,
        data.y,
        replace(step.training, seed=seed),
        loss=_loss(step, teacher),
        augment=augment if step.augment else None,
        checkpoint=checkpoint,
        progress=progress,
    )
