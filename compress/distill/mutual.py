# SPDX-License-Identifier: Apache-2.0
"""Deep mutual learning: no teacher, two students that start differently and follow each other."""

import copy

from torch import Tensor, nn

from compress.distill.inherit import start_afresh
from compress.distill.soft_targets import soft_target_loss
from compress.losses import Objective, label_loss

__all__ = ["Mutual"]


class Mutual(Objective):
    """(1 - α) · labels + α · soft targets of the other network, for each of the two; the sum is minimised.

    The second network is built as the first, with weights drawn anew, and is trained along as ``extra``; each takes
    the other's answer as it is (no gradient flows through it).

    Args:
        model: The first.
        seed: Of the second's weights.
        temperature, alpha: As for soft targets; the paper has T = 1 and equal weights (α = 0.5).
        label_smoothing: Of the cross-entropy.

    Attributes:
        peer: The second network.

    Example:
        >>> import torch
        >>> loss = Mutual(nn.Linear(2, 3), seed=1, temperature=1.0, alpha=1.0)
        >>> x = torch.ones(4, 2)
        >>> float(loss(loss.peer, x, torch.zeros(4, dtype=torch.int64)).detach())  # each agrees with itself
        0.0

    Reference:
        Zhang et al. 2018, "Deep mutual learning", equations 5 and 6.
    """

    def __init__(
        self, model: nn.Module, *, seed: int, temperature: float, alpha: float, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        self.peer = copy.deepcopy(model).requires_grad_(requires_grad=True)
        start_afresh(self.peer, seed)
        self.temperature, self.alpha, self.label_smoothing = temperature, alpha, label_smoothing

    def forward(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return the sum of both networks' losses for a batch."""
        first, second = model(x), self.peer(x)
        return self._one(first, second.detach(), y) + self._one(second, first.detach(), y)

    def _one(self, mine: Tensor, other: Tensor, y: Tensor) -> Tensor:
        soft = soft_target_loss(mine, other, self.temperature)
        return self.alpha * soft + (1 - self.alpha) * label_loss(mine, y, self.label_smoothing)
