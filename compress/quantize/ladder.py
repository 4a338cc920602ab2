# SPDX-License-Identifier: Apache-2.0
"""The accuracy ladder: when quantization loses more than it may, the next cure is tried, and what each bought is kept.

Theory of operation: a rung changes the settings that won so far in one respect. Its plan is judged on the validation
split by its drop and by the divergence of its answers from the float model's. Drops of a few hundred samples are
coarse and noisy, divergences are not; so a rung that keeps the allowed drop wins over one that does not, and among
equals the smaller divergence wins. The climb ends with the first rung that keeps the drop.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from torch import Tensor
from torch.nn import functional as F

from compress.evaluate import Score
from compress.quantize.plan import QuantizationPlan
from compress.steps.quantize import Settings

__all__ = ["Attempt", "Climb", "Cures", "Judged", "climb", "divergence"]

MARGIN = 1e-9
WIDE_COUNTS = (1, 2, 4)
TRIED = ("rounding-error", "squared-error", "percentile", "min-max")
"""Observers of the first rung; entropy and moving average lost on every network that was measured."""


@dataclass(frozen=True)
class Judged:
    """How good a plan is on the validation split.

    Attributes:
        drop: Points lost against the reference.
        divergence: Mean KL divergence of the float model's answers from the plan's, nats.
        score: Accuracy, with its interval.
    """

    drop: float
    divergence: float
    score: Score | None = None


@dataclass(frozen=True, eq=False)
class Attempt:
    """One plan that was tried.

    Attributes:
        rung: ``start``, ``observer``, ``bias correction``, ``adaptive rounding``, ``equalization``, ``wide layers`` or
            ``short training``.
        what: The choice within the rung, such as ``percentile``.
        settings: That decided it.
        plan: The result.
        judged: How good it is.
        seconds: Spent on it.
        is_kept: Whether it was the best so far.
    """

    rung: str
    what: str
    settings: Settings
    plan: QuantizationPlan
    judged: Judged
    seconds: float
    is_kept: bool


@dataclass(frozen=True)
class Cures:
    """What the ladder may use; None leaves a rung out.

    Attributes:
        make: Settings → plan.
        judge: Says how good a plan is.
        worst: Settings → layers, the one that costs most first.
        train: Settings → plan of a short quantization-aware training.
    """

    make: Callable[[Settings], QuantizationPlan]
    judge: Callable[[QuantizationPlan], Judged]
    worst: Callable[[Settings], Sequence[str]] | None = None
    train: Callable[[Settings], QuantizationPlan] | None = None


@dataclass(frozen=True)
class Climb:
    """The whole climb: every attempt in order; the last kept one is the result."""

    attempts: tuple[Attempt, ...]

    @property
    def best(self) -> Attempt:
        """The attempt that won."""
        return [attempt for attempt in self.attempts if attempt.is_kept][-1]


def divergence(reference: Tensor, answers: Tensor) -> float:
    """Return the mean of KL(softmax(reference) ‖ softmax(answers)) over samples, nats.

    Args:
        reference, answers: Logits, [N, K].

    Example:
        >>> import torch
        >>> logits = torch.tensor([[1.0986123, 0.0]])  # shares 3/4 and 1/4 against 1/2 and 1/2
        >>> round(divergence(logits, torch.zeros(1, 2)), 4)
        0.1308
    """
    p, q = F.log_softmax(reference.double(), 1), F.log_softmax(answers.double(), 1)
    return float(F.kl_div(q, p, reduction="batchmean", log_target=True))


def climb(
    start: Settings,
    cures: Cures,
    max_drop: float,
    *,
    first: QuantizationPlan | None = None,
    told: Callable[[Attempt], None] | None = None,
) -> Climb:
    """Climb until the drop is kept or the ladder ends.

    Args:
        start: What the recipe asks for.
        cures: What may be tried.
        max_drop: Points that may be lost.
        first: The plan of ``start``, if it is there already.
        told: Hears of each attempt.
    """
    climber = _Climber(cures, max_drop, told)
    climber.attempt("start", start.observer, start, lambda _: first or cures.make(start))
    for name, rung in _RUNGS:
        if climber.best.judged.drop <= max_drop + MARGIN:
            break
        for what, settings, make in rung(climber.best.settings, cures):
            climber.attempt(name, what, settings, make)
    return Climb(tuple(climber.attempts))


Candidate = tuple[str, Settings, Callable[[Settings], QuantizationPlan]]


class _Climber:
    """What was tried so far."""

    def __init__(self, cures: Cures, max_drop: float, told: Callable[[Attempt], None] | None) -> None:
        self._cures, self._max_drop, self._told = cures, max_drop, told
        self.attempts: list[Attempt] = []

    @property
    def best(self) -> Attempt:
        return Climb(tuple(self.attempts)).best

    def attempt(self, rung: str, what: str, settings: Settings, make: Callable[[Settings], QuantizationPlan]) -> None:
        started = time.perf_counter()
        plan = make(settings)
        judged = self._cures.judge(plan)
        spent = time.perf_counter() - started
        made = Attempt(rung, what, settings, plan, judged, spent, is_kept=not self.attempts)
        if self.attempts:
            made = replace(made, is_kept=self._rank(made) < self._rank(self.best))
        self.attempts.append(made)
        if self._told is not None:
            self._told(made)

    def _rank(self, attempt: Attempt) -> tuple[bool, float]:
        return attempt.judged.drop > self._max_drop + MARGIN, attempt.judged.divergence


def _observers(best: Settings, cures: Cures) -> Iterator[Candidate]:
    for name in TRIED:
        percentile = 99.999 if name == "percentile" else best.percentile
        if name != best.observer or percentile != best.percentile:
            yield name, replace(best, observer=name, percentile=percentile), cures.make


def _equalization(best: Settings, cures: Cures) -> Iterator[Candidate]:
    if not best.equalize:
        yield "across layers", replace(best, equalize=True), cures.make


def _bias(best: Settings, cures: Cures) -> Iterator[Candidate]:
    if not best.correct_bias:
        yield "measured means", replace(best, correct_bias=True), cures.make


def _rounding(best: Settings, cures: Cures) -> Iterator[Candidate]:
    if best.rounding != "adaptive":
        yield "layer by layer", replace(best, rounding="adaptive"), cures.make


def _wide(best: Settings, cures: Cures) -> Iterator[Candidate]:
    if cures.worst is None:
        return
    layers = [layer for layer in cures.worst(best) if layer not in best.wide]
    for count in WIDE_COUNTS:
        if count <= len(layers):
            chosen = tuple(layers[:count])
            yield ", ".join(chosen), replace(best, wide=(*best.wide, *chosen)), cures.make


def _training(best: Settings, cures: Cures) -> Iterator[Candidate]:
    if cures.train is not None:
        yield "learned step sizes", replace(best, wide=()), cures.train


_RUNGS: Final = (
    ("observer", _observers),
    ("bias correction", _bias),
    ("adaptive rounding", _rounding),
    ("equalization", _equalization),  # behind: with one scale for each channel it has less to give, and may take
    ("wide layers", _wide),
    ("short training", _training),
)
