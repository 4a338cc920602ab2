# SPDX-License-Identifier: Apache-2.0
"""What a batch of answers and of images looks like, in numbers; the same code on workstation and device."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MAX_SIDE",
    "InputStatistics",
    "OutputStatistics",
    "Pixels",
    "input_statistics",
    "output_statistics",
    "share_statistics",
    "stride_for",
]

MAX_SIDE: Final = 64
"""Input statistics look at no more than about 64 × 64 pixels of an image."""
_DARK: Final = 2
_BRIGHT: Final = 253
_LEAST_SHARE: Final = 1 / 512

Array = NDArray[Any]


@dataclass(frozen=True)
class OutputStatistics:
    """What the logits of a batch say: class, log of max-prob and energy, each [n]."""

    classes: Array
    confidence: Array
    energy: Array


@dataclass(frozen=True)
class InputStatistics:
    """What a batch of images looks like: brightness, contrast, sharpness [3, n]; saturated shares [n].

    Of series and vectors ``sensors`` has each sensor's mean z, too [n, sensors].
    """

    values: Array
    dark: Array
    bright: Array
    sensors: Array | None = None


def stride_for(height: int, width: int) -> int:
    """Return the pixel stride of the input statistics.

    Example:
        >>> stride_for(28, 28), stride_for(224, 224)
        (1, 4)
    """
    return max(1, -(-max(height, width) // MAX_SIDE))


class Pixels:
    """Room for the sub-sampled pixels of a batch of uint8 images of one shape: each ``stride_for``-th in both axes.

    Copied pixel by pixel, not byte by byte: numpy sets up a loop for each run of bytes, and a run of three is most of
    the time (18 µs for 64 × 64 of RGB). A pixel is one element here, of four bytes where every one that is taken lies
    on such a border (2 µs), else of as many as it has channels (9 µs); a fourth byte of RGB belongs to the next pixel
    and is not looked at.

    Args:
        rows: Images that it takes.
        shape: Of the raw images, [H, W] or [H, W, channels].

    Example:
        >>> room = Pixels(1, (128, 128, 3))
        >>> room.put(0, np.full((128, 128, 3), 7, np.uint8))
        >>> room.first(1).shape, int(room.first(1).min())
        ((1, 64, 64, 3), 7)
    """

    def __init__(self, rows: int, shape: tuple[int, ...]) -> None:
        height, width, depth = (*shape, 1)[:3]
        stride = stride_for(height, width)
        by_words = depth == 4 or (depth == 3 and stride % 4 == 0 and width % 4 == 0)
        self._height, self._stride, self.rows = height, stride, rows
        self._item = np.dtype(np.uint32 if by_words else f"V{depth}" if depth > 1 else np.uint8)
        self._across = stride * depth // self._item.itemsize
        self._room = np.zeros((rows, -(-height // stride), -(-width // stride)), self._item)
        bytes_ = self._room.view(np.uint8).reshape(*self._room.shape, self._item.itemsize)[..., :depth]
        self._bytes: Array = bytes_ if len(shape) == 3 else bytes_[..., 0]

    @staticmethod
    def count(shape: tuple[int, ...]) -> int:
        """Return how many numbers one image of a shape gives."""
        height, width, depth = (*shape, 1)[:3]
        stride = stride_for(height, width)
        return -(-height // stride) * -(-width // stride) * depth

    def put(self, at: int, raw: Array) -> None:
        """Take the pixels of a raw image of the shape."""
        if raw.flags.c_contiguous:
            self._room[at] = raw.reshape(self._height, -1).view(self._item)[:: self._stride, :: self._across]
        else:
            self._bytes[at] = raw[:: self._stride, :: self._stride]

    def first(self, n: int) -> Array:
        """Return the pixels of the first n images: uint8 [n, h, w] or [n, h, w, channels]."""
        return self._bytes[:n]


def output_statistics(logits: Array) -> OutputStatistics:
    """Return class, log of max-prob and energy of logits [n, K].

    energy = logsumexp(logits); log of max-prob = max(logits) - energy, exact also where max-prob rounds to 1.
    """
    classes = logits.argmax(axis=1)
    peak = logits[np.arange(len(logits)), classes]
    shifted = np.exp(logits - peak[:, None])
    shifted[np.arange(len(logits)), classes] = 0.0
    rest = np.log1p(shifted.sum(axis=1))
    return OutputStatistics(classes, -rest, peak + rest)


def share_statistics(shares: Array) -> OutputStatistics:
    """Return class, log of the largest share and log of its lead of answers that are shares of one [n, K].

    An artefact that ends in a softmax does not show its energy; how far the best class leads takes its place.
    Shares that were rounded to 0 are taken as half a step of 1/256.
    """
    n, seen = len(shares), np.maximum(shares, _LEAST_SHARE)
    classes = shares.argmax(axis=1)
    peak = seen[np.arange(n), classes]
    rest = seen.copy()
    rest[np.arange(n), classes] = 0.0
    second = np.maximum(rest.max(axis=1), _LEAST_SHARE)
    return OutputStatistics(classes, np.minimum(np.log(peak), 0.0), np.log(peak / second))


def input_statistics(images: Array) -> InputStatistics:
    """Return the statistics of sub-sampled uint8 images [n, h, w] or [n, h, w, channels].

    Brightness is the mean, contrast the standard deviation and sharpness the mean absolute difference of
    neighbours, all of the grey value in 0 .. 1.
    """
    gray = images
    if images.ndim == 4 and images.shape[3] >= 3:
        gray = _luma(images)
    elif images.ndim == 4:
        gray = images[..., 0]
    n, pixels = len(gray), gray.shape[1] * gray.shape[2]
    flat = gray.reshape(n, -1)
    real = flat.astype(np.float32)
    mean = real.mean(axis=1)
    contrast = np.sqrt(np.maximum((real * real).mean(axis=1) - mean * mean, 0.0))
    steps = _differences(gray[:, 1:], gray[:, :-1]) + _differences(gray[:, :, 1:], gray[:, :, :-1])
    values = np.stack([mean, contrast, steps / (2 * pixels)]).astype(np.float64) / 255.0
    return InputStatistics(values, (flat < _DARK).mean(axis=1), (flat > _BRIGHT).mean(axis=1))


def _luma(images: Array) -> Array:
    """Return the grey value of each pixel: Rec. 601 luma in 256ths, below 2^16; three products, no matrix of integers.

    numpy has no fast matrix product of integers: a third of the time of ``@``, with the same result.
    """
    weighted: Array = images[..., 0] * np.uint16(77)
    weighted += images[..., 1] * np.uint16(150)
    weighted += images[..., 2] * np.uint16(29)
    weighted >>= 8
    return weighted.astype(np.uint8)


def _differences(one: Array, other: Array) -> Array:
    """Return the sums of |one - other| over the pixels of each image [n]; whole numbers below 2^24, so exact."""
    apart = np.maximum(one, other)
    apart -= np.minimum(one, other)
    total: Array = apart.sum(axis=(1, 2), dtype=np.uint32).astype(np.float32)
    return total
