# SPDX-License-Identifier: Apache-2.0
"""Did the mix of classes change, or the images? Class shares estimated without labels (BBSE), and what they leave.

Where only the mix changes (*label shift*), a class still looks as it looked, so the model errs as it erred: with C the
reference's confusion, column j saying how the true class j is answered, the shares of the answers are q = C π, and
π = C⁻¹ q are the shares of the true classes. An error of the answers' shares grows by at most the condition number
‖C‖₁ ‖C⁻¹‖₁; beyond ``MAX_CONDITION`` nothing is claimed.

C⁻¹ q fits the answers whatever happened. So the estimate is tried on what it was not made from: how sure the answers
of each class are, and how the features moved. If the new mix does not explain these, the images changed (*covariate
shift*), and the shares mean nothing.

Reference:
    Lipton, Z., Wang, Y.-X., Smola, A. (2018). Detecting and Correcting for Label Shift with Black Box Predictors.
    arXiv:1802.03916
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from math import inf, sqrt
from typing import Any, Final

from edge_contract.counts import EMBEDDING_UNIT, LEVELS, Counters
from edge_contract.errors import MessageError
from edge_contract.fields import Fields
from edge_contract.profile import ReferenceProfile
from edge_contract.statistics import compare_counts
from edge_contract.tails import chi2_sf
from edge_contract.tasks import CLASSIFY

__all__ = ["MAX_CONDITION", "MixChange", "PriorShift", "prior_shift"]

MAX_CONDITION: Final = 100.0
_SIGNIFICANT: Final = 1e-3
_LEAST_EFFECT: Final = 0.02
_LEAST_SAMPLES: Final = 64.0

Matrix = tuple[tuple[float, ...], ...]


class MixChange(StrEnum):
    """What happened to the classes."""

    NONE = "none"
    LABEL = "label shift"
    COVARIATE = "covariate shift"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class PriorShift:
    """The estimated mix of the true classes of a window.

    Attributes:
        kind: ``none``: the answers are mixed as ever; ``label shift``: another mix explains the window;
            ``covariate shift``: it does not; ``unknown``: the confusion cannot be inverted well enough.
        shares: Estimated share of each class slot, to 4 places; to be believed for none and label shift only.
        errors: Half width of each share's 95 % interval.
        residual: p-value of "the new mix explains how sure the answers are and how the features moved"; small: no.
        condition: Condition number of the confusion, inf where it is singular.
    """

    kind: MixChange
    shares: tuple[float, ...]
    errors: tuple[float, ...]
    residual: float
    condition: float

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "kind": self.kind.value,
            "shares": list(self.shares),
            "errors": list(self.errors),
            "residual": self.residual,
            "condition": self.condition if self.condition < inf else -1.0,
        }

    @classmethod
    def from_json(cls, document: Any) -> "PriorShift":
        """Return the estimate of a JSON form; raises MessageError when malformed."""
        f = Fields(document, "verdict.prior", MessageError)
        shares, errors, condition = f.numbers("shares"), f.numbers("errors"), f.number("condition")
        if len(shares) != len(errors):
            raise MessageError(f"{len(shares)} shares and {len(errors)} errors", where="verdict.prior")
        kind = MixChange(f.text("kind", among=tuple(MixChange)))
        return cls(kind, shares, errors, f.number("residual"), inf if condition < 0 else condition)


def prior_shift(profile: ReferenceProfile, counters: Counters, design: float = 1.0) -> PriorShift | None:
    """Return the estimated mix of classes of a window; None without 64 effective samples here and on the reference.

    None, too, for another task than classification, and for counters with noise for privacy, which have no features.

    Args:
        profile: The reference.
        counters: The window.
        design: n / n_eff of the window.
    """
    n_eff = counters.n_sampled / max(design, 1.0)
    if profile.task != CLASSIFY or counters.noise != (0, 0):
        return None
    if n_eff < _LEAST_SAMPLES or profile.size < _LEAST_SAMPLES or not any(profile.confusion):
        return None
    confusion = _columns(profile.confusion, counters.slots)
    inverse = _inverse(confusion)
    condition = inf if inverse is None else max(sum(map(abs, column)) for column in zip(*inverse, strict=True))
    answers = [count / counters.n_sampled for count in counters.classes]
    if inverse is None or condition > MAX_CONDITION:
        return PriorShift(MixChange.UNKNOWN, _rounded(answers), (1.0,) * len(answers), 1.0, condition)
    raw = [sum(a * q for a, q in zip(row, answers, strict=True)) for row in inverse]
    shares = _on_simplex(raw)
    residual = min(1.0, 2 * min(_sureness(profile, counters, shares, design), _features(profile, counters, n_eff)))
    errors = [min(1.0, 1.96 * sqrt(_variance(row, answers) * (1 / n_eff + 1 / profile.size))) for row in inverse]
    kind = _kind(profile, counters, design, residual)
    return PriorShift(kind, _rounded(shares), _rounded(errors), residual, condition)


def _kind(profile: ReferenceProfile, counters: Counters, design: float, residual: float) -> MixChange:
    if residual < _SIGNIFICANT:
        return MixChange.COVARIATE
    found = compare_counts(counters.classes, profile.counters.classes, design)
    moved = found is not None and found.p < _SIGNIFICANT and found.effect > _LEAST_EFFECT
    return MixChange.LABEL if moved else MixChange.NONE


@lru_cache(maxsize=8)
def _columns(confusion: tuple[int, ...], slots: int) -> Matrix:
    """Return P(answered i | true j) as [i][j]; a class that the reference never showed is taken at its word."""
    true = [confusion[j * slots : (j + 1) * slots] for j in range(slots)]
    sizes = [sum(row) for row in true]
    return tuple(
        tuple(true[j][i] / sizes[j] if sizes[j] else float(i == j) for j in range(slots)) for i in range(slots)
    )


@lru_cache(maxsize=8)
def _inverse(matrix: Matrix) -> Matrix | None:
    """Return the inverse by Gauss and Jordan with row pivots; None where a pivot vanishes."""
    size = len(matrix)
    rows = [[*row, *(float(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for at in range(size):
        best = max(range(at, size), key=lambda i: abs(rows[i][at]))
        if abs(rows[best][at]) < 1e-12:
            return None
        rows[at], rows[best] = rows[best], rows[at]
        pivot = rows[at][at]
        rows[at] = [value / pivot for value in rows[at]]
        for i in range(size):
            if i != at and (factor := rows[i][at]):
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[at], strict=True)]
    return tuple(tuple(row[size:]) for row in rows)


def _on_simplex(values: list[float]) -> list[float]:
    """Return the nearest point with no negative share and the sum 1 (Duchi et al. 2008).

    Example:
        >>> _on_simplex([0.7, 0.5, -0.2])
        [0.6, 0.4, 0.0]
    """
    total, shift = 0.0, 0.0
    for i, value in enumerate(sorted(values, reverse=True), start=1):
        total += value
        if value - (total - 1) / i > 0:
            shift = (total - 1) / i
    return [max(0.0, round(value - shift, 12)) for value in values]


def _variance(row: tuple[float, ...], answers: list[float]) -> float:
    """Return the variance of one sample's contribution to a share: the answer i contributes row[i]."""
    mean = sum(a * q for a, q in zip(row, answers, strict=True))
    return max(0.0, sum(a * a * q for a, q in zip(row, answers, strict=True)) - mean * mean)


