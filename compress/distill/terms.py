# SPDX-License-Identifier: Apache-2.0
"""The terms of a distillation by name: what each needs to see, and how it is computed from that."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from compress.distill.attention import attention_loss
from compress.distill.contrastive import Heads, contrastive_loss
from compress.distill.features import feature_loss
from compress.distill.relational import relational_loss
from compress.distill.soft_targets import soft_target_loss
from compress.losses import label_loss

__all__ = ["TERMS", "Seen", "Settings"]


@dataclass(frozen=True)
class Settings:
    """What terms are told besides their weight: see ``compress.steps.training``."""

    temperature: float = 4.0
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class Seen:
    """What passed through both networks for one batch.

    Attributes:
        y: Labels, int64 [N], -1 where there is none.
        student, teacher: Logits, [N,K].
        maps: For each pair of layers the student's output and the teacher's.
        embeddings: What enters the last linear layer of the student and of the teacher, [N,D] each.
        adapters: One for each pair of layers.
        heads: Take both embeddings into one space.
    """

    y: Tensor
    student: Tensor
    teacher: Tensor
    maps: tuple[tuple[Tensor, Tensor], ...] = ()
    embeddings: tuple[Tensor, Tensor] | None = None
    adapters: tuple[nn.Module, ...] = ()
    heads: Heads | None = None


def _labels(seen: Seen, settings: Settings) -> Tensor:
    return label_loss(seen.student, seen.y, settings.label_smoothing)


def _soft_targets(seen: Seen, settings: Settings) -> Tensor:
    return soft_target_loss(seen.student, seen.teacher, settings.temperature)


def _features(seen: Seen, _: Settings) -> Tensor:
    pairs = zip(seen.adapters, seen.maps, strict=True)
    return torch.stack([feature_loss(adapter, *maps) for adapter, maps in pairs]).mean()


def _attention(seen: Seen, _: Settings) -> Tensor:
    return torch.stack([attention_loss(*maps) for maps in seen.maps]).mean()


def _relational(seen: Seen, _: Settings) -> Tensor:
    assert seen.embeddings is not None  # the objective taps them for this term
    return relational_loss(*seen.embeddings)


def _contrastive(seen: Seen, _: Settings) -> Tensor:
    assert seen.embeddings is not None  # as above
    assert seen.heads is not None
    return contrastive_loss(*seen.heads(*seen.embeddings))


TERMS: Final[dict[str, Callable[[Seen, Settings], Tensor]]] = {
    "labels": _labels,
    "soft-targets": _soft_targets,
    "features": _features,
    "attention": _attention,
    "relational": _relational,
    "contrastive": _contrastive,
}
