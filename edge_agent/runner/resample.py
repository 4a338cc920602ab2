# SPDX-License-Identifier: Apache-2.0
"""Resize images by five methods, each with one exact meaning; docs/preprocessing.md has the formulas.

Theory of operation: every method but ``bilinear`` and ``nearest`` gives each output pixel a window of source pixels
with weights that sum to 1 (its *taps*); a pass over the width and one over the height add tap after tap, in one order.
The antialiased two (``bicubic``, ``bilinear-antialias``) are Pillow's, to the bit where pixels are uint8: weights of 22
bits, and a rounding to uint8 after each pass. Everything is element by element, without a matrix product, so the result
does not depend on the CPU.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["resize"]

Array = NDArray[Any]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
_BITS: Final = 22
"""Pillow's 32 - 8 - 2: what is left of an int32 beside a byte and the sign and overshoot of a bicubic sum."""


class _Taps(NamedTuple):
    """Weights of one axis: output pixel i sums source[first[i] + k] × weights[i, k]; shapes [size], [size, K]."""

    first: NDArray[np.intp]
    weights: Doubles


def resize(images: Array, height: int, width: int, method: str) -> Array:
    """Return images [N, H, W, C] resized to [N, height, width, C].

    Args:
        images: uint8 or another real type.
        height, width: In pixels; a side that already fits is left to the bit.
        method: One of ``edge_contract.preprocess.METHODS``.

    Returns:
        float32 for ``bilinear`` and ``area``; the type of the images for ``nearest``; of the antialiased methods uint8
        for uint8 images (as Pillow rounds), else float32.

    Example:
        >>> resize(np.array([[[[0], [4], [8], [20]]]], np.uint8), 1, 2, "area").ravel().tolist()
        [2.0, 14.0]
    """
    if method == "nearest":
        return _nearest(_nearest(images, 1, height), 2, width)
    if method == "bilinear":
        return _bilinear(_bilinear(images.astype(np.float32), 1, height), 2, width)
    mix = _mix_bytes if images.dtype == np.uint8 and method != "area" else _mix_floats
    found = images if mix is _mix_bytes else images.astype(np.float32)
    for axis, size in ((2, width), (1, height)):  # Pillow's order up to 12, and from 13 on for most sizes
        if found.shape[axis] != size:
            found = mix(found, axis, _taps(found.shape[axis], size, method))
    return found


def _nearest(values: Array, axis: int, size: int) -> Array:
    """Return the source pixel in which each output pixel's centre lies: floor((i + 0.5) × old / size)."""
    old = values.shape[axis]
    chosen: Array = values if old == size else values.take((2 * np.arange(size) + 1) * old // (2 * size), axis)
    return chosen


def _bilinear(values: Floats, axis: int, size: int) -> Floats:
    """Return values sampled at (i + 0.5) × old / size - 0.5 along an axis, edges repeated.

    As ONNX ``half_pixel`` and torch without antialias.
    """
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


def _mix_floats(values: Array, axis: int, taps: _Taps) -> Array:
    """Return sums of taps in float32, the first tap first."""
    weights = taps.weights.astype(np.float32)
    total: Floats = np.zeros(_shape(values, axis, len(taps.first)), np.float32)
    for k in range(weights.shape[1]):
        total += _tap(values, axis, taps, k) * _along(weights[:, k], axis, values.ndim)
    return total


def _mix_bytes(values: Array, axis: int, taps: _Taps) -> Array:
    """Return sums of taps as Pillow does for 8 bits: fixed point, rounded half up, clipped to a byte."""
    # Pillow rounds the weights half away from zero: (int)(w × 2^22 ± 0.5)
    weights = np.trunc(taps.weights * (1 << _BITS) + np.copysign(0.5, taps.weights)).astype(np.int32)
    found = np.empty(_shape(values, axis, len(taps.first)), np.uint8)
    for image, out in zip(values, found, strict=True):  # one by one: sums are four times as large as the images
        total = np.full(out.shape, 1 << (_BITS - 1), np.int32)
        for k in range(weights.shape[1]):
            total += _tap(image, axis - 1, taps, k) * _along(weights[:, k], axis - 1, image.ndim)
        np.clip(total >> _BITS, 0, 255, out=out, casting="unsafe")
    return found


def _tap(values: Array, axis: int, taps: _Taps, k: int) -> Array:
    """Return the k-th source pixel of each window; behind the edge, where its weight is 0, the last one."""
    source: Array = values.take(np.minimum(taps.first + k, values.shape[axis] - 1), axis)
    return source


def _along(weights: Array, axis: int, dimensions: int) -> Array:
    """Return weights [size] shaped so that they multiply along one axis of so many dimensions."""
    shape = [1] * dimensions
    shape[axis] = len(weights)
    shaped: Array = weights.reshape(shape)
    return shaped


def _shape(values: Array, axis: int, size: int) -> tuple[int, ...]:
    return (*values.shape[:axis], size, *values.shape[axis + 1 :])


@lru_cache(maxsize=32)
def _taps(old: int, size: int, method: str) -> _Taps:
    """Return windows and weights for one side; the same for every image of that size."""
    if method == "area":
        return _area_taps(old, size)
    kernel, support = _KERNELS[method]
    step = old / size
    stretch = max(step, 1.0)  # antialias: the kernel widens with the reduction, and never narrows
    centre = (np.arange(size) + 0.5) * step
    first = np.maximum((centre - support * stretch + 0.5).astype(np.intp), 0)  # towards zero, as Pillow's cast
    last = np.minimum((centre + support * stretch + 0.5).astype(np.intp), old)
    return _normalised(first, last, lambda pixel: kernel((pixel - centre + 0.5) * (1.0 / stretch)))


def _area_taps(old: int, size: int) -> _Taps:
    """Return the shares of each source pixel that lie in [i, i + 1) × old / size."""
    step = old / size
    low, high = np.arange(size) * step, np.minimum(np.arange(1, size + 1) * step, old)
    first, last = np.floor(low).astype(np.intp), np.ceil(high).astype(np.intp)
    return _normalised(first, last, lambda pixel: np.minimum(pixel + 1.0, high) - np.maximum(pixel + 0.0, low))


def _normalised(first: NDArray[np.intp], last: NDArray[np.intp], weigh: Callable[[Any], Doubles]) -> _Taps:
    """Return taps first … last - 1 with weights that sum to 1; the sum runs from the first tap, as Pillow's."""
    count = int((last - first).max())
    weights = np.zeros((len(first), count))
    total = np.zeros(len(first))
    for k in range(count):
        weights[:, k] = np.where(first + k < last, weigh(first + k), 0.0)
        total += weights[:, k]
    return _Taps(first, weights / total[:, None])


def _triangle(x: Doubles) -> Doubles:
    found: Doubles = np.maximum(1.0 - np.abs(x), 0.0)
    return found


def _cubic(x: Doubles) -> Doubles:
    """Keys 1981 with a = -0.5; written as Pillow does, so that its doubles are ours."""
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


_KERNELS: Final[dict[str, tuple[Callable[[Doubles], Doubles], float]]] = {
    "bilinear-antialias": (_triangle, 1.0),
    "bicubic": (_cubic, 2.0),
}
"""Method → kernel, and where it ends on both sides."""
