# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST from Debian's package ``dataset-fashion-mnist``: 60 000 + 10 000 images of 28×28, ten classes."""

import gzip
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.zoo.models import noise

__all__ = ["FOLDER", "INSTALL", "calibration", "crops", "load", "samples", "scaled"]

FOLDER = Path("/usr/share/datasets/fashion-mnist")
PHOTOS = (
    "astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png", "retina.jpg",
    "rocket.jpg",
)  # fmt: skip
INSTALL = "apt-get install dataset-fashion-mnist"


def _idx(name: str, header: int) -> NDArray[np.uint8]:
    return np.frombuffer(gzip.decompress((FOLDER / name).read_bytes()), np.uint8, offset=header)


def samples(name: str, shape: tuple[int, int, int], count: int, *, is_calibration: bool) -> Tensor:
    """Return inputs [count, C, H, W] for a member of the zoo: images for those that were trained, else noise."""
    if name.startswith("mobilenet"):
        return calibration(count) if is_calibration else scaled(load("t10k")[0][:count])
    seed = 1 if is_calibration else 2
    return crops(count, seed) if name == "efficientnet-lite0" else noise(count, seed, shape)


def load(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images uint8 [N, 28, 28] and classes [N] of ``train`` or ``t10k``."""
    images = _idx(f"{split}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    return images, _idx(f"{split}-labels-idx1-ubyte.gz", 8).astype(np.int64)


def scaled(images: NDArray[np.uint8]) -> Tensor:
    """Return float32 [N, 1, 28, 28] in 0..1."""
    return torch.from_numpy(images.astype(np.float32) / 255.0)[:, None]


def calibration(count: int = 256) -> Tensor:
    """Return class-balanced training images [count, 1, 28, 28], the same ones at every call."""
    images, classes = load("train")
    order = np.argsort(classes, kind="stable").reshape(10, -1)  # 6 000 of each class
    rows = order.T.reshape(-1)[:count]  # the first of each class, then the second, …
    return scaled(images[rows])


def crops(count: int, seed: int, *, size: int = 224) -> Tensor:
    """Return random square crops of scikit-image's photographs as EfficientNet-Lite wants them, [count, 3, size, size].

    Side lengths are drawn between half the shorter side and all of it; values are (pixel - 127) / 128.
    """
    import skimage.data
    from PIL import Image

    folder = Path(skimage.data.__file__).parent
    photos = [Image.open(folder / name).convert("RGB") for name in PHOTOS]
    draw = np.random.default_rng(seed)
    made = []
    for i in range(count):
        photo = photos[i % len(photos)]
        side = int(draw.integers(min(photo.size) // 2, min(photo.size) + 1))
        left, top = (int(draw.integers(0, length - side + 1)) for length in photo.size)
        piece = photo.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
        made.append((np.asarray(piece, np.float32) - 127.0) / 128.0)
    return torch.from_numpy(np.stack(made).transpose(0, 3, 1, 2).copy())
