# SPDX-License-Identifier: Apache-2.0
"""Least squares without negative answers: a rate of a board is a time for work, and no work gives time back."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["nnls"]

_TINY: Final = 1e-10
Floats = NDArray[np.float64]


def nnls(a: Floats, b: Floats) -> Floats:
    """Return x ≥ 0 that makes ‖a·x − b‖ smallest.

    Args:
        a: [rows, columns].
        b: [rows].

    Returns:
        [columns].

    Example:
        >>> nnls(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([2.0, -1.0])).round(6).tolist()
        [2.0, 0.0]

    Reference:
        Lawson & Hanson, "Solving Least Squares Problems", 1974, chapter 23.
    """
    scale = np.sqrt((a**2).sum(0))
    scale[scale == 0] = 1.0
    a = a / scale
    gram, target = a.T @ a, a.T @ b
    x, passive = np.zeros(a.shape[1]), np.zeros(a.shape[1], bool)
    for _ in range(3 * a.shape[1]):
        gradient = target - gram @ x
        gradient[passive] = -np.inf
        best = int(np.argmax(gradient)) if len(gradient) else 0
        if not len(gradient) or gradient[best] <= _TINY * max(1.0, float(np.abs(target).max())):
            break
        passive[best] = True
        x = _feasible(gram, target, x, passive)
    found: Floats = x / scale
    return found


def _feasible(gram: Floats, target: Floats, x: Floats, passive: NDArray[np.bool_]) -> Floats:
    """Go to the best point of the passive columns, and drop those that would become negative on the way."""
    while True:
        aim = np.zeros_like(x)
        rows = np.flatnonzero(passive)
        aim[rows] = np.linalg.solve(gram[np.ix_(rows, rows)] + _TINY * np.eye(len(rows)), target[rows])
        bad = passive & (aim <= 0)
        if not bad.any():
            return aim
        step = float(np.min(x[bad] / np.maximum(x[bad] - aim[bad], 1e-300)))
        x = x + min(1.0, step) * (aim - x)
        passive &= x > _TINY
        x[~passive] = 0.0
        if not passive.any():
            return x
