# SPDX-License-Identifier: Apache-2.0
"""One trial, in a process of its own: ``python -m compress.search.trial``, a task on stdin, its result on stdout.

A trial stops early for two reasons: its cost, known before any training, misses the budget; or after a step even the
upper end of its accuracy's interval lies below what a finished trial of no greater cost had at the same step.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from compress.search.task import Result, Task
from edge_contract.errors import BudgetError, StropError

__all__ = ["perform"]


def perform(task: Task) -> Result:
    """Run one trial and return what it found; a refusal is a result, too."""
    import time

    started = time.perf_counter()
    watcher = None
    try:
        from compress import pipeline, recipe, stopwatches
        from compress.search.watch import Watcher, affordable

        read = recipe.parse(task.text, Path(task.path))
        weights = Path(task.teacher_weights) if task.teacher_weights else None
        cost = affordable(read, weights)
        watcher = Watcher(task.rivals, cost)
        watch, work = stopwatches.load(task.stopwatch), Path(task.work)
        report = pipeline.rehearse(read, work, teacher_weights=weights, listener=watcher, stopwatch=watch)
    except StropError as error:
        state = "stopped" if isinstance(error, BudgetError) else "failed"
        steps = () if watcher is None else tuple(watcher.accuracies)
        return Result(state, str(error), {}, steps, time.perf_counter() - started)
    last = report.steps[-1]
    values = {
        "accuracy": last.score.accuracy,
        "size_kb": last.size_kb,
        "macs": float(last.cost.macs),
        "parameters": float(last.cost.parameters),
        **{line.name: line.value for line in report.budget if line.name == "latency_ms"},
    }
    return Result("complete", "", values, tuple(watcher.accuracies), time.perf_counter() - started)


def main(arguments: Sequence[str] = ()) -> None:
    """Read a task, write a result; whatever libraries print goes to stderr."""
    del arguments
    answers, sys.stdout = sys.stdout, sys.stderr
    result = perform(Task.from_json(json.load(sys.stdin)))
    answers.write(json.dumps(result.to_json()))


if __name__ == "__main__":
    main()
