# SPDX-License-Identifier: Apache-2.0
"""Soft targets: the student learns the teacher's whole answer, not only the right class."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.trainer import Loss

__all__ = ["combined", "soft_target_loss"]


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T² · KL(softmax(teacher/T) ‖ softmax(student/T)), the mean over the batch.

    The factor T² keeps the size of the gradient when T changes.

    Args:
        student: Logits, [N,K].
        teacher: Logits, [N,K].
        temperature: T > 0; large T shows how the wrong classes compare.

    Returns:
        A scalar ≥ 0, 0 for equal distributions.

    Example:
        Two classes with logits (T·ln 3, 0) and (0, 0) give shares ¾, ¼ and ½, ½, so the divergence is
        ¾·ln(3/2) + ¼·ln(1/2) = 0.1308, times T² = 4:

        >>> teacher, student = torch.tensor([[2 * 1.0986123, 0.0]]), torch.zeros(1, 2)
        >>> round(float(soft_target_loss(student, teacher, 2.0)), 4)
        0.5232

    Reference:
        Hinton, Vinyals & Dean 2015, "Distilling the knowledge in a neural network", section 2.
    """
    q, p = F.log_softmax(student / temperature, 1), F.log_softmax(teacher / temperature, 1)
    return F.kl_div(q, p, reduction="batchmean", log_target=True) * temperature**2


def combined(teacher: nn.Module, *, temperature: float, alpha: float, label_smoothing: float = 0.0) -> Loss:
    """Return the loss α · soft targets + (1 - α) · cross-entropy with the labels.

    Args:
        teacher: In eval mode; it sees the same augmented inputs as the student, so that it is consistent
            (Beyer et al. 2022, "A good teacher is patient and consistent").
        temperature: T of the soft targets.
        alpha: Weight of the teacher, 0 to 1.
        label_smoothing: Of the cross-entropy.
    """
    teacher.eval()

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            target = teacher(x)
        answer = model(x)
        soft = soft_target_loss(answer, target, temperature)
        return alpha * soft + (1 - alpha) * F.cross_entropy(answer, y, label_smoothing=label_smoothing)

    return loss
