# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST as every training here sees it."""

from functools import cache

import torch
from torch import Tensor

from compress.sources import Tensors
from tests.zoo import data

__all__ = ["flips", "split"]


def flips(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror about half of the images [N,C,H,W]; a teacher is asked about each image twice in all."""
    return torch.where(torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5, x.flip(3), x)


@cache
def split(name: str) -> Tensors:
    """Return ``train`` or ``t10k``."""
    images, classes = data.load(name)
    return Tensors(data.scaled(images), torch.from_numpy(classes))
