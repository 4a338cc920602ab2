# SPDX-License-Identifier: Apache-2.0
"""The peer: torch-pruning's own pruner as its documentation has it, to half of the MACs as it counts them."""

import warnings
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional as F

from compress.sources import Tensors

__all__ = ["TorchPruning"]

STEPS: Final = 30
GRADIENT_IMAGES: Final = 512


class TorchPruning:
    """Global pruning in 30 steps, widths in multiples of 8, the classifier kept, stopped at half of the MACs.

    Args:
        importance: ``magnitude`` (GroupMagnitude, L2) or ``taylor`` (GroupTaylor, new gradients for each step).
    """

    def __init__(self, importance: str) -> None:
        self.importance = importance

    def halve(self, net: nn.Module, data: Tensors) -> None:
        """Prune in place."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch_pruning

            self._halve(torch_pruning, net, data)

    def _halve(self, library: Any, net: nn.Module, data: Tensors) -> None:
        example = data.x[:1]
        kinds = {
            "magnitude": lambda: library.importance.GroupMagnitudeImportance(p=2),
            "taylor": library.importance.GroupTaylorImportance,
        }
        pruner = library.pruner.BasePruner(
            net,
            example,
            importance=kinds[self.importance](),
            global_pruning=True,
            pruning_ratio=0.9,
            iterative_steps=STEPS,
            round_to=8,
            ignored_layers=[net.head],
        )
        full, _ = library.utils.count_ops_and_params(net, example)
        for _ in range(STEPS):
            if self.importance == "taylor":
                _gradients(net, data)
            pruner.step()
            left, _ = library.utils.count_ops_and_params(net, example)
            if left <= 0.5 * full:
                break
        net.zero_grad(set_to_none=True)


def _gradients(net: nn.Module, data: Tensors) -> None:
    net.zero_grad()
    rows = torch.arange(GRADIENT_IMAGES)
    F.cross_entropy(net(data.x[rows]), data.y[rows]).backward()  # type: ignore[no-untyped-call]
