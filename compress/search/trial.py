# SPDX-License-Identifier: Apache-2.0
"""One trial, in a process of its own: ``python -m compress.search.trial``, a task on stdin, its result on stdout.

A trial stops early for two reasons: its cost, known before any training, misses the budget (of the latency: even the
lower end of a predictor's interval); or after a step even the upper end of its accuracy's interval lies below what
a finished trial of no greater cost had at the same step.
"""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.search.task import Result, Task
from edge_contract.errors import BudgetError, StropError

if TYPE_CHECKING:
    from compress.predictors import Forecast

__all__ = ["perform"]


def perform(task: Task) -> Result:
    """Run one trial and return what it found; a refusal is a result, too."""
    import time

    started = time.perf_counter()
    watcher = found = forecast = None
    try:
        from compress import pipeline, predictors, recipe, stopwatches
        from compress.search.watch import Watcher, affordable

        read = recipe.parse(task.text, Path(task.path))
        weights = Path(task.teacher_weights) if task.teacher_weights else None
        cost, forecast = affordable(read, weights, predictors.load(task.predictor))
        watcher = Watcher(task.rivals, cost)
        found, work = stopwatches.load(task.stopwatch), Path(task.work)
        watch = None if found is None else stopwatches.Noted(found)
        report = pipeline.rehearse(read, work, teacher_weights=weights, listener=watcher, stopwatch=watch)
    except StropError as error:
        state = "stopped" if isinstance(error, BudgetError) else "failed"
        steps = () if watcher is None else tuple(watcher.accuracies)
        return Result(
            state, str(error), {}, steps, time.perf_counter() - started, _measured(found), _predicted(forecast)
        )
    last = report.steps[-1]
    values = {
        "accuracy": last.score.accuracy,
        "size_kb": last.size_kb,
        "macs": float(last.cost.macs),
        "parameters": float(last.cost.parameters),
        **({} if watch is None or watch.ms is None else {"latency_ms": watch.ms}),
    }
    seconds = time.perf_counter() - started
    return Result("complete", "", values, tuple(watcher.accuracies), seconds, _measured(found), _predicted(forecast))


def _measured(stopwatch: object) -> tuple[Mapping[str, Any], ...]:
    """Return what each device gave to a stopwatch that asks several; nothing of one that does not tell."""
    return tuple(getattr(stopwatch, "measured", ()))


def _predicted(forecast: "Forecast | None") -> dict[str, float]:
    """Return a forecast as JSON can hold it."""
    if forecast is None:
        return {}
    ends = {"ms": forecast.ms, "low": forecast.low, "high": forecast.high}
    return {name: value for name, value in ends.items() if math.isfinite(value)}


def main(arguments: Sequence[str] = ()) -> None:
    """Read a task, write a result; whatever libraries print goes to stderr."""
    del arguments
    answers, sys.stdout = sys.stdout, sys.stderr
    result = perform(Task.from_json(json.load(sys.stdin)))
    answers.write(json.dumps(result.to_json()))


if __name__ == "__main__":
    main()
