# SPDX-License-Identifier: Apache-2.0
"""Two 4-bit integers in a byte, as ONNX and TFLite both have them."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["pack4"]


def pack4(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return codes of -8..7 two in a byte, the first in the low half: both formats' type INT4.

    Example:
        >>> pack4(np.array([1, -1, 7], np.int8)).tolist()
        [241, 7]
    """
    halves = np.ascontiguousarray(codes).ravel().view(np.uint8) & np.uint8(15)
    padded = np.append(halves, np.zeros(len(halves) % 2, np.uint8))
    found: NDArray[np.uint8] = padded[0::2] | (padded[1::2] << np.uint8(4))
    return found
