# SPDX-License-Identifier: Apache-2.0
"""Clips of sound, and their spectra, mel bands and cepstral coefficients.

Everything is computed in double and rounded to float32 once, before scale, mean and std. The sums over a filter run bin
after bin and not as a matrix product, whose order of addition depends on the CPU. The FFT, the cosine and the logarithm
are numpy's, which may differ in the last bit of a double from one CPU to another: about one value in 10^8 then rounds
to the neighbouring float32.
"""

from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_contract.audio import Audio
from edge_contract.errors import DataError

__all__ = ["features", "filterbank", "mel_hz", "window"]

Array = NDArray[Any]
Doubles = NDArray[np.float64]
_INT16: Final = 32768.0
_SLANEY_HZ: Final = 200.0 / 3
_SLANEY_BREAK: Final = 15.0  # mel at 1000 Hz: above it Slaney's scale is logarithmic, 27 mel for a factor of 6.4


class _Filter(NamedTuple):
    """One triangle: its first bin, and the weights from there on."""

    first: int
    weights: Doubles


def features(p: Audio, raw: Array) -> Doubles:
    """Return clips [N, T] as [N, length, 1], or their spectra as [N, frames, values, 1].

    Raises:
        DataError: Not mono, longer than ``length``, or neither int16 nor real numbers.
    """
    clips = _clips(p, np.asarray(raw))
    if not p.frame:
        return clips[..., None]
    found = np.stack([_spectrum(p, clip) for clip in clips]) if len(clips) else np.zeros((0, p.frames, p.values))
    return found[..., None]


def window(name: str, size: int) -> Doubles:
    """Return a periodic window [size]: hann 0.5 - 0.5 cos, hamming 0.54 - 0.46 cos (2πn / size), none 1.

    Example:
        >>> window("hann", 4).round(3).tolist()
        [0.0, 0.5, 1.0, 0.5]
    """
    share = {"hann": 0.5, "hamming": 0.54, "none": 1.0}[name]
    found: Doubles = share - (1.0 - share) * np.cos(2 * np.pi * np.arange(size) / size)
    return found


def mel_hz(mel: str, hz: Array) -> Doubles:
    """Return frequencies in mel: Slaney's scale for ``slaney``, else HTK's 2595 log10(1 + hz / 700).

    Example:
        >>> mel_hz("htk", np.array([1000.0])).round(1).tolist(), mel_hz("slaney", np.array([1000.0])).tolist()
        ([1000.0], [15.0])
    """
    hz = np.asarray(hz, np.float64)
    if mel != "slaney":
        return 2595.0 * np.log10(1.0 + hz / 700.0)
    above = _SLANEY_BREAK + np.log(np.maximum(hz, 1000.0) / 1000.0) * (27.0 / np.log(6.4))
    return np.where(hz < 1000.0, hz / _SLANEY_HZ, above)


def filterbank(p: Audio) -> Doubles:
    """Return the weights of the mel bands, [bands, fft / 2 + 1]; docs/preprocessing.md has the three formulas."""
    bins = np.arange(p.fft // 2 + 1) * (p.rate_hz / p.fft)
    low, high = mel_hz(p.mel, np.array([p.low_hz, p.high_hz]))
    corners = np.linspace(low, high, p.bands + 2)
    if p.mel == "tensorflow":  # triangles that are straight in mel, not in Hz
        bins = mel_hz(p.mel, bins)
    else:
        corners = _hz(p.mel, corners)
    left, peak, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    weights: Doubles = np.maximum(0.0, np.minimum((bins - left) / (peak - left), (right - bins) / (right - peak)))
    if p.mel == "slaney":
        weights = weights * (2.0 / (right - left))  # each triangle has area 1 in Hz
    return weights


def _hz(mel: str, mels: Doubles) -> Doubles:
    """Return mel in Hz, the inverse of ``mel_hz``."""
    if mel != "slaney":
        return np.asarray(700.0 * (10.0 ** (mels / 2595.0) - 1.0))
    above = 1000.0 * np.exp((np.maximum(mels, _SLANEY_BREAK) - _SLANEY_BREAK) * (np.log(6.4) / 27.0))
    return np.where(mels < _SLANEY_BREAK, mels * _SLANEY_HZ, above)


def _clips(p: Audio, raw: Array) -> Doubles:
    """Return clips [N, length] in double, -1 to 1."""
    if raw.ndim != 2 or raw.shape[1] > p.length or not raw.shape[1]:
        fix = f"give mono samples at {p.rate_hz} Hz, and cut a recording into clips"
        raise DataError(f"a clip of shape {list(raw.shape[1:])}, not [1 to {p.length}]", where="preprocess", fix=fix)
    if raw.dtype != np.int16 and raw.dtype.kind != "f":
        raise DataError(f"a clip of type {raw.dtype}", where="preprocess", fix="give int16, or reals in -1 to 1")
    clips = np.zeros((len(raw), p.length))
    clips[:, : raw.shape[1]] = raw
    if raw.dtype == np.int16:
        clips /= _INT16
    return clips


def _spectrum(p: Audio, clip: Doubles) -> Doubles:
    """Return [frames, values] of one clip [length]."""
    if p.edges != "none":
        clip = np.pad(clip, p.frame // 2, mode="reflect" if p.edges == "reflect" else "constant")
    starts = np.arange(p.frames) * p.step
    frames = clip[starts[:, None] + np.arange(p.frame)] * _window(p)
    bins = np.fft.rfft(frames, p.fft)
    power = bins.real * bins.real + bins.imag * bins.imag
    values = power if p.power == 2 else np.sqrt(power)
    if p.bands:
        values = _sums(values, _filters(p))
    if p.log != "none":
        values = np.log(values + p.offset) if p.log == "natural" else 10.0 * np.log10(values + p.offset)
    return _sums(values, _cosines(p)) if p.coefficients else values


def _sums(values: Doubles, filters: tuple[_Filter, ...]) -> Doubles:
    """Return Σ values[:, first + i] × weights[i] of each filter, [frames, filters]; see the theory above."""
    found = np.empty((len(values), len(filters)))
    for band, (first, weights) in enumerate(filters):
        total = np.zeros(len(values))
        for i, weight in enumerate(weights.tolist()):
            total += values[:, first + i] * weight
        found[:, band] = total
    return found


@lru_cache(maxsize=8)
def _window(p: Audio) -> Doubles:
    return window(p.window, p.frame)


@lru_cache(maxsize=8)
def _filters(p: Audio) -> tuple[_Filter, ...]:
    """Return each band's bins that count; a band between two bins has none, and gives 0."""
    found = []
    for weights in filterbank(p):
        inside = np.flatnonzero(weights)
        first, end = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)
        found.append(_Filter(first, weights[first:end]))
    return tuple(found)


@lru_cache(maxsize=8)
def _cosines(p: Audio) -> tuple[_Filter, ...]:
    """Return the rows of the DCT-II: √(2 / bands) cos(πk (n + ½) / bands); ``ortho`` takes row 0 by √½."""
    n = np.arange(p.bands)
    rows = [np.sqrt(2.0 / p.bands) * np.cos(np.pi * k * (n + 0.5) / p.bands) for k in range(p.coefficients)]
    if p.dct == "ortho":
        rows[0] = rows[0] * np.sqrt(0.5)
    return tuple(_Filter(0, row) for row in rows)
