# SPDX-License-Identifier: Apache-2.0
"""Soft targets: the student learns the teacher's whole answer, not only the right class."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from compress.distill.remember import Remembering
from compress.losses import Objective, label_loss

__all__ = ["combined", "soft_target_loss"]


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T² · KL(softmax(teacher/T) ‖ softmax(student/T)), the mean over batch and places.

    The factor T² keeps the size of the gradient when T changes.

    Args:
        student: Logits, [N,K], or for each place [N,K,H,W].
        teacher: Logits of the same shape.
        temperature: T > 0; large T shows how the wrong classes compare.

    Returns:
        A scalar ≥ 0, 0 for equal distributions.

    Example:
        Two classes with logits (T·ln 3, 0) and (0, 0) give shares ¾, ¼ and ½, ½, so the divergence is
        ¾·ln(3/2) + ¼·ln(1/2) = 0.1308, times T² = 4:

        >>> import torch
        >>> teacher, student = torch.tensor([[2 * 1.0986123, 0.0]]), torch.zeros(1, 2)
        >>> round(float(soft_target_loss(student, teacher, 2.0)), 4)
        0.5232

    Reference:
        Hinton, Vinyals & Dean 2015, "Distilling the knowledge in a neural network", section 2.
    """
    q, p = F.log_softmax(student / temperature, 1), F.log_softmax(teacher / temperature, 1)
    total = F.kl_div(q, p, reduction="sum", log_target=True)
    return total / (q.numel() // q.shape[1]) * temperature**2


class _SoftTargets(Objective):
    def __init__(self, teacher: nn.Module, temperature: float, alpha: float, label_smoothing: float) -> None:
        super().__init__()
        self.teacher = teacher if isinstance(teacher, Remembering) else Remembering(teacher)
        self.temperature, self.alpha, self.label_smoothing = temperature, alpha, label_smoothing

    def forward(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        target, answer = self.teacher(x), model(x)
        soft = soft_target_loss(answer, target, self.temperature)
        return self.alpha * soft + (1 - self.alpha) * label_loss(answer, y, self.label_smoothing)

    def kept(self) -> dict[str, Any]:
        return self.teacher.kept()

    def restore(self, kept: Mapping[str, Any]) -> None:
        self.teacher.restore(kept)


def combined(teacher: nn.Module, *, temperature: float, alpha: float, label_smoothing: float = 0.0) -> Objective:
    """Return the loss α · soft targets + (1 - α) · cross-entropy with the labels.

    Args:
        teacher: Set to eval mode; it sees the same augmented inputs as the student, so that it is consistent
            (Beyer et al. 2022, "A good teacher is patient and consistent"), and answers each of them once.
        temperature: T of the soft targets.
        alpha: Weight of the teacher, 0 to 1.
        label_smoothing: Of the cross-entropy.

    Example:
        A student that answers as its teacher does has the labels' share left, here (1 - α) · ln 2:

        >>> import torch
        >>> loss = combined(nn.Identity(), temperature=2.0, alpha=0.75)
        >>> round(float(loss(nn.Identity(), torch.zeros(1, 2), torch.tensor([0]))), 4)
        0.1733
    """
    return _SoftTargets(teacher, temperature, alpha, label_smoothing)
