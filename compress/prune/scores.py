# SPDX-License-Identifier: Apache-2.0
"""Scores of every group by one criterion, on the data that it needs, comparable between groups."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from compress.prune.gates import gate_gradients
from compress.prune.graph import Group
from compress.prune.importance import CRITERIA, normalised
from compress.sources import Tensors
from compress.trainer import Loss

__all__ = ["score"]


def score(method: str, model: nn.Module, data: Tensors, groups: tuple[Group, ...], loss: Loss) -> Mapping[str, Tensor]:
    """Return the scores of a criterion by group, [width] each.

    Args:
        method: A key of ``CRITERIA``.
        model: Not changed; ends in eval mode.
        data: For the criteria that need gradients.
        groups: Of the model's pruning graph.
        loss: For the criteria that need gradients of the loss.

    Raises:
        ModelError: The criterion does not fit a group; names the layer and another criterion.
    """
    criterion = CRITERIA[method]
    model.eval()  # statistics are those of inference
    if criterion.needs == "gates":
        found = {name: criterion.score(g) for name, g in gate_gradients(model, groups, data.x).items()}
    elif criterion.needs == "gradients":
        found = _over_batches(criterion.score, model, data, groups, loss)
    else:
        found = {group.name: criterion.score(group) for group in groups}
    return found if criterion.is_absolute else {name: normalised(values) for name, values in found.items()}


def _over_batches(
    criterion: Callable[..., Tensor], model: nn.Module, data: Tensors, groups: tuple[Group, ...], loss: Loss
) -> dict[str, Tensor]:
    """Average over batches, so that opposite signs of different batches do not cancel."""
    totals = {group.name: torch.zeros(group.width) for group in groups}
    for x, y in zip(torch.split(data.x, 64), torch.split(data.y, 64), strict=True):
        model.zero_grad(set_to_none=True)
        loss(model, x, y).backward()  # type: ignore[no-untyped-call]
        for group in groups:
            totals[group.name] += criterion(group)
    model.zero_grad(set_to_none=True)
    return totals
