# SPDX-License-Identifier: Apache-2.0
"""The exponential moving average of a model's weights."""

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """Averages weights over optimizer steps: a ← d·a + (1 - d)·w.

    d_t = min(decay, (1 + t) / (10 + t)), so that the first values are soon forgotten. Integer buffers are copied.

    Args:
        model: Gives the first value.
        decay: The final d, in (0, 1).

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(layer.weight, 1.0)
        >>> average = Average(layer, 0.99)
        >>> _ = nn.init.constant_(layer.weight, 2.0)
        >>> average.update(layer)
        >>> round(float(average.state["weight"]), 4)  # d_1 = 2/11
        1.8182

    Reference:
        Polyak & Juditsky 1992; the ramp as in Tarvainen & Valpola 2017 ("Mean teachers"), section 3.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.values = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @property
    def state(self) -> dict[str, Tensor]:
        """The averaged state dict, with the number of updates under ``__updates__`` once there is one."""
        counted = {"__updates__": torch.tensor(self.updates)} if self.updates else {}
        return {**self.values, **counted}

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from a saved ``state``."""
        for name, value in self.values.items():
            value.copy_(state[name])
        self.updates = int(state["__updates__"]) if "__updates__" in state else 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's present weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - decay)
            else:
                self.values[name].copy_(value)

    def write_to(self, model: nn.Module) -> None:
        """Give the model the averaged weights."""
        model.load_state_dict(self.values)
