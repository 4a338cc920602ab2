# SPDX-License-Identifier: Apache-2.0
"""As accurate as the checkpoint, 1.3 times as fast: is there one? ``python -m benchmarks.training.measured_search``.

``measured_search.toml`` is searched as ``strop compress search`` does it. The stopwatch times each candidate in turns
with the fastest file of the whole network (float or integers, ONNX Runtime or LiteRT), so that company on the machine
falls on both. Candidates are compared with the whole network on the validation split, paired. The most accurate one
that is 1.3 times as fast is then read on the test split, once. The times of the front may be taken again, from the
finished search: ``--measure-only``, on a quiet machine.
"""

import argparse
import json
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import tomli_w
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.peers import speed
from benchmarks.quantiles import median
from benchmarks.training.common import Results
from benchmarks.training.files import RUNTIMES, write_files
from benchmarks.training.measured_front import chosen_trial, lines
from compress import evaluate, pipeline
from compress import recipe as recipes
from compress.final import Candidate, candidate, int8_logits, plan_kb
from compress.quantize.plan import QuantizationPlan
from compress.report import CompressionReport
from compress.report_parts import unpack
from compress.search.space import varied
from compress.search.study import JOURNAL, Study, Trial, search
from compress.search.task import Result
from compress.search.workers import LocalWorkers

__all__ = ["RECIPE", "STOPWATCH", "Made", "front", "in_turns", "main", "timed"]

ROOT: Final = Path(__file__).resolve().parents[2]
BUILD: Final = ROOT / "build/training/measured"
RECIPE: Final = Path(__file__).with_suffix(".toml")
STOPWATCH: Final = "benchmarks.training.measured_search:in_turns"
CALLS: Final = 3000
SCREENED: Final = 600
"""Calls of each file while the search runs: enough to order candidates, not to judge them."""
SHAPE: Final = (1, 28, 28)


@dataclass(frozen=True)
class Made:
    """What a recipe makes without its end: the float network, its integers, the report of its steps."""

    model: nn.Module
    plan: QuantizationPlan
    example: Tensor
    report: CompressionReport

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Right or wrong for each validation image, bool [N], of the integers."""
        return _unpacked(self.report.steps[-1].hits, self.report.steps[-1].score.samples)

    @property
    def entering(self) -> NDArray[np.bool_]:
        """The same of the network that entered the recipe."""
        return _unpacked(self.report.steps[0].hits, self.report.steps[0].score.samples)


def _unpacked(text: str, samples: int) -> NDArray[np.bool_]:
    found = unpack(text, samples)
    assert found is not None, "only reports of schema 1 have none"
    return found


def _rehearsed(chosen: Mapping[str, Any] | None) -> Made:
    """Return what the recipe makes with some choices, from the steps that the search left; None: only integers."""
    document = tomllib.loads(RECIPE.read_text(encoding="utf-8"))
    found: list[tuple[nn.Module, Tensor, QuantizationPlan | None]] = []

    def catch(model: nn.Module, example: Tensor, plan: QuantizationPlan | None = None) -> float:
        found.append((model, example, plan))
        return 0.0

    read = _recipe(document, chosen)
    report = pipeline.rehearse(read, BUILD / "study/steps", stopwatch=catch)
    [(model, example, plan)] = found
    assert plan is not None, "the recipe ends in integers"
    return Made(model, plan, example, report)


def _recipe(document: dict[str, Any], chosen: Mapping[str, Any] | None) -> recipes.Recipe:
    changed = varied(document, chosen or {}, where=RECIPE.name)
    if chosen is None:
        changed["step"] = [step for step in changed["step"] if step["kind"] == "quantize"]
    return recipes.parse(tomli_w.dumps(changed), RECIPE)


def _inputs() -> NDArray[np.float32]:
    return np.random.default_rng(0).random((speed.SAMPLES, *SHAPE), np.float32)


def _whole() -> dict[str, Path]:
    """Return the four files of the whole network, written once, its integers by the recipe's quantize step."""
    folder = BUILD / "whole"
    paths = {f"{form} {kind}": folder / f"{form}.{kind}" for form in ("float", "int8") for kind in RUNTIMES}
    if not all(path.exists() for path in paths.values()):
        made = _rehearsed(None)
        write_files(made.model, made.example, made.plan, folder)
    return paths


