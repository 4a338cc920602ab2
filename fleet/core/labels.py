# SPDX-License-Identifier: Apache-2.0
"""Delayed ground truth: labels that arrive later, joined with results by reference → true accuracy."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edge_contract.errors import MessageError

__all__ = ["MAX_LABELS", "TrueAccuracy", "read_labels", "true_accuracy", "wilson"]

MAX_LABELS = 200_000
_Z95 = 1.959963984540054


@dataclass(frozen=True)
class TrueAccuracy:
    """Share of right answers among the results whose truth is known, with a 95 % interval."""

    n: int
    correct: int
    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        return {"n": self.n, "correct": self.correct, "value": self.value, "low": self.low, "high": self.high}


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share.

    Unlike the normal interval it stays inside [0, 1] and keeps its level for small n and shares near 1.

    Example:
        >>> low, high = wilson(90, 100)
        >>> round(low, 3), round(high, 3)
        (0.826, 0.945)

    Reference:
        E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927)
    """
    if n == 0:
        return 0.0, 1.0
    share, z2 = correct / n, _Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def true_accuracy(results: Iterable[tuple[str, int]], labels: Mapping[str, int]) -> TrueAccuracy | None:
    """Return the accuracy over (reference, class) results whose label is known; None if none is.

    Example:
        >>> true_accuracy([("a:0", 3), ("a:1", 4), ("b:7", 1)], {"a:0": 3, "a:1": 5}).value
        0.5
    """
    known = [(cls, labels[ref]) for ref, cls in results if ref in labels]
    if not known:
        return None
    correct = sum(cls == label for cls, label in known)
    return TrueAccuracy(len(known), correct, correct / len(known), *wilson(correct, len(known)))


def read_labels(document: Any) -> tuple[str, dict[str, int]]:
    """Return (device, labels) of ``{"device": …, "labels": {reference: class}}``.

    Raises:
        MessageError: Not such an object, a label that is no class number, or too many at once.
    """
    if not isinstance(document, dict) or not isinstance(document.get("labels"), dict):
        raise MessageError('expected {"device": …, "labels": {reference: class}}', where="labels")
    device, labels = document.get("device"), document["labels"]
    if not isinstance(device, str):
        raise MessageError("field 'device' is missing", where="labels")
    if len(labels) > MAX_LABELS:
        raise MessageError(f"{len(labels)} labels, more than {MAX_LABELS}", where="labels", fix="send them in parts")
    for ref, label in labels.items():
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < 65536:
            raise MessageError(f"{label!r} is not a class number", where=f"labels.{ref[:40]}")
    return device, labels
