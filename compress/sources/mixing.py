# SPDX-License-Identifier: Apache-2.0
"""Inputs without labels mixed with labelled ones: for training with a teacher, and for calibration."""

import torch
from torch import Tensor

from compress.sources.data import Tensors
from compress.splits import UNLABELLED

__all__ = ["calibrated", "mixed"]


def mixed(labelled: Tensors, more: Tensor | None, share: float) -> Tensors:
    """Return training data in which inputs without labels (class -1) are a share of all.

    The part that is too small is repeated, so that nothing is left out; with an augmentation each copy is another one.

    Args:
        labelled: [N, …].
        more: Inputs without labels, float32 [M, …]; None changes nothing.
        share: Of the inputs without labels, 0 to below 1; 0 takes both parts as they are.

    Example:
        >>> some = Tensors(torch.zeros(6, 1), torch.zeros(6, dtype=torch.int64))
        >>> [int((mixed(some, torch.ones(2, 1), share).y == -1).sum()) for share in (0.0, 0.5, 0.1)]
        [2, 6, 2]
        >>> [len(mixed(some, torch.ones(2, 1), share)) for share in (0.0, 0.5, 0.1)]
        [8, 12, 20]
    """
    if more is None or not len(more):
        return labelled
    n, m = len(labelled), len(more)
    rows, others = torch.arange(n), torch.arange(m)
    if share:
        others = torch.arange(max(m, round(n * share / (1 - share)))) % m
        rows = torch.arange(max(n, round(m * (1 - share) / share))) % n
    none = labelled.y.new_full((len(others),), UNLABELLED)
    return Tensors(torch.cat([labelled.x[rows], more[others]]), torch.cat([labelled.y[rows], none]))


def calibrated(calibration: Tensors, more: Tensor | None, share: float) -> Tensors:
    """Return calibration samples of the old data and of the new: ranges must hold on both.

    Of the new ones as many are taken, evenly, as have the wanted share; without one as many as there are old ones.

    Example:
        >>> some = Tensors(torch.zeros(6, 1), torch.zeros(6, dtype=torch.int64))
        >>> calibrated(some, torch.arange(9.0)[:, None], 0.4).x.flatten().tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 4.0, 6.0]
    """
    if more is None or not len(more):
        return calibration
    wanted = round(len(calibration) * share / (1 - share)) if share else len(calibration)
    count = max(1, min(len(more), wanted))
    rows = torch.arange(count) * len(more) // count
    none = calibration.y.new_full((count,), UNLABELLED)
    return Tensors(torch.cat([calibration.x, more[rows]]), torch.cat([calibration.y, none]))
