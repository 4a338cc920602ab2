# SPDX-License-Identifier: Apache-2.0
"""What a batch of answers and of images looks like, in numbers; the same code on workstation and device."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_SIDE", "InputStatistics", "OutputStatistics", "input_statistics", "output_statistics", "stride_for"]

MAX_SIDE: Final = 64
"""Input statistics look at no more than about 64 × 64 pixels of an image."""
_DARK: Final = 2
_BRIGHT: Final = 253

Array = NDArray[Any]


@dataclass(frozen=True)
class OutputStatistics:
    """What the logits of a batch say: class, log of max-prob and energy, each [n]."""

    classes: Array
    confidence: Array
    energy: Array


@dataclass(frozen=True)
class InputStatistics:
    """What a batch of images looks like: brightness, contrast, sharpness [3, n]; saturated shares [n]."""

    values: Array
    dark: Array
    bright: Array


def stride_for(height: int, width: int) -> int:
    """Return the pixel stride of the input statistics.

    Example:
        >>> stride_for(28, 28), stride_for(224, 224)
        (1, 4)
    """
    return max(1, -(-max(height, width) // MAX_SIDE))


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


def input_statistics(images: Array) -> InputStatistics:
    """Return the statistics of sub-sampled uint8 images [n, h, w] or [n, h, w, channels].

    Brightness is the mean, contrast the standard deviation and sharpness the mean absolute difference of
    neighbours, all of the grey value in 0 .. 1.
    """
    gray = images
    if images.ndim == 4 and images.shape[3] >= 3:
        weighted = images[..., :3] @ np.array([77, 150, 29], dtype=np.uint16)  # Rec. 601 luma × 256, below 2^16
        gray = (weighted >> 8).astype(np.uint8)
    elif images.ndim == 4:
        gray = images[..., 0]
    n, pixels = len(gray), gray.shape[1] * gray.shape[2]
    flat = gray.reshape(n, -1)
    real = flat.astype(np.float32)
    mean = real.mean(axis=1)
    contrast = np.sqrt(np.maximum((real * real).mean(axis=1) - mean * mean, 0.0))
    plane = real.reshape(gray.shape)
    steps = np.abs(np.diff(plane, axis=1)).sum(axis=(1, 2)) + np.abs(np.diff(plane, axis=2)).sum(axis=(1, 2))
    values = np.stack([mean, contrast, steps / (2 * pixels)]).astype(np.float64) / 255.0
    return InputStatistics(values, (flat < _DARK).mean(axis=1), (flat > _BRIGHT).mean(axis=1))
