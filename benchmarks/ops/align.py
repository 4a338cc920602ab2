# SPDX-License-Identifier: Apache-2.0
"""Which operator of the file a kernel belongs to, where the runtime does not say it.

XNNPACK tells kernels in the order of the file's operators, but leaves some out (it fuses an activation into what
computes before it) and adds its own. The longest common subsequence of kinds that can stand for each other gives the
pairs; a kernel without a partner has no name, which is better than a wrong one.
"""

from collections.abc import Sequence
from typing import Final

__all__ = ["align"]

_ALIKE: Final[dict[str, frozenset[str]]] = {
    "dense": frozenset({"dense", "conv", "matmul"}),  # a 1x1 convolution is a matrix product
    "depthwise": frozenset({"depthwise", "conv"}),  # a convolution of one input channel
    "pool": frozenset({"pool", "reduce"}),
    "reduce": frozenset({"reduce", "pool"}),
    "matmul": frozenset({"matmul", "dense"}),
    "reshape": frozenset({"reshape"}),
    "copy": frozenset({"reshape", "slice", "concat"}),
    "transpose": frozenset({"transpose"}),
    "elementwise": frozenset({"elementwise", "activation"}),
    "activation": frozenset({"activation", "elementwise"}),
}


def align(ran: Sequence[str], written: Sequence[str]) -> list[int | None]:
    """Return for each kernel's kind the place of its operator in the file, or None.

    Example:
        >>> align(["conv", "depthwise", "dense", "quantize"], ["conv", "depthwise", "activation", "conv"])
        [0, 1, 3, None]
    """
    n, m = len(ran), len(written)
    best = [[0] * (m + 1) for _ in range(n + 1)]
    for i in reversed(range(n)):
        for j in reversed(range(m)):
            skip = max(best[i + 1][j], best[i][j + 1])
            best[i][j] = max(skip, best[i + 1][j + 1] + 1) if _fits(ran[i], written[j]) else skip
    found: list[int | None] = []
    j = 0
    for i in range(n):
        while j < m and best[i][j] == best[i][j + 1] and not (_fits(ran[i], written[j]) and _takes(best, i, j)):
            j += 1
        if j < m and _fits(ran[i], written[j]) and _takes(best, i, j):
            found.append(j)
            j += 1
        else:
            found.append(None)
    return found


def _fits(ran: str, written: str) -> bool:
    return written == ran or written in _ALIKE.get(ran, ())


def _takes(best: Sequence[Sequence[int]], i: int, j: int) -> bool:
    """Whether a pair here is part of a longest subsequence."""
    return best[i][j] == best[i + 1][j + 1] + 1