def _reference() -> tuple[str, float]:
    """Return which file of the whole network is fastest, and its milliseconds, timed once for the whole search."""
    note = BUILD / "whole/fastest.json"
    if not note.exists():
        times = _microseconds(_whole(), SCREENED)
        name = min(times, key=lambda one: times[one])
        note.write_text(json.dumps({"name": name, "ms": times[name] / 1000}), encoding="utf-8")
    found = json.loads(note.read_text(encoding="utf-8"))
    return found["name"], found["ms"]


def _microseconds(paths: Mapping[str, Path], calls: int) -> dict[str, float]:
    """Return the median time of each file, all of them call by call in turns."""
    inputs = _inputs()
    opened = {name: speed.opened(path, inputs) for name, path in paths.items()}
    times: dict[str, list[float]] = {name: [] for name in opened}
    for number in range(calls + speed.WARMUP):
        for name, call in opened.items():
            started = time.perf_counter_ns()
            call()
            if number >= speed.WARMUP:
                times[name].append((time.perf_counter_ns() - started) / 1000)
    return {name: median(found) for name, found in times.items()}


def in_turns(model: nn.Module, example: Tensor, plan: QuantizationPlan | None = None) -> float:
    """Return a candidate's milliseconds: a stopwatch for ``--stopwatch benchmarks.training.measured_search:in_turns``.

    They are the reference's milliseconds times the ratio of medians in turns with it, so that a search of an hour on a
    machine that is now busy and now idle compares like with like.
    """
    name, ms = _reference()
    with tempfile.TemporaryDirectory(prefix="strop-") as folder:
        paths = write_files(model, example, plan, Path(folder))
        times = _microseconds({"whole": _whole()[name], **paths}, SCREENED)
    return ms * min(times[one] for one in paths) / times["whole"]


def _searched(told: Any = None) -> Study:
    _reference()  # before the first trial, whose process asks for it
    read = recipes.load(RECIPE)
    return search(read, BUILD / "study", LocalWorkers(1), stopwatch=STOPWATCH, told=told)


def front(trials: Sequence[Trial]) -> dict[str, Any]:
    """Return each finished trial's accuracy on validation, paired with the whole network's in float and in integers."""
    whole = _rehearsed(None)
    found: list[dict[str, Any]] = []
    for trial in trials:
        if trial.result.state != "complete":
            found.append({"chosen": trial.chosen, "state": trial.result.state, "reason": trial.result.reason})
            continue
        made = _rehearsed(trial.chosen)
        write_files(made.model, made.example, made.plan, BUILD / f"trial-{trial.number}")
        last = made.report.steps[-1]
        found.append(
            {
                "number": trial.number,
                "chosen": trial.chosen,
                "state": "complete",
                "accuracy": last.score.to_json(),
                "macs": last.cost.macs / whole.report.steps[-1].cost.macs,
                "change": evaluate.paired_difference(made.entering, made.hits).to_json(),
                "change_int8": evaluate.paired_difference(whole.hits, made.hits).to_json(),
                "search_ms": trial.result.values["latency_ms"],
            }
        )
    steps = whole.report.steps
    return {"whole": {"float": steps[0].score.to_json(), "int8": steps[-1].score.to_json()}, "trials": found}


