# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST in two domains: as it was photographed, and as a second, worse camera sees it.

The photographs are those of ``examples.fashion`` (Debian's package dataset-fashion-mnist, MIT). Every one has one
use, so nothing that judges was ever learned from:

====================  ==============================  ===========================================
photographs           use                             seen by
====================  ==============================  ===========================================
0 … 8 000             training                        the first camera
8 000 … 8 500         calibration                     the first camera
8 500 … 10 500        validation, reference profile   the first camera
10 500 … 13 000       what the device captures        the second camera
13 000 … 15 000       what the device watches         the first camera, then the second
20 000 … 40 000       the teacher's own training      both cameras
10 000 test images    test                            each camera, apart
====================  ==============================  ===========================================
"""

from functools import cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from compress.sources import DataSplits, Split
from examples.fashion.data import NAMES, read_part

__all__ = ["augment", "captured", "load", "load_both", "second_camera", "teachers", "second_test", "watched"]

TRAIN: Final = slice(0, 8_000)
CALIBRATION: Final = slice(8_000, 8_500)
VALIDATION: Final = slice(8_500, 10_500)
CAPTURED: Final = slice(10_500, 13_000)
WATCHED: Final = slice(13_000, 15_000)
TEACHER: Final = slice(20_000, 40_000)
TURN: Final = 15.0
"""Degrees by which the second camera hangs askew at most."""
LIGHT: Final = (0.4, 0.7)
"""How much of the light the second camera sees."""
FOG: Final = 20.0
"""Grey that it adds where there is black."""
NOISE: Final = 8.0
"""Standard deviation of its noise."""

Raw = NDArray[Any]


def second_camera(x: Raw, seed: int) -> Raw:
    """Return photographs [N,28,28] as the second camera sees them: turned, out of focus, dark, foggy and noisy.

    Args:
        x: As the first camera saw them.
        seed: Decides angle, light and noise of each.
    """
    generator = torch.Generator().manual_seed(seed)
    n = len(x)
    angle = (torch.rand(n, generator=generator) * 2 - 1) * TURN * torch.pi / 180
    light = LIGHT[0] + (LIGHT[1] - LIGHT[0]) * torch.rand(n, 1, 1, generator=generator)
    cos, sin, none = angle.cos(), angle.sin(), torch.zeros(n)
    turn = torch.stack([torch.stack([cos, -sin, none], 1), torch.stack([sin, cos, none], 1)], 1)
    image = torch.from_numpy(x.astype(np.float32))[:, None]
    image = F.grid_sample(image, F.affine_grid(turn, list(image.shape), align_corners=False), align_corners=False)
    blur = torch.tensor([1.0, 2.0, 1.0])
    image = F.conv2d(image, (blur[:, None] * blur / 16)[None, None], padding=1)[:, 0]
    noise = torch.randn(image.shape, generator=generator) * NOISE
    found: Raw = (image * light + FOG + noise).round().clamp(0, 255).to(torch.uint8).numpy()
    return found


def _seen(split: Split, rows: slice) -> Split:
    return Split(split.x[rows], split.y[rows])


def _second(split: Split, seed: int) -> Split:
    return Split(second_camera(split.x, seed), split.y)


@cache
def load() -> DataSplits:
    """Return what the student is made of: the first camera alone, raw uint8 [N,28,28].

    Raises:
        MissingDependencyError: The photographs are not installed.
    """
    seen = read_part("train")
    train, calibration, validation = (_seen(seen, rows) for rows in (TRAIN, CALIBRATION, VALIDATION))
    return DataSplits(train, calibration, validation, read_part("t10k"), NAMES)


@cache
def load_both() -> DataSplits:
    """Return what a student could be made of if labelled photographs of both cameras were there: the yardstick.

    Training, calibration and validation hold every photograph of ``load`` twice, once by each camera.
    """
    first = load()
    parts = (first.train, first.calibration, first.validation)
    train, calibration, validation = (_together(one, _second(one, seed)) for seed, one in enumerate(parts, start=1))
    return DataSplits(train, calibration, validation, first.test, NAMES)


def _together(a: Split, b: Split) -> Split:
    return Split(np.concatenate([a.x, b.x]), np.concatenate([a.y, b.y]))


@cache
def second_test() -> Split:
    """Return the test photographs as the second camera sees them, with labels; only the story reads them."""
    return _second(read_part("t10k"), 4)


def captured(count: int = 2_500) -> Raw:
    """Return what the device captures: inputs of the second camera, whose labels nobody knows."""
    return second_camera(read_part("train").x[CAPTURED][:count], 5)


def watched() -> tuple[Raw, Raw]:
    """Return a stream as the device sees it: before the camera was changed, and after."""
    stream = read_part("train").x[WATCHED]
    half = len(stream) // 2
    return stream[:half], second_camera(stream[half:], 6)


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images, every other one mirrored, each shifted by up to two pixels; its border is repeated.

    Args:
        x: Images, float32 [N,1,28,28].
        generator: Where the randomness comes from.
    """
    n, _, height, width = x.shape
    mirrored = torch.where(torch.rand(n, 1, 1, 1, generator=generator) < 0.5, x, x.flip(3))
    padded = F.pad(mirrored, (2, 2, 2, 2), mode="replicate")
    down, right = (torch.randint(0, 5, (n, 1), generator=generator) for _ in range(2))
    rows, columns = down + torch.arange(height), right + torch.arange(width)
    return padded[torch.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


@cache
def teachers() -> Split:
    """Return what the teacher learns: photographs of its own, by both cameras."""
    own = _seen(read_part("train"), TEACHER)
    return _together(own, _second(own, 7))
