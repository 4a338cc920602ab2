# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST: 70 000 photographs of clothes, 28×28 grey, from Debian's package dataset-fashion-mnist (MIT)."""

import gzip
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.sources import DataSplits, Split
from edge_contract.errors import MissingDependencyError

__all__ = ["NAMES", "augment", "load", "read_part"]

FOLDER = Path("/usr/share/datasets/fashion-mnist")
NAMES = ("t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
CALIBRATION, VALIDATION = 1000, 2000


def _read(name: str, header: int) -> Any:
    try:
        return np.frombuffer(gzip.decompress((FOLDER / name).read_bytes()), np.uint8, offset=header)
    except FileNotFoundError as error:
        fix = "run apt-get install dataset-fashion-mnist"
        raise MissingDependencyError(
            "Fashion-MNIST is a package of Debian", where=str(error.filename), fix=fix
        ) from error


@cache
def read_part(name: str) -> Split:
    """Return the photographs ``train`` or ``t10k`` and what they show, raw uint8 [N,28,28]."""
    images = _read(f"{name}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    return Split(images, _read(f"{name}-labels-idx1-ubyte.gz", 8).astype(np.int64))


@cache
def load() -> DataSplits:
    """Return raw uint8 [N,28,28]: 59 000 and 1 000 of the training images, 2 000 and 8 000 of the test images.

    The checkpoint that the recipe begins with has seen every training image, so nothing of those may judge it.

    Raises:
        MissingDependencyError: The package is not installed.
    """
    seen, unseen = read_part("train"), read_part("t10k")
    train, calibration = _cut(seen, len(seen) - CALIBRATION)
    validation, test = _cut(unseen, VALIDATION)
    return DataSplits(train, calibration, validation, test, NAMES)


def _cut(split: Split, count: int) -> tuple[Split, Split]:
    return Split(split.x[:count], split.y[:count]), Split(split.x[count:], split.y[count:])


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images, every other one mirrored, each shifted by up to two pixels.

    Args:
        x: Images, float32 [N,1,28,28].
        generator: Where the randomness comes from.
    """
    n, _, height, width = x.shape
    mirrored = torch.where(torch.rand(n, 1, 1, 1, generator=generator) < 0.5, x, x.flip(3))
    padded = torch.nn.functional.pad(mirrored, (2, 2, 2, 2))
    down, right = (torch.randint(0, 5, (n, 1), generator=generator) for _ in range(2))
    rows, columns = down + torch.arange(height), right + torch.arange(width)
    return padded[torch.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)
