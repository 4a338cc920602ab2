# SPDX-License-Identifier: Apache-2.0
"""Step sizes that are learned, between what training asks for and what a plan makes of it.

A plan's scales are not the learned ones but the next larger ones on which all runtimes agree (``semantics``). Training
sees the plan's; what it changes is applied to what had been asked for. A frozen step keeps its question, because the
same question gives the same answer at the end, while a scale that has grown once would grow again.
"""

import torch
from torch import Tensor, nn

__all__ = ["LearnedSteps"]


class LearnedSteps(nn.Module):
    """Positive numbers start × exp(rate × θ), learned until they are frozen.

    AdamW moves every parameter by about the learning rate, whatever the size of its gradient: a step of 0.001 would go
    as far as one of 0.5. Logarithms move all steps by the same share (Jain et al., "Trained Quantization Thresholds",
    2020, section 4).

    Args:
        asked: What the scales of the first plan were chosen from, [count].
        rate: 0 where a step is given, not learned, [count]; 127 / largest code moves ends of ranges by as many codes
            as 1 does with 8 bits.

    Example:
        >>> steps = LearnedSteps(torch.tensor([0.5]), torch.ones(1))
        >>> steps.adopt(torch.tensor([0.51]), freeze=False)  # what the plan made of 0.5
        >>> _ = nn.init.constant_(steps.theta, 0.1)  # training wants 10.5 % more
        >>> steps().detach().numpy().round(3), steps.asked().numpy().round(3)
        (array([0.564], dtype=float32), array([0.553]))
    """

    start: Tensor
    wanted: Tensor
    rate: Tensor
    frozen: Tensor

    def __init__(self, asked: Tensor, rate: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(len(asked)))
        self.register_buffer("start", asked.float())
        self.register_buffer("wanted", asked.double())
        self.register_buffer("rate", rate)
        self.register_buffer("frozen", torch.tensor(False))

    def _factor(self) -> Tensor:
        return torch.exp(self.theta * self.rate)

    def forward(self) -> Tensor:
        """Return the steps in use, float32 [count]."""
        return self.start if self.frozen else self.start * self._factor()

    def asked(self) -> Tensor:
        """Return what the next plan's scales are chosen from, float64 [count]."""
        return self.wanted if self.frozen else self.wanted * self._factor().detach().double()

    @torch.no_grad()
    def adopt(self, chosen: Tensor, *, freeze: bool) -> None:
        """Go on with the steps that a plan has chosen, float32 [count], for what was asked."""
        self.wanted.copy_(self.asked())
        self.start.copy_(chosen)
        self.theta.zero_()
        self.frozen.fill_(freeze)
