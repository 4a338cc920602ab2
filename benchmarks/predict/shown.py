# SPDX-License-Identifier: Apache-2.0
"""What a predictor says of itself, for people and for programs."""

import math
from typing import Any

from benchmarks.predict.board import Board
from benchmarks.predict.conformal import families_needed
from benchmarks.predict.predictor import COVERAGE, Forecast, Predictor

__all__ = ["forecast_json", "to_json", "to_text"]


def forecast_json(forecast: Forecast) -> dict[str, Any]:
    """Return a forecast as JSON; an end of the interval that is not known is null.

    Example:
        >>> forecast_json(Forecast(2.0, 0.0, math.inf))
        {'ms': 2.0, 'low': 0.0, 'high': None, 'coverage': 0.9, 'measured': False}
    """
    high = forecast.high if math.isfinite(forecast.high) else None
    return {
        "ms": forecast.ms,
        "low": forecast.low,
        "high": high,
        "coverage": forecast.coverage,
        "measured": False,
    }


def to_json(board: Board) -> dict[str, Any]:
    """Return what each predictor of a board has learned from, and its error."""
    return {"board": board.key, "ways": {name: _facts(found) for name, found in sorted(board.ways.items())}}


def _facts(found: Predictor) -> dict[str, Any]:
    return {
        "measurements": found.measurements,
        "families": list(found.families),
        "idea": found.fit.idea,
        "operators": sorted(found.limits.kinds),
        "ms": list(found.limits.ms),
        "cross_validated": found.judged.to_json(),
    }


def to_text(board: Board) -> str:
    """Return the same as lines for people."""
    return "\n".join([f"board {board.key}", *(_text(name, found) for name, found in sorted(board.ways.items()))])


def _text(name: str, found: Predictor) -> str:
    (low, high), judged = found.limits.ms, found.judged
    size = f"{found.measurements} models of {len(found.families)} families, {low:.3g} to {high:.3g} ms"
    errors = f"median error {judged.median:.1%}, nine of ten below {judged.p90:.1%}, {judged.refused} refused"
    return f"{name}: {size}; idea '{found.fit.idea}'\n  families left out: {errors}\n  {_covered(found)}"


def _covered(found: Predictor) -> str:
    judged = found.judged
    if judged.coverage is not None and judged.width is not None:
        return (
            f"its {COVERAGE:.0%} interval held {judged.coverage:.1%} of them, ends {judged.width:.2f} apart as a ratio"
        )
    needed = families_needed(COVERAGE) + 1
    return f"no {COVERAGE:.0%} interval could be checked on families left out: that takes {needed} of them"
