# SPDX-License-Identifier: Apache-2.0
"""Ways in which images go wrong: the eleven of the digits protocol, and those of "Failing Loudly".

Every shift takes images uint8 [n, H, W] and a generator, and returns as many of the same shape. Knock-outs are no
change of images: they are drawn by ``benchmarks.drift.windows``.

Reference:
    Rabanser, S., Günnemann, S., Lipton, Z. (2019). Failing Loudly: An Empirical Study of Methods for Detecting Dataset
    Shift. arXiv:1810.11953
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["DIGITS", "FAILING_LOUDLY", "Shift", "fresh"]

Array = NDArray[Any]
Shift = Callable[[Array, np.random.Generator], Array]


def _bytes(images: Array) -> Array:
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def _noise(images: Array, random: np.random.Generator, *, sigma: float) -> Array:
    return _bytes(images + random.normal(0, sigma, images.shape))


def _gain(images: Array, _: np.random.Generator, *, factor: float) -> Array:
    return _bytes(images * factor)


def _contrast(images: Array, _: np.random.Generator, *, factor: float) -> Array:
    mean = images.mean(axis=(1, 2), keepdims=True)
    return _bytes((images - mean) * factor + mean)


def _blur(images: Array, _: np.random.Generator, *, sigma: float) -> Array:
    return _bytes(ndimage.gaussian_filter(images.astype(float), (0, sigma, sigma), mode="nearest"))


def _translate(images: Array, _: np.random.Generator, *, pixels: int) -> Array:
    moved = np.zeros_like(images)
    moved[:, :, pixels:] = images[:, :, :-pixels]
    return moved


def _rotate(images: Array, _: np.random.Generator, *, degrees: float) -> Array:
    return _bytes(ndimage.rotate(images.astype(float), degrees, axes=(1, 2), reshape=False, order=1))


def _dead_row(images: Array, _: np.random.Generator, *, share: float) -> Array:
    dead = images.copy()
    dead[:, int(share * images.shape[1])] = 0
    return dead


DIGITS: Final[Mapping[str, Shift]] = {
    "noise .05": partial(_noise, sigma=0.05 * 255),
    "noise .2": partial(_noise, sigma=0.2 * 255),
    "noise .4": partial(_noise, sigma=0.4 * 255),
    "gain .85": partial(_gain, factor=0.85),
    "gain .6": partial(_gain, factor=0.6),
    "contrast .7": partial(_contrast, factor=0.7),
    "blur .5": partial(_blur, sigma=0.5),
    "1-pixel translation": partial(_translate, pixels=1),
    "15° rotation": partial(_rotate, degrees=15.0),
    "dead row": partial(_dead_row, share=0.5),
}
"""With the knock-out of class 0 the eleven of the specification's A3."""


def _affine(images: Array, random: np.random.Generator, *, limits: tuple[float, ...], flips: int) -> Array:
    """Turn, shift, shear and zoom each image by up to the limits, and mirror it along up to two axes by chance."""
    degrees, shift, shear, zoom = limits
    height, width = images.shape[1:]
    out = np.empty_like(images)
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    for i, image in enumerate(images):
        angle, lean = np.radians(random.uniform(-degrees, degrees)), random.uniform(-shear, shear)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = (
            turn
            @ np.array([[1.0, -np.sin(lean)], [0.0, np.cos(lean)]])
            @ np.diag(random.uniform(1 - zoom, 1 + zoom, 2))
        )
        offset = centre - matrix @ centre + random.uniform(-shift, shift, 2) * (height, width)
        moved = ndimage.affine_transform(image.astype(float), matrix, offset, order=1, mode="nearest")
        for axis in range(flips):
            if random.random() < 0.5:
                moved = np.flip(moved, axis=1 - axis)
        out[i] = _bytes(moved)
    return out


FAILING_LOUDLY: Final[Mapping[str, Shift]] = {
    "noise small": partial(_noise, sigma=1.0),
    "noise medium": partial(_noise, sigma=10.0),
    "noise large": partial(_noise, sigma=100.0),
    "image small": partial(_affine, limits=(10.0, 0.05, 0.1, 0.1), flips=0),
    "image medium": partial(_affine, limits=(40.0, 0.2, 0.2, 0.2), flips=1),
    "image large": partial(_affine, limits=(90.0, 0.4, 0.3, 0.4), flips=2),
}


def fresh(images: Array, rows: Array, random: np.random.Generator) -> Array:
    """Return new draws of images: each moved by up to a third of a pixel, 10 % brighter or darker, with faint noise.

    Args:
        images: uint8 [m, H, W].
        rows: Which of them [n].
        random: Where the randomness comes from.
    """
    chosen = images[rows].astype(np.float64)
    for axis in (1, 2):
        share = random.uniform(-0.33, 0.33, (len(rows), 1, 1))
        before, after = np.roll(chosen, 1, axis=axis), np.roll(chosen, -1, axis=axis)
        chosen = (1 - np.abs(share)) * chosen + np.maximum(share, 0) * before + np.maximum(-share, 0) * after
    gain = random.uniform(0.9, 1.1, (len(rows), 1, 1))
    return _bytes(chosen * gain + random.normal(0, 0.03 * 255, chosen.shape))
