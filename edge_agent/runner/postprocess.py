# SPDX-License-Identifier: Apache-2.0
"""Turn logits into a class and how sure the model is of it. Boxes are decoded in ``edge_agent.runner.boxes``.

Exponentials are taken in the type of the logits by ``softmax`` and ``decide``, whose last bit may depend on numpy and
CPU; ``scores`` takes them in double and rounds once to float32.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CodeSoftmax", "decide", "scores", "sigmoid", "softmax"]

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


def sigmoid(logits: Array) -> Array:
    """Return 1 / (1 + exp(-x)); the exponential is taken of -|x|, so that nothing overflows.

    Example:
        >>> sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist()
        [0.0, 0.5, 1.0]
    """
    small = np.exp(-np.abs(logits))
    share: Array = np.where(logits >= 0, 1.0, small) / (1.0 + small)
    return share


def scores(kind: str, logits: Array) -> NDArray[np.float32]:
    """Return the scores [..., K] of logits [..., K]: ``softmax`` or ``sigmoid`` of them, or with ``none`` themselves.

    Example:
        >>> scores("sigmoid", np.array([0.0, 100.0])).tolist()
        [0.5, 1.0]
    """
    real = np.asarray(logits, np.float64)
    share: Array = softmax(real) if kind == "softmax" else sigmoid(real) if kind == "sigmoid" else real
    return share.astype(np.float32)


def decide(postprocess: str, logits: Array) -> tuple[int, float]:
    """Return (class, confidence) of finite logits [K].

    The confidence is the largest softmax for ``softmax``, the sigmoid of the largest value for ``sigmoid``, that value
    itself for ``none`` (the model already gives probabilities), and 1 for ``argmax`` (the values mean nothing but their
    order). The first of equals wins.

    Example:
        >>> decide("none", np.array([0.25, 0.75])), decide("sigmoid", np.array([-1.0, 0.0]))
        ((1, 0.75), (1, 0.5))
    """
    best = int(logits.argmax())
    if postprocess == "softmax":
        return best, 1.0 / float(np.exp(logits - logits[best]).sum())
    if postprocess == "sigmoid":
        return best, float(sigmoid(logits[best]))
    return best, float(logits[best]) if postprocess == "none" else 1.0


class CodeSoftmax:
    """``decide("softmax", …)`` of logits that are bytes, from tables: what it says bit for bit, in three operations.

    A logit has one of 256 values, so its exponential below a best logit does, too. A table is made when a best code is
    seen for the first time, 1 KB each. After a long inference the caches hold the network, and each further kind of
    operation of numpy costs 5–20 µs then.

    Args:
        values: What each byte means, float32 [256], by the byte as an unsigned number.
    """

    def __init__(self, values: NDArray[np.float32]) -> None:
        self._values = values
        self._raised: dict[int, NDArray[np.float32]] = {}

    def __call__(self, codes: Array) -> tuple[int, float]:
        """Return (class, confidence) of codes [K], int8 or uint8 as in the file.

        Example:
            >>> values = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float32)
            >>> CodeSoftmax(values)(np.array([-128, 3, 3], np.int8))
            (1, 0.5)
        """
        best = int(codes.argmax())
        top = codes.item(best)
        raised = self._raised.get(top)
        if raised is None:
            # Larger values than the best one do not occur; their exponentials would only overflow.
            below = np.minimum(self._values - self._values[top], np.float32(0.0))
            raised = self._raised[top] = np.exp(below)
        # A negative code counts from the table's end: that is its place as an unsigned byte.
        return best, 1.0 / float(np.add.reduce(raised.take(codes)))
