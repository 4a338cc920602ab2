# SPDX-License-Identifier: Apache-2.0
"""Windows of sensor series [length, channels]."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import DataError
from edge_contract.series import Series

__all__ = ["SMALLEST", "checked", "standardised"]

Array = NDArray[Any]
SMALLEST: Final = 1e-6
"""Added to the deviation, so that a sensor that stands still gives 0 and not a number out of rounding."""


def checked(p: Series, raw: Array) -> Array:
    """Return windows [N, length, channels]; a series of one channel may lack the last axis.

    Raises:
        DataError: Another shape, or no numbers.
    """
    windows = np.asarray(raw)
    if windows.ndim == 2 and p.channels == 1:
        windows = windows[..., None]
    if windows.ndim != 3 or windows.shape[1:] != (p.length, p.channels):
        what = f"a window of shape {list(windows.shape[1:])}, the model wants [{p.length}, {p.channels}]"
        raise DataError(what, where="preprocess", fix="cut the recording into windows of that length")
    if windows.dtype.kind not in "uif":
        raise DataError(f"a window of type {windows.dtype}", where="preprocess", fix="give numbers")
    return windows


def standardised(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (x - mean) / (deviation + SMALLEST) of each window and channel, [N, length, channels].

    Mean and deviation (of the population) are summed in double, sample after sample.
    """
    real = windows.astype(np.float64)
    length = real.shape[1]
    centred = real - (real.cumsum(axis=1)[:, -1:] / length)
    deviation = np.sqrt((centred * centred).cumsum(axis=1)[:, -1:] / length)
    found: NDArray[np.float32] = (centred / (deviation + SMALLEST)).astype(np.float32)
    return found
