# SPDX-License-Identifier: Apache-2.0
"""Turn raw pixels into the model's float input: the one implementation for training, evaluation and devices.

The order is fixed: colour → resize → crop → scale → (x - mean) / std. Everything is element by element in float32, with
no matrix product and no fused multiply-add, so a CPU of any kind gives the same bits.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import DataError
from edge_contract.preprocess import Preprocess

__all__ = ["apply", "apply_batch", "channels", "normalize"]

Array = NDArray[Any]
Floats = NDArray[np.float32]

_LUMA: Final = (np.float32(0.299), np.float32(0.587), np.float32(0.114))
"""ITU-R BT.601 weights of red, green and blue."""


def apply(p: Preprocess, raw: Array) -> Floats:
    """Return the model input of one raw image.

    Args:
        p: What to do.
        raw: [H, W] or [H, W, C] with C = 1, 3 or 4 (alpha is dropped), uint8 or another real type.

    Returns:
        float32 [h, w, c], c = 1 for ``gray`` and 3 for ``rgb``.

    Raises:
        DataError: Another shape or type, or a crop larger than the image.

    Example:
        >>> apply(Preprocess(scale=0.5), np.array([[2, 4]], np.uint8))[..., 0].tolist()
        [[1.0, 2.0]]
    """
    one: Floats = apply_batch(p, np.asarray(raw)[None])[0]
    return one


def apply_batch(p: Preprocess, raw: Array) -> Floats:
    """Return the model inputs of raw images [N, H, W] or [N, H, W, C] as float32 [N, h, w, c]; see ``apply``."""
    images = _checked(np.asarray(raw))
    if p.resize is None or p.resize == images.shape[1:3]:
        images = _crop(p, images)  # no resize: what is cropped away need not be converted
        images = _colour(p, images)
    else:
        images = _crop(p, _resize(_colour(p, images), *p.resize))
    return normalize(p, images)


def channels(p: Preprocess) -> int:
    """Return c, the number of channels after ``apply``."""
    return 3 if p.colour == "rgb" else 1


def normalize(p: Preprocess, values: Array) -> Floats:
    """Return (values × scale - mean) / std as float32; mean and std run along the last axis.

    Example:
        >>> normalize(Preprocess(scale=0.5, mean=(1.0,), std=(2.0,)), np.array([4])).tolist()
        [0.5]
    """
    result = values.astype(np.float32)  # always a copy: the steps below write into it
    if p.scale != 1.0:
        result *= np.float32(p.scale)
    if any(p.mean):
        result -= np.array(p.mean, np.float32)
    if any(s != 1.0 for s in p.std):
        result /= np.array(p.std, np.float32)
    return result


def _checked(images: Array) -> Array:
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
    if p.colour == "rgb" and found == 1:
        return np.repeat(images, 3, axis=3)
    return images[..., :3] if found == 4 else images


def _resize(images: Array, height: int, width: int) -> Floats:
    """Return images resized bilinearly with half-pixel centres, as ONNX ``half_pixel`` and torch without antialias."""
    values = images.astype(np.float32)
    return _interpolate(_interpolate(values, 1, height), 2, width)


def _interpolate(values: Floats, axis: int, size: int) -> Floats:
    """Return values sampled at (i + 0.5) × old / size - 0.5 along an axis, edges repeated."""
    old = values.shape[axis]
    if old == size:
        return values
    at = np.clip((np.arange(size) + 0.5) * (old / size) - 0.5, 0, old - 1)
    low = np.floor(at).astype(np.intp)
    shape = [1] * values.ndim
    shape[axis] = size
    share = (at - low).astype(np.float32).reshape(shape)
    below, above = values.take(low, axis), values.take(np.minimum(low + 1, old - 1), axis)
    mixed: Floats = below * (np.float32(1.0) - share) + above * share
    return mixed


def _crop(p: Preprocess, images: Array) -> Array:
    if p.crop is None:
        return images
    (height, width), (wanted_h, wanted_w) = images.shape[1:3], p.crop
    if wanted_h > height or wanted_w > width:
        what = f"a crop of {wanted_h}×{wanted_w} from an image of {height}×{width}"
        raise DataError(what, where="preprocess", fix="resize first, or crop less")
    top, left = (height - wanted_h) // 2, (width - wanted_w) // 2
    return images[:, top : top + wanted_h, left : left + wanted_w]