def timed(numbers: Sequence[int]) -> dict[str, Any]:
    """Time the whole network's files, and the fastest file of each trial in turns with the fastest of those."""
    inputs, whole = _inputs(), _whole()
    us = _microseconds(whole, CALLS // 2)
    name = min(us, key=lambda one: us[one])
    found: dict[str, Any] = {
        "whole_us": us,
        "reference": name,
        "A/A": speed.aa(whole[name], inputs, CALLS),
        "trials": {},
    }
    for number in numbers:
        folder = BUILD / f"trial-{number}"
        paths = {f"{form} {kind}": folder / f"{form}.{kind}" for form in ("float", "int8") for kind in RUNTIMES}
        mine = _microseconds(paths, SCREENED)
        best = min(mine, key=lambda one: mine[one])
        found["trials"][str(number)] = {"us": mine, "best": best, **_turns(whole[name], paths[best], inputs)}
    return found


def _turns(whole: Path, mine: Path, inputs: NDArray[np.float32]) -> dict[str, Any]:
    return asdict(speed.turns(lambda: speed.opened(whole, inputs), lambda: speed.opened(mine, inputs), CALLS))


def _tested(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Read the test split for the winner, and for the whole network in float and in integers."""
    whole = _rehearsed(None)
    beside = {
        "whole float": candidate(whole.model, whole.example),
        "whole int8": _integers(whole),
    }
    document = tomllib.loads(RECIPE.read_text(encoding="utf-8"))
    made = pipeline.run(_recipe(document, chosen), BUILD / "study/steps", beside=beside)
    rows = {row.name: row for row in made.report.test}
    hits = {name: _unpacked(row.hits, row.score.samples) for name, row in rows.items()}
    against = {name: evaluate.paired_difference(hits[name], hits["int8"]).to_json() for name in beside}
    return {"accuracy": {name: row.score.to_json() for name, row in rows.items()}, "change": against}


def _integers(made: Made) -> Candidate:
    cost = candidate(made.model, made.example)
    return Candidate(int8_logits(made.plan), cost.macs, cost.parameters, plan_kb(made.plan, "rpi4"))


def _told(trial: Trial, of: int) -> None:
    result = trial.result
    values = ", ".join(f"{name} {value:.4g}" for name, value in result.values.items())
    print(f"trial {trial.number + 1} of {of}: {trial.chosen}: {result.state} {result.reason}{values}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Search, or go on with it; time; read the test split once; print the front."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.measured_search", description=__doc__)
    parser.add_argument("--measure-only", action="store_true", help="time the finished search again")
    parser.add_argument("--so-far", action="store_true", help="take the trials that are finished; search no further")
    parser.add_argument("--show", action="store_true", help="print what is there, run nothing")
    options = parser.parse_args(arguments)
    seed = recipes.load(RECIPE).seed
    results = Results("measured_search", _settings())
    if not options.show:
        torch.set_num_threads(1)
        results.forget("times", seed)
        if not options.measure_only:
            results.forget("front", seed)
            results.once("front", seed, lambda: front(_finished() if options.so_far else _searched(_told).trials))
        _complete(results, seed)
    for line in lines(*(results.entry(row, seed) for row in ("front", "times", "test"))):
        print(line)


def _settings() -> dict[str, dict[str, Any]]:
    digest = recipes.load(RECIPE).digest
    return {row: {"recipe": RECIPE.name, "digest": digest, "calls": CALLS} for row in ("front", "times", "test")}


def _finished() -> list[Trial]:
    """Return the trials that a search under way, or an interrupted one, has finished."""
    lines = (BUILD / "study" / JOURNAL).read_text(encoding="utf-8").splitlines()[1:]
    entries = [json.loads(line) for line in lines]
    return [Trial(one["number"], one["chosen"], Result.from_json(one["result"])) for one in entries]


def _complete(results: Results, seed: int) -> None:
    trials = [trial for trial in results.entry("front", seed).get("trials", []) if trial["state"] == "complete"]
    times = results.once("times", seed, lambda: timed([trial["number"] for trial in trials]))
    number = chosen_trial(trials, times["trials"])
    chosen = next(trial["chosen"] for trial in trials if trial["number"] == number)
    if results.entry("test", seed).get("number") != number:  # the split is read for the winner, and once
        results.forget("test", seed)
    results.once("test", seed, lambda: {"number": number, **_tested(chosen)})


if __name__ == "__main__":
    main()
