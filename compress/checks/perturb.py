# SPDX-License-Identifier: Apache-2.0
"""The closed vocabulary of perturbations of raw inputs; what is random is drawn from a fixed seed."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_contract.audio import Audio
from edge_contract.preprocess import Preprocessing
from edge_contract.series import Series

__all__ = ["kind_of", "perturbed"]

Raw = NDArray[Any]
SEED: Final = 20_261


def kind_of(preprocess: Preprocessing) -> str:
    """Return ``image``, ``audio`` or ``series``."""
    match preprocess:
        case Audio():
            return "audio"
        case Series():
            return "series"
    return "image"


def perturbed(raw: Raw, name: str, amount: float, preprocess: Preprocessing) -> Raw:
    """Return raw inputs [N, …] after a perturbation, of the same type and shape.

    Every other input goes the other way: brighter and darker, louder and softer, forth and back in time; a shift of
    images goes right, left, down and up in turn. Images are clipped to their range, integers are rounded.

    Args:
        raw: As the data source gave them.
        name: ``brightness`` (share of the full scale), ``contrast`` (change of the distance to the image's mean),
            ``shift`` (pixels or samples; the edge is repeated), ``noise`` (Gaussian, standard deviation as a share of
            the full scale, of a series as a share of each channel's own deviation), ``flip`` (left and right),
            ``gain`` (relative), ``offset`` (share of each channel's deviation).
        amount: How much.
        preprocess: Tells images, sound and series apart.

    Example:
        >>> from edge_contract.preprocess import Preprocess
        >>> perturbed(np.array([[[10, 250]], [[10, 250]]], np.uint8), "brightness", 0.1, Preprocess()).tolist()
        [[[36, 255]], [[0, 224]]]
    """
    if name in ("shift", "flip"):
        return _MOVES[name](raw, int(amount), kind_of(preprocess))
    changed = _CHANGES[name](raw.astype(np.float32), amount, _scale(raw, kind_of(preprocess)))
    return _as_before(changed, raw, is_image=kind_of(preprocess) == "image")


def _signs(x: Raw) -> Raw:
    """+1 and -1 in turn, [N, 1, …]."""
    return np.where(np.arange(len(x)) % 2, -1.0, 1.0).astype(np.float32).reshape(-1, *[1] * (x.ndim - 1))


def _scale(raw: Raw, kind: str) -> Raw:
    """What an amount of 1 means: the full scale, or of a series each channel's standard deviation."""
    if kind == "series":
        return np.asarray(raw.std(axis=(0, 1), dtype=np.float64), np.float32)
    if raw.dtype.kind in "ui":
        return np.array(255 if kind == "image" else np.iinfo(raw.dtype).max, np.float32)
    return np.array(1.0 if kind == "audio" else float(raw.max()) - float(raw.min()), np.float32)


def _as_before(x: Raw, raw: Raw, *, is_image: bool) -> Raw:
    if raw.dtype.kind in "ui":
        room = np.iinfo(raw.dtype)
        high = min(255, room.max) if is_image else room.max
        return np.clip(np.round(x), max(0, room.min) if is_image else room.min, high).astype(raw.dtype)
    return (np.clip(x, raw.min(), raw.max()) if is_image else x).astype(raw.dtype)


def _brightness(x: Raw, amount: float, scale: Raw) -> Raw:
    lighter: Raw = x + _signs(x) * np.float32(amount) * scale
    return lighter


def _contrast(x: Raw, amount: float, scale: Raw) -> Raw:
    mean = x.mean(axis=tuple(range(1, x.ndim)), keepdims=True)
    factor = np.where(_signs(x) > 0, 1 + amount, 1 / (1 + amount)).astype(np.float32)
    spread: Raw = mean + factor * (x - mean)
    return spread


def _noise(x: Raw, amount: float, scale: Raw) -> Raw:
    draw = np.random.default_rng(SEED).standard_normal(x.shape, dtype=np.float32)
    noisy: Raw = x + np.float32(amount) * scale * draw
    return noisy


def _gain(x: Raw, amount: float, scale: Raw) -> Raw:
    return x * np.where(_signs(x) > 0, 1 + amount, 1 / (1 + amount)).astype(np.float32)


_CHANGES: Final[dict[str, Callable[[Raw, float, Raw], Raw]]] = {
    "brightness": _brightness,
    "contrast": _contrast,
    "noise": _noise,
    "gain": _gain,
    "offset": _brightness,
}


def _shift(x: Raw, amount: int, kind: str) -> Raw:
    ways = [(2, 1), (2, -1), (1, 1), (1, -1)] if kind == "image" else [(1, 1), (1, -1)]
    moved = x.copy()
    for turn, (axis, sign) in enumerate(ways):
        rows = slice(turn, None, len(ways))
        places = np.clip(np.arange(x.shape[axis]) - sign * amount, 0, x.shape[axis] - 1)
        moved[rows] = np.take(x[rows], places, axis=axis)
    return moved


_MOVES: Final[dict[str, Callable[[Raw, int, str], Raw]]] = {
    "shift": _shift,
    "flip": lambda x, amount, kind: x[:, :, ::-1].copy(),
}
