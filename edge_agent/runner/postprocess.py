# SPDX-License-Identifier: Apache-2.0
"""Turn logits into a class and how sure the model is of it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["decide", "softmax"]

Array = NDArray[Any]


def softmax(logits: Array) -> Array:
    """Return exp(x) / sum(exp(x)) along the last axis; shifted by the largest, so that nothing overflows.

    Example:
        >>> softmax(np.array([1000.0, 1000.0])).tolist()
        [0.5, 0.5]
    """
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    share: Array = raised / raised.sum(axis=-1, keepdims=True)
    return share


def decide(postprocess: str, logits: Array) -> tuple[int, float]:
    """Return (class, confidence) of finite logits [K].

    The confidence is the largest softmax for ``softmax``, the largest value itself for ``none`` (the model already
    gives probabilities), and 1 for ``argmax`` (the values mean nothing but their order). The first of equals wins.

    Example:
        >>> decide("none", np.array([0.25, 0.75]))
        (1, 0.75)
    """
    best = int(logits.argmax())
    if postprocess == "softmax":
        return best, 1.0 / float(np.exp(logits - logits[best]).sum())
    return best, float(logits[best]) if postprocess == "none" else 1.0
