# SPDX-License-Identifier: Apache-2.0
"""Relational distillation: the student places inputs to each other as the teacher does, in a space of its own width."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["angle_loss", "distance_loss", "relational_loss"]


def _distances(embeddings: Tensor) -> Tensor:
    """Return pairwise Euclidean distances over their mean, [N,N]; the diagonal is 0."""
    squares = embeddings.square().sum(1)
    squared = squares[:, None] + squares[None] - 2 * embeddings @ embeddings.T
    count = len(embeddings)
    apart = ~torch.eye(count, dtype=torch.bool, device=embeddings.device)
    # The root has no gradient at 0; equal embeddings and the diagonal stay at 0 without one.
    is_far = apart & (squared > 1e-9)
    distances = torch.where(is_far, squared.clamp(min=1e-9).sqrt(), torch.zeros_like(squared))
    return distances / (distances.sum() / (count * (count - 1))).clamp(min=1e-9)


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean Huber loss between the normalised pairwise distances of two embeddings of the same inputs.

    Args:
        student: [N,Ds].
        teacher: [N,Dt].

    Example:
        A space that is only larger or turned loses nothing:

        >>> points = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
        >>> round(float(distance_loss(points, 7 * points.flip(1))), 6)
        0.0

        Distances 3, 4, 5 and 1, 1, 2 become ¾, 1, 5/4 and ¾, ¾, 3/2:

        >>> line = torch.tensor([[1.0], [0.0], [2.0]])
        >>> round(float(distance_loss(line, points)), 6)  # six of nine pairs: (0 + 2·½·¼² + 2·½·¼²)/9
        0.013889

    Reference:
        Park et al. 2019, "Relational knowledge distillation", equations 5 to 7.
    """
    return F.smooth_l1_loss(_distances(student), _distances(teacher))


def _angles(embeddings: Tensor) -> Tensor:
    """Return the cosine of every angle at j between i and k, [N,N,N] (j first)."""
    away = F.normalize(embeddings[None] - embeddings[:, None], dim=2)
    return away @ away.transpose(1, 2)


def angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean Huber loss between the cosines of all angles that three embeddings make.

    Args:
        student: [N,Ds].
        teacher: [N,Dt].

    Example:
        >>> points = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
        >>> round(float(angle_loss(points, 2 * points + 1)), 6)
        0.0

    Reference:
        Park et al. 2019, "Relational knowledge distillation", equations 8 and 9.
    """
    return F.smooth_l1_loss(_angles(student), _angles(teacher))


def relational_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the distance loss + 2 · the angle loss, the proportion of the paper (25 and 50: a weight of 25).

    Args:
        student: [N,Ds].
        teacher: [N,Dt].

    Example:
        >>> points = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
        >>> round(float(relational_loss(points, points)), 6)
        0.0

    Reference:
        Park et al. 2019, "Relational knowledge distillation", section 4 (λ).
    """
    return distance_loss(student, teacher) + 2 * angle_loss(student, teacher)
