# SPDX-License-Identifier: Apache-2.0
"""What a training minimises: a function of model, inputs and labels, or an objective that brings modules along."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["UNLABELLED", "Loss", "Objective", "cross_entropy", "label_loss"]

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(model, inputs float32 [N,C,H,W], labels int64 [N], -1 where there is none) → scalar, a mean over the inputs."""
UNLABELLED = -1


class Objective(nn.Module):
    """A ``Loss`` with modules of its own, such as a teacher: they go with the model to its device.

    Its parameters are not trained; what shall be is handed to ``train`` as ``extra``.
    """

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of a model on a batch."""
        value: Tensor = super().__call__(model, x, y)
        return value

    def kept(self) -> dict[str, Any]:
        """Return what a resumed training must know again besides weights; it travels in the checkpoint."""
        return {}

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Take back what ``kept`` returned."""


def label_loss(logits: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy with the labels, the mean over the inputs that have one; 0 where none has.

    Args:
        logits: [N,K].
        y: Labels, int64 [N]; -1 has none.
        label_smoothing: Share of each label spread over all classes.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[0.0, 0.0], [5.0, -5.0]])
        >>> round(float(label_loss(logits, torch.tensor([0, -1]))), 4)  # ln 2
        0.6931
        >>> float(label_loss(logits, torch.tensor([-1, -1])))
        0.0
    """
    found = (y != UNLABELLED).sum()
    total = F.cross_entropy(logits, y, ignore_index=UNLABELLED, label_smoothing=label_smoothing, reduction="sum")
    return total / found.clamp(min=1)


def cross_entropy(label_smoothing: float = 0.0) -> Loss:
    """Return the loss of plain supervised training.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[1.0986123, 0.0]])  # shares 3/4 and 1/4
        >>> round(float(cross_entropy()(nn.Identity(), logits, torch.tensor([1]))), 4)  # -ln 1/4
        1.3863
    """

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return label_loss(model(x), y, label_smoothing)

    return loss
