# SPDX-License-Identifier: Apache-2.0
"""The input contract that a bundle gets from the inputs it was proved with."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_contract.input_contract import InputContract
from edge_contract.preprocess import Preprocessing
from edge_contract.series import Series

__all__ = ["expected"]

_MARGIN: Final = 4.0
"""Times the spread that was seen: far enough that no honest input is refused, near enough that other units are."""


def expected(preprocess: Preprocessing, raw: NDArray[Any]) -> InputContract | None:
    """Return the range of raw sensor values [N, length, C], with room for four times their spread on both sides.

    Bytes of images have a range of their own, and sound may come as integers or as reals: for both nothing is written.

    Example:
        >>> expected(Series(1, 2, 2), np.array([[[-1.0], [1.0]]])).to_json()
        {'policy': 'refuse', 'minimum': -9.0, 'maximum': 9.0}
    """
    seen = raw[np.isfinite(raw)]
    if not isinstance(preprocess, Series) or not seen.size:
        return None
    low, high = float(seen.min()), float(seen.max())
    room = _MARGIN * (high - low)
    return InputContract(minimum=low - room, maximum=high + room) if room else None
