# SPDX-License-Identifier: Apache-2.0
"""Re-estimation of batch-normalisation statistics after channels or weights changed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from compress.prune.layers import NORMS

__all__ = ["reestimate"]


@torch.no_grad()
def reestimate(model: nn.Module, x: Tensor, *, batch: int = 128) -> int:
    """Replace every running mean and variance by the plain average over the batches of ``x``.

    Pruning changes the inputs of every later layer, so the statistics of the old network no longer centre them;
    a few hundred inputs without labels mend most of what one-shot pruning breaks.

    Args:
        model: Changed in place; ends in eval mode. Dropout stays off meanwhile.
        x: Inputs, float32 [N,C,H,W]; a single one has no variance and changes nothing.
        batch: Inputs in each forward pass.

    Returns:
        The number of normalisations that were re-estimated.

    Reference:
        Li et al. 2020, "EagleEye", section 3.3 (adaptive batch normalisation).
    """
    norms = [module for module in model.modules() if isinstance(module, NORMS) and module.track_running_stats]
    if not norms or len(x) < 2:
        return 0
    with _averaging(model, norms):
        for part in torch.split(x, batch):
            if len(part) > 1:
                model(part)
    return len(norms)


@contextmanager
def _averaging(model: nn.Module, norms: list[nn.BatchNorm1d | nn.BatchNorm2d]) -> Iterator[None]:
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch: None means the cumulative average
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()
