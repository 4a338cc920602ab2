# SPDX-License-Identifier: Apache-2.0
"""How good a model is, with its uncertainty."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edge_contract.errors import DataError, ModelError

__all__ = ["Difference", "Score", "hits", "paired_difference", "predict", "score", "wilson"]

Z95: Final = 1.959963984540054
"""The 97.5 % quantile of the standard normal."""
_MOST_VALUES: Final = 2**21  # of a batch of inputs, 8 MiB: activations are some ten times as many
Hits = npt.NDArray[np.bool_]
Logits = Callable[[Tensor], Tensor]
"""Inputs float32 [N,C,H,W] → logits [N,K]; an ``nn.Module`` in eval mode, or the integer evaluation of a plan."""


@dataclass(frozen=True)
class Score:
    """A share of right answers.

    Attributes:
        correct, samples: Counts.
        low, high: 95 % Wilson interval of the accuracy.
    """

    correct: int
    samples: int
    low: float
    high: float

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0 to 1."""
        return self.correct / self.samples

    def __str__(self) -> str:
        return f"{100 * self.accuracy:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def to_json(self) -> dict[str, Any]:
        return {
            "accuracy": self.accuracy,
            "low": self.low,
            "high": self.high,
            "correct": self.correct,
            "samples": self.samples,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Score":
        return score(int(document["correct"]), int(document["samples"]))


@dataclass(frozen=True)
class Difference:
    """Accuracy of the second model minus the first on the same samples, in points, with its 95 % interval."""

    points: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.points:+.2f} points [{self.low:+.2f}, {self.high:+.2f}]"

    def to_json(self) -> dict[str, Any]:
        return {"points": self.points, "low": self.low, "high": self.high}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Difference":
        return cls(float(document["points"]), float(document["low"]), float(document["high"]))


def wilson(correct: int, samples: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share.

    Its ends are the shares p that a normal test at 5 % just accepts: |correct/samples - p| = z·sqrt(p(1-p)/samples).

    Raises:
        DataError: No samples.

    Example:
        >>> [round(end, 4) for end in wilson(8, 10)]
        [0.4902, 0.9433]

    Reference:
        Wilson 1927; Brown, Cai & DasGupta 2001, equation 4.
    """
    if samples < 1:
        raise DataError("no samples to measure on", fix="give the split at least one")
    share, z2 = correct / samples, Z95 * Z95 / samples
    centre = share + z2 / 2
    half = Z95 * math.sqrt(share * (1 - share) / samples + z2 / (4 * samples))
    return max(0.0, (centre - half) / (1 + z2)), min(1.0, (centre + half) / (1 + z2))


def score(correct: int, samples: int) -> Score:
    """Return the score of a count of right answers."""
    return Score(correct, samples, *wilson(correct, samples))


def paired_difference(first: Hits, second: Hits) -> Difference:
    """Return how much better the second model is on the same samples.

    The adjusted Wald interval for paired shares: with n₁₀ and n₀₁ the samples that only the first or only the
    second got right, p = (n + 1)/(N + 2) and half-width z·sqrt((p₁₀ + p₀₁ - (p₀₁ - p₁₀)²)/(N + 2)).

    Args:
        first, second: Right or wrong for each sample, bool [N].

    Raises:
        DataError: The two were measured on different samples.

    Example:
        >>> first = np.array([True] * 90 + [False] * 10)
        >>> second = np.array([True] * 88 + [False] * 12)
        >>> str(paired_difference(first, second))
        '-2.00 points [-5.78, +1.86]'

    Reference:
        Bonett & Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on
        paired data", equation 4.
    """
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise DataError(f"answers {list(first.shape)} and {list(second.shape)} cannot be paired")
    n = first.size
    lost, won = (int((first & ~second).sum()) + 1) / (n + 2), (int((second & ~first).sum()) + 1) / (n + 2)
    half = Z95 * math.sqrt((lost + won - (won - lost) ** 2) / (n + 2))
    points = 100.0 * (float(second.mean()) - float(first.mean()))
    return Difference(points, 100 * max(-1.0, won - lost - half), 100 * min(1.0, won - lost + half))


@torch.no_grad()
def predict(model: Logits, x: Tensor, *, batch: int = 250) -> Tensor:
    """Return the logits of a model in eval mode, float32 [N,K].

    Args:
        model: In eval mode afterwards, if it is a module.
        x: Inputs, float32 [N,…].
        batch: Most inputs at once; of large ones fewer, so that memory does not grow with their size.

    Raises:
        ModelError: The model does not return [N,K], or returns NaN or Inf.
    """
    if isinstance(model, nn.Module):
        model.eval()
    fitting = max(1, _MOST_VALUES // max(1, x[:1].numel()))
    outputs = [model(part) for part in torch.split(x, min(batch, fitting))]
    for output in outputs:
        if not isinstance(output, Tensor) or output.ndim != 2:
            found = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ModelError(f"the model returned {found}", fix="return the logits alone, [N, classes]")
    logits = torch.cat(outputs).float()
    if not bool(torch.isfinite(logits).all()):
        raise ModelError("the logits hold NaN or Inf", fix="check the weights, then lower the learning rate")
    return logits


def hits(model: Logits, x: Tensor, y: Tensor) -> Hits:
    """Return for each sample whether the class with the largest logit is the right one (top-1), bool [N].

    Raises:
        ModelError: The model has fewer outputs than there are classes.
    """
    logits = predict(model, x)
    if int(y.max()) >= logits.shape[1]:
        raise ModelError(f"{logits.shape[1]} outputs for class {int(y.max())}", fix="give the model one for each class")
    found: Hits = (logits.argmax(1) == y).numpy()
    return found
