# SPDX-License-Identifier: Apache-2.0
"""Predictions to be drawn against measurements: each family of models is predicted by what never saw it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.predict.board import named
from benchmarks.predict.files import gather
from benchmarks.predict.learning import FEWEST, left_out
from benchmarks.predict.predictor import Forecast, Measured
from benchmarks.result.schema import Prediction, Result
from edge_contract.errors import MeasurementError

__all__ = ["with_predictions"]

Found = Sequence[tuple[Path, Result]]


def with_predictions(found: Found, models: Path) -> list[tuple[Path, Result]]:
    """Return results with what a predictor that learned from the other families says of them.

    Args:
        found: Results of one board.
        models: Folder of the measured files, one folder for each family.

    Raises:
        MeasurementError: Results of several boards, a model that is not below the folder, or too few of them.
    """
    _, ways = gather([path for path, _ in found], models)
    said: dict[tuple[str, float], Prediction] = {}
    for way, measured in ways.items():
        _refuse_few(way, measured)
        pairs = left_out(measured)
        said |= {(way, one.ms): _prediction(forecast) for one, forecast in pairs if forecast is not None}
    return [(path, replace(result, prediction=said.get(_key(result)))) for path, result in found]


def _refuse_few(way: str, measured: Sequence[Measured]) -> None:
    families = {one.family for one in measured}
    if len(families) < 3 or len(measured) < FEWEST:
        what = f"{len(measured)} models of {len(families)} families"
        fix = f"measure at least {FEWEST} models of three families"
        raise MeasurementError(what, where=f"predictions for {way}", fix=fix)


def _prediction(said: Forecast) -> Prediction:
    if not math.isfinite(said.high):
        return Prediction(1000 * said.ms)
    return Prediction(1000 * said.ms, 1000 * said.low, 1000 * said.high, said.coverage)


def _key(result: Result) -> tuple[str, float]:
    """Return the way to run and the median, as ``gather`` has them: it takes plain results only."""
    plain = result.scenario.name == "single" and result.scenario.mode == "bare" and "invoke" in result.latency_us
    ms = result.latency_us["invoke"].p50 / 1000 if plain else -1.0
    return named(result.runtime.name, result.runtime.threads), ms