def _sureness(profile: ReferenceProfile, counters: Counters, shares: list[float], design: float) -> float:
    """Return the p-value of the levels of confidence, given the answered class, under the new mix.

    Of the answers i at a level the right ones are weighted by the class's new share over its old one, the wrong ones
    by the mean weight of the classes that were taken for i.
    """
    slots, m = counters.slots, profile.size
    statistic, df = 0.0, 0
    true = [sum(profile.confusion[j * slots : (j + 1) * slots]) / m for j in range(slots)]
    weights = [share / old if old else 1.0 for share, old in zip(shares, true, strict=True)]
    for i in range(slots):
        wrong = [profile.confusion[j * slots + i] if j != i else 0 for j in range(slots)]
        others = sum(w * count for w, count in zip(weights, wrong, strict=True)) / max(sum(wrong), 1)
        cells, hits = (source[i * LEVELS : (i + 1) * LEVELS] for source in (profile.counters.cells, profile.hits))
        expected = [weights[i] * hit + others * (cell - hit) for cell, hit in zip(cells, hits, strict=True)]
        seen = counters.cells[i * LEVELS : (i + 1) * LEVELS]
        found = _against(seen, expected, sum(cells), design)
        statistic, df = statistic + found[0], df + found[1]
    return chi2_sf(statistic, df) if df else 1.0


def _against(seen: tuple[int, ...], expected: list[float], size: int, design: float) -> tuple[float, int]:
    """Return chi-square and its degrees of freedom of counts against weights that ``size`` samples gave, pooled."""
    n, total = sum(seen), sum(expected)
    if not n or total <= 0 or not size:
        return 0.0, 0
    joined = [(0, 0.0)]
    for count, weight in zip(seen, expected, strict=True):
        joined[-1] = joined[-1][0] + count, joined[-1][1] + weight / total
        if joined[-1][1] * min(n / design, size) >= 5:
            joined.append((0, 0.0))
    if len(joined) > 1:
        last = joined.pop()
        joined[-1] = joined[-1][0] + last[0], joined[-1][1] + last[1]
    scale = n * (1 + n / design / size) * design  # n/size: the reference's own error
    return sum((count - n * share) ** 2 / (scale * share) for count, share in joined), len(joined) - 1


def _features(profile: ReferenceProfile, counters: Counters, n_eff: float) -> float:
    """Return the p-value of the mean features, given the answered classes: each keeps its own mean.

    Whitened components have at most unit variance within the classes, so the law is on the safe side; what is left of
    a tenth of the whole movement is let pass, since the wrong answers among a class's move with the mix.
    """
    k, n, m = profile.projection.components, counters.n_sampled, profile.size
    if not k:
        return 1.0
    means, classes = profile.projection.class_means, counters.classes
    left = moved = 0.0
    for i in range(k):
        here = counters.embedding_sum[i] / n / EMBEDDING_UNIT
        expected = sum(count / n * means[slot * k + i] for slot, count in enumerate(classes))
        left += (here - expected) ** 2
        moved += (here - profile.counters.embedding_sum[i] / m / EMBEDDING_UNIT) ** 2
    return chi2_sf(max(0.0, left - 0.1 * moved) / (1 / n_eff + 1 / m), k)


def _rounded(values: list[float]) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in values)
