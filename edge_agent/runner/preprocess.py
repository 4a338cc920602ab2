# SPDX-License-Identifier: Apache-2.0
"""Turn raw input into the model's float input: the one implementation for training, evaluation and devices.

Images, sound and series have their own files; what they share is here: × scale → - mean → / std. Images and series are
computed element by element in float32, with no matrix product and no fused multiply-add, so a CPU of any kind gives the
same bits; spectra of sound are computed in double and rounded once (``edge_agent.runner.audio``).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner import audio, images, series
from edge_contract.audio import Audio
from edge_contract.errors import DataError
from edge_contract.preprocess import Preprocessing
from edge_contract.series import Series

__all__ = ["apply", "apply_batch", "channels", "cut", "is_single", "normalize"]

Array = NDArray[Any]
Floats = NDArray[np.float32]


def apply(p: Preprocessing, raw: Array) -> Floats:
    """Return the model input of one raw input.

    Args:
        p: What to do.
        raw: An image [H, W] or [H, W, C] with C = 1, 3 or 4 (alpha is dropped), uint8 or another real type; a clip of
            sound [T], int16 or real in -1 to 1; a window of a series [length, channels].

    Returns:
        float32 [h, w, c] of an image, c = 1 for ``gray`` and 3 for ``rgb`` and ``bgr``; ``Audio.shape`` of a clip;
        [length, channels] of a series.

    Raises:
        DataError: Another shape or type, a crop larger than the image, an image larger than its pad, too long a clip.

    Example:
        >>> from edge_contract.preprocess import Preprocess
        >>> apply(Preprocess(scale=0.5), np.array([[2, 4]], np.uint8))[..., 0].tolist()
        [[1.0, 2.0]]
    """
    one: Floats = apply_batch(p, np.asarray(raw)[None])[0]
    return one


def apply_batch(p: Preprocessing, raw: Array) -> Floats:
    """Return the model inputs [N, …] of raw inputs [N, …]; see ``apply``."""
    match p:
        case Audio():
            return normalize(p, audio.features(p, raw))
        case Series():
            windows = normalize(p, series.checked(p, raw))
            return series.standardised(windows) if p.normalise == "window" else windows
    return normalize(p, images.arrange(p, raw))


def channels(p: Preprocessing) -> int:
    """Return c, the size of the last axis after ``apply``."""
    match p:
        case Audio():
            return 1
        case Series():
            return p.channels
    return 1 if p.colour == "gray" else 3


def is_single(p: Preprocessing, raw: Array) -> bool:
    """Tell whether an array is one raw input and not a row of them; an image's last axis of 1 or 3 is its channels.

    Example:
        >>> from edge_contract.preprocess import Preprocess
        >>> is_single(Preprocess(), np.zeros((5, 28, 28))), is_single(Preprocess(), np.zeros((28, 28, 3)))
        (False, True)
    """
    match p:
        case Audio():
            return raw.ndim == 1
        case Series():
            return raw.ndim == 2
    return raw.ndim == 2 or (raw.ndim == 3 and raw.shape[-1] in (1, 3))


def cut(p: Audio | Series, recording: Array) -> Array:
    """Return the whole windows of a recording [T] or [T, C] as raw inputs [N, length, …]; the rest at its end is left.

    Raises:
        DataError: The recording is shorter than one window.

    Example:
        >>> cut(Series(1, length=4, hop=2), np.arange(9)[:, None])[..., 0].tolist()
        [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]
    """
    recording = np.asarray(recording)
    if not recording.ndim or len(recording) < p.length:
        what = f"a recording of shape {list(recording.shape)} for windows of {p.length} samples"
        raise DataError(what, where="preprocess", fix="record for longer")
    starts = np.arange(0, len(recording) - p.length + 1, p.hop)
    windows: Array = recording[starts[:, None] + np.arange(p.length)]
    return windows


def normalize(p: Preprocessing, values: Array) -> Floats:
    """Return (values × scale - mean) / std as float32; mean and std run along the last axis, of sound the one before.

    Example:
        >>> from edge_contract.preprocess import Preprocess
        >>> normalize(Preprocess(scale=0.5, mean=(1.0,), std=(2.0,)), np.array([4])).tolist()
        [0.5]
    """
    result = values.astype(np.float32)  # always a copy: the steps below write into it
    if p.scale != 1.0:
        result *= np.float32(p.scale)
    if any(p.mean):
        result -= _factors(p, p.mean)
    if any(s != 1.0 for s in p.std):
        result /= _factors(p, p.std)
    return result


def _factors(p: Preprocessing, numbers: tuple[float, ...]) -> Floats:
    found = np.array(numbers, np.float32)
    return found[:, None] if isinstance(p, Audio) else found
