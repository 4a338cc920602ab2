# SPDX-License-Identifier: Apache-2.0
"""What series, sounds and plain vectors look like, in three numbers each: for inputs that are no images.

| inputs  | level               | spread                        | third                      | below, above            |
|---------|---------------------|-------------------------------|----------------------------|-------------------------|
| series  | mean of z           | deviation over time           | mean step of z (roughness) | beyond the range of z   |
| vectors | mean of z           | root of the mean square of z  | largest z                  | beyond the range of z   |
| audio   | power in dB         | share of sign changes         | log of peak over level     | silent, clipped samples |

z = (value - offset) × scale, each sensor by its own numbers, so that pressures and angles may stand side by side.
"""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.features import InputStatistics
from edge_contract.profile import InputLook

__all__ = ["SeriesRoom", "fits", "series_statistics"]

_FARTHEST: Final = 1e6  # of z; so that one wild value makes no infinity of a mean
_SILENT: Final = 1e-3
_CLIPPED: Final = 0.999
_FLOOR: Final = 1e-10  # -100 dB
_PCM: Final = 32768.0

Array = NDArray[Any]


def fits(look: InputLook, raw: Array) -> bool:
    """Tell whether a raw input is what the profile's reference was.

    Example:
        >>> fits(InputLook("series", (0.0, 0.0), (1.0, 1.0)), np.zeros((50, 2)))
        True
    """
    if raw.dtype.kind not in "iuf" or not raw.size:
        return False
    if look.kind == "audio":
        return raw.ndim in (1, 2)
    is_vector = raw.ndim == 1 or (raw.ndim == 2 and raw.shape[0] == 1)
    has_form = is_vector if look.kind == "vectors" else raw.ndim == 2
    return has_form and len(look.offset) in (1, raw.shape[-1])


class SeriesRoom:
    """Room for a batch of raw inputs of one shape; the counterpart of ``features.Pixels``.

    Args:
        rows: Inputs that it takes.
        shape: Of one.
    """

    def __init__(self, rows: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.rows = rows
        self._room = np.zeros((rows, *shape), dtype)

    def put(self, at: int, raw: Array) -> None:
        """Take a raw input."""
        self._room[at] = raw

    def first(self, n: int) -> Array:
        """Return the first n inputs [n, …]."""
        return self._room[:n]


def series_statistics(look: InputLook, raw: Array) -> InputStatistics:
    """Return the statistics of raw inputs: [n, T, C] of series, [n, C] of vectors, [n, T] of audio."""
    if look.kind == "audio":
        return _heard(raw.reshape(len(raw), -1))
    raw = raw.reshape(len(raw), -1) if look.kind == "vectors" else raw
    z = (raw.astype(np.float64) - np.array(look.offset)) * np.array(look.scale)
    z = np.nan_to_num(z, nan=0.0, posinf=_FARTHEST, neginf=-_FARTHEST).clip(-_FARTHEST, _FARTHEST)
    flat = z.reshape(len(z), -1)
    if look.kind == "vectors":
        spread, third = np.sqrt((z * z).mean(axis=1)), np.abs(z).max(axis=1)
        sensors = z
    else:
        spread, third = np.sqrt(z.var(axis=1).mean(axis=1)), np.abs(np.diff(z, axis=1)).mean(axis=(1, 2))
        sensors = z.mean(axis=1)
    values = np.stack([flat.mean(axis=1), spread, np.nan_to_num(third)])
    own = sensors if len(look.offset) == sensors.shape[1] else None
    return InputStatistics(values, (flat < look.low).mean(axis=1), (flat > look.high).mean(axis=1), own)


def _heard(raw: Array) -> InputStatistics:
    x = raw.astype(np.float64) / (_PCM if raw.dtype.kind in "iu" else 1.0)
    x = np.nan_to_num(x, nan=0.0, posinf=1.0, neginf=-1.0)
    size = np.abs(x)
    power = (x * x).mean(axis=1) + _FLOOR
    crossings = np.zeros(len(x)) if x.shape[1] < 2 else ((x[:, 1:] >= 0) != (x[:, :-1] >= 0)).mean(axis=1)
    crest = np.log(size.max(axis=1) + math.sqrt(_FLOOR)) - np.log(power) / 2
    values = np.stack([10 * np.log10(power), crossings, crest])
    return InputStatistics(values, (size < _SILENT).mean(axis=1), (size >= _CLIPPED).mean(axis=1))
