# SPDX-License-Identifier: Apache-2.0
"""Learn a predictor from measurements, choose the idea by families left out, and judge it on families left out again.

The error and the coverage that a predictor is saved with come from an outer loop: each family is taken away, a
predictor is learned from the others alone (the choice of the idea and the intervals too), and is asked about it.
"""

import math
from collections.abc import Sequence

from benchmarks.predict.ideas import IDEAS, Design, Fit
from benchmarks.predict.limits import Limits
from benchmarks.predict.predictor import COVERAGE, Forecast, Judged, Measured, Predictor
from benchmarks.quantiles import median, quantile
from edge_contract.errors import MeasurementError

__all__ = ["FEWEST", "judge", "learn", "learned", "left_out"]

FEWEST = 12
"""Measurements; fewer leave the rates of two kinds of operators open."""
_NOTHING = Judged(math.inf, math.inf, None, None, 0)


def learn(measured: Sequence[Measured], *, ideas: Sequence[str] = IDEAS) -> Predictor:
    """Return the predictor that measurements of one board and runtime teach.

    Args:
        measured: Of at least two families, and at least ``FEWEST``.
        ideas: Among which the best one is chosen by its error on families left out.

    Raises:
        MeasurementError: Too few measurements, one family, or a time that is not positive.
    """
    _check(measured)
    return learned(measured, ideas, judge(left_out(measured, ideas=ideas)))


def _check(measured: Sequence[Measured]) -> None:
    families = {one.family for one in measured}
    if len(measured) < FEWEST or len(families) < 2:
        what = f"{len(measured)} measurements of {len(families)} families"
        fix = f"measure {FEWEST} models or more, of two families or more"
        raise MeasurementError(what, where="predictor", fix=fix)
    for one in measured:
        if not 0 < one.ms < math.inf or not one.operators:
            what = f"{one.ms} ms, {len(one.operators)} operators"
            raise MeasurementError(what, where=one.name, fix="leave this measurement out")


def learned(measured: Sequence[Measured], ideas: Sequence[str], judged: Judged = _NOTHING) -> Predictor:
    """Return a predictor of the idea whose fits err least on the family that each of them did not see."""
    tried = [_Tried(idea, measured) for idea in ideas]
    best = min(tried, key=lambda one: median(one.errors))
    errors = tuple((one.family, error) for one, error in zip(measured, best.errors, strict=True))
    limits = Limits.of([one.operators for one in measured], [one.ms for one in measured])
    return Predictor(best.fitted(range(len(measured))), best.without, errors, limits, judged)


class _Tried:
    """One idea, fitted without each family in turn.

    Attributes:
        without: Family → the fit to the others.
        errors: |log(measured / predicted)| of each measurement by the fit without its family.
    """

    def __init__(self, idea: str, measured: Sequence[Measured]) -> None:
        self._measured, self._design = measured, Design(idea, [one.operators for one in measured])
        self.without: dict[str, Fit] = {}
        self.errors = [math.inf] * len(measured)
        for family in sorted({one.family for one in measured}):
            self._leave_out(family)

    def _leave_out(self, family: str) -> None:
        self.without[family] = self.fitted([i for i, one in enumerate(self._measured) if one.family != family])
        predicted = self._design.ms(self.without[family])
        for i, one in enumerate(self._measured):
            if one.family == family:
                self.errors[i] = abs(math.log(one.ms / max(float(predicted[i]), 1e-9)))

    def fitted(self, chosen: Sequence[int]) -> Fit:
        return self._design.fit(chosen, [self._measured[i].ms for i in chosen])


def left_out(
    measured: Sequence[Measured], *, ideas: Sequence[str] = IDEAS, coverage: float = COVERAGE
) -> list[tuple[Measured, Forecast | None]]:
    """Return each measurement with the forecast of a predictor that never saw its family; None: it refuses."""
    found: list[tuple[Measured, Forecast | None]] = []
    for family in sorted({one.family for one in measured}):
        others = learned([one for one in measured if one.family != family], ideas)
        mine = [one for one in measured if one.family == family]
        found.extend((one, _asked(others, one, coverage)) for one in mine)
    return found


def _asked(predictor: Predictor, one: Measured, coverage: float) -> Forecast | None:
    try:
        return predictor.ask(one.operators, coverage=coverage)
    except MeasurementError:
        return None


def judge(pairs: Sequence[tuple[Measured, Forecast | None]]) -> Judged:
    """Return how well forecasts met measurements, as ``left_out`` pairs them."""
    answered = [(one, found) for one, found in pairs if found is not None]
    refused = len(pairs) - len(answered)
    if not answered:
        return Judged(math.inf, math.inf, None, None, refused)
    errors = [abs(found.ms / one.ms - 1) for one, found in answered]
    finite = [(one, found) for one, found in answered if math.isfinite(found.high)]
    inside = [found.low <= one.ms <= found.high for one, found in finite]
    coverage = sum(inside) / len(inside) if inside else None
    width = median([found.high / found.low for _, found in finite]) if finite else None
    return Judged(median(errors), quantile(errors, 0.9), coverage, width, refused)
