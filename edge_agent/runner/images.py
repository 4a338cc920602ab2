# SPDX-License-Identifier: Apache-2.0
"""The steps of ``Preprocess`` on pixels: colour → centre → resize → crop → pad."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.geometry import Geometry, geometry
from edge_agent.runner.resample import resize
from edge_contract.errors import DataError
from edge_contract.preprocess import Preprocess

__all__ = ["arrange", "checked"]

Array = NDArray[Any]

_LUMA: Final = (np.float32(0.299), np.float32(0.587), np.float32(0.114))
"""ITU-R BT.601 weights of red, green and blue."""


def arrange(p: Preprocess, raw: Array) -> Array:
    """Return raw images [N, H, W] or [N, H, W, C] with the model's size and channels, values not scaled yet.

    Raises:
        DataError: Another shape or type, a crop larger than the image, or an image larger than ``pad``.
    """
    images = checked(np.asarray(raw))
    tall, wide = place = geometry(p, *images.shape[1:3])
    images = images[:, tall.start : tall.start + tall.taken, wide.start : wide.start + wide.taken]
    if (tall.resized, wide.resized) == (tall.taken, wide.taken):
        return _framed(p, _colour(p, _seen(images, place)), place)  # what is cut off need not be converted
    return _framed(p, _seen(resize(_colour(p, images), tall.resized, wide.resized, p.method), place), place)


def checked(images: Array) -> Array:
    """Return images as [N, H, W, C]; raises DataError when they are none."""
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3, 4) or 0 in images.shape[1:]:
        fix = "give [H, W] or [H, W, C] with 1, 3 or 4 channels"
        raise DataError(f"an image of shape {list(images.shape[1:])}", where="preprocess", fix=fix)
    if images.dtype.kind not in "uif":
        raise DataError(f"an image of type {images.dtype}", where="preprocess", fix="give uint8")
    return images


def _colour(p: Preprocess, images: Array) -> Array:
    """Return images with the wanted channels; integers stay integers where nothing is mixed."""
    found = images.shape[3]
    if p.colour == "gray" and found != 1:
        red, green, blue = (images[..., i].astype(np.float32) * _LUMA[i] for i in range(3))
        gray: Array = ((red + green) + blue)[..., None]
        return gray
    if p.colour != "gray" and found == 1:
        return np.repeat(images, 3, axis=3)
    if p.colour == "bgr":
        return images[..., 2::-1]
    return images[..., :3] if found == 4 else images


def _seen(images: Array, place: Geometry) -> Array:
    tall, wide = place
    return images[:, tall.low : tall.high, wide.low : wide.high]


def _framed(p: Preprocess, images: Array, place: Geometry) -> Array:
    """Return images in the middle of a frame of ``fill``, where ``letterbox`` or ``pad`` asks for one."""
    tall, wide = place
    if images.shape[1:3] == (tall.output, wide.output):
        return images
    found = np.full((len(images), tall.output, wide.output, images.shape[3]), p.fill, np.float32)
    top, left = tall.low + tall.shift, wide.low + wide.shift
    found[:, top : top + images.shape[1], left : left + images.shape[2]] = images
    return found
