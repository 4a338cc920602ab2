# SPDX-License-Identifier: Apache-2.0
"""Contrastive distillation: of all inputs of a batch, a student's embedding points to the teacher's of the same one."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Heads", "contrastive_loss"]

WIDTH = 128
"""Of the space in which both embeddings are compared, as in the paper."""


def contrastive_loss(student: Tensor, teacher: Tensor, temperature: float = 0.1) -> Tensor:
    """Return the mean over inputs i of -log(exp(s_i·t_i/τ) / Σ_j exp(s_i·t_j/τ)), s and t of unit length.

    The other inputs of the batch are the negatives (InfoNCE); the paper draws some thousands from a memory of all
    training inputs, and has τ = 0.07 to 0.1. A batch of N bounds the mutual information that can be learned by log N.

    Args:
        student: [N,D].
        teacher: [N,D].
        temperature: τ > 0.

    Returns:
        A scalar ≥ 0; log N where nothing tells one input from another.

    Example:
        Two inputs, the student's embeddings along the teacher's: -log(e / (e + 1)) with τ = 1:

        >>> axes = torch.eye(2)
        >>> round(float(contrastive_loss(3 * axes, axes, 1.0)), 4)
        0.3133
        >>> round(float(contrastive_loss(torch.ones(2, 2), axes, 1.0)), 4)  # log 2
        0.6931

    Reference:
        Tian, Krishnan & Isola 2020, "Contrastive representation distillation", with the loss of van den Oord, Li &
        Vinyals 2018, "Representation learning with contrastive predictive coding", equation 4, over the batch.
    """
    alike = F.normalize(student, dim=1) @ F.normalize(teacher, dim=1).T / temperature
    return F.cross_entropy(alike, torch.arange(len(alike), device=alike.device))


class Heads(nn.Module):
    """One linear layer for each embedding into a space of their own; both are trained along with the student.

    Example:
        >>> [e.shape for e in Heads(16, 64)(torch.zeros(4, 16), torch.zeros(4, 64))]
        [torch.Size([4, 128]), torch.Size([4, 128])]
    """

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.student, self.teacher = nn.Linear(student, WIDTH), nn.Linear(teacher, WIDTH)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Return both embeddings in the common space, [N,128] each."""
        return self.student(student), self.teacher(teacher)
