# SPDX-License-Identifier: Apache-2.0
"""How well is a latency predicted of a family that was never measured? ``python -m benchmarks.training.predictor``.

The variants of ``variants.py`` are written once, in float and in integers, for both runtimes. All files are then timed
in rounds, each file once in each round and opened anew, on one thread: the time of a file is the least of its rounds'
medians, for company on the machine only adds. A predictor is learned for each runtime; its error and its interval are
those of families left out.
"""

import argparse
import hashlib
import json
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.machine import describe
from benchmarks.operands import resolve
from benchmarks.predict.board import Board, named
from benchmarks.predict.ideas import IDEAS
from benchmarks.predict.learning import judge, learned, left_out
from benchmarks.predict.predictor import Forecast, Measured, Predictor
from benchmarks.training import predictor_picture
from benchmarks.training.common import Results
from benchmarks.training.files import RUNTIMES, write_files
from benchmarks.training.variants import Variant, variants
from edge_contract import operator_work
from edge_contract.operator_work import OperatorWork
from export.inspection.work import operators

__all__ = ["build", "gathered", "judged", "lines", "main", "measure"]

BUILD: Final = Path(__file__).resolve().parents[2] / "build/predictor"
ROUNDS: Final = 9
ROUND_SECONDS: Final = 0.03
FEWEST_CALLS: Final = 5
FORMS: Final = ("float", "int8")
GOALS: Final = {"median": 0.15, "coverage": 0.85}


@cache
def _code() -> str:
    """Names the code that builds the variants: files of other code are written again."""
    sources = [Path(__file__).with_name(name).read_bytes() for name in ("variants.py", "files.py")]
    return hashlib.sha256(b"".join(sources)).hexdigest()[:12]


def build(told: Callable[[str], None] = print) -> Path:
    """Write every variant's four files, those that are missing, and return their folder."""
    folder = BUILD / _code()
    for variant in variants():
        mine = folder / variant.family / variant.name
        if (mine / "work.json").exists():
            continue
        started = time.perf_counter()
        net = variant.network()
        paths = write_files(net, variant.inputs(1), variant.plan(net), mine)
        work = {name: operator_work.to_json(operators(path)) for name, path in paths.items()}
        (mine / "work.json").write_text(json.dumps(work), encoding="utf-8")  # last: a folder that has it is whole
        told(f"{variant.name}: {time.perf_counter() - started:.1f} s")
    return folder


def measure(folder: Path, kind: str, rounds: int) -> dict[str, dict[str, Any]]:
    """Return each file's milliseconds in each round and the least of them, by variant and form.

    Args:
        folder: From ``build``.
        kind: ``onnx`` or ``tflite``.
        rounds: Turns over all files, each in an order of its own.
    """
    paths = {f"{form} {one.name}": _path(folder, one, form, kind) for one in variants() for form in FORMS}
    times: dict[str, list[float]] = {name: [] for name in paths}
    draw = random.Random(0)
    for _ in range(rounds):
        for name in draw.sample(sorted(paths), len(paths)):
            times[name].append(_round_ms(paths[name]))
    return {name: {"ms": min(found), "rounds": [round(ms, 6) for ms in found]} for name, found in times.items()}


def _path(folder: Path, variant: Variant, form: str, kind: str) -> Path:
    return folder / variant.family / variant.name / f"{form}.{kind}"


def _round_ms(path: Path) -> float:
    """Return the median of one session's calls; their number fills a round."""
    call = resolve(str(path), threads=1)
    call()
    times: list[int] = []
    until = time.perf_counter_ns() + int(1e9 * ROUND_SECONDS)
    while len(times) < FEWEST_CALLS or time.perf_counter_ns() < until:
        started = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - started)
    return statistics.median(times) / 1e6


def gathered(folder: Path, kind: str, times: Mapping[str, Mapping[str, Any]]) -> tuple[Measured, ...]:
    """Return the measurements of a runtime with the operators of each file."""
    return tuple(
        Measured(
            f"{form} {one.name}", one.family, _work(folder, one)[f"{form} {kind}"], times[f"{form} {one.name}"]["ms"]
        )
        for one in variants()
        for form in FORMS
    )


def _work(folder: Path, variant: Variant) -> dict[str, tuple[OperatorWork, ...]]:
    document = json.loads((folder / variant.family / variant.name / "work.json").read_text(encoding="utf-8"))
    return {name: operator_work.from_json(found) for name, found in document.items()}


def judged(measured: Sequence[Measured]) -> dict[str, Any]:
    """Return a predictor's cross-validated error, each idea's own, and every forecast of a family left out."""
    pairs = left_out(measured)
    found = learned(measured, IDEAS, judge(pairs))
    return {
        "variants": len(measured),
        "families": len(found.families),
        "idea": found.fit.idea,
        "ideas": {idea: judge(left_out(measured, ideas=(idea,))).to_json() for idea in IDEAS},
        **found.judged.to_json(),
        "points": [_point(one, forecast) for one, forecast in pairs],
        "predictor": found.to_json(),
    }


def _point(one: Measured, forecast: Forecast | None) -> dict[str, Any]:
    point: dict[str, Any] = {"name": one.name, "family": one.family, "ms": one.ms}
    if forecast is not None:
        point |= {"predicted": forecast.ms, "low": forecast.low}
        point |= {"high": forecast.high} if math.isfinite(forecast.high) else {}
    return point


def main(arguments: Sequence[str] | None = None) -> None:
    """Build and measure what is missing, learn, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.predictor", description=__doc__)
    parser.add_argument("--again", action="store_true", help="measure again")
    parser.add_argument("--build-only", action="store_true", help="write the files, measure nothing")
    parser.add_argument("--show", action="store_true", help="print what is there, run nothing")
    parser.add_argument("--board", type=Path, metavar="FILE", help="write the predictors there, for --predictor")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw predicted against measured there")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = Results("predictor", {kind: {"rounds": options.rounds, "code": _code()} for kind in RUNTIMES})
    if not options.show:
        folder = build()
        for kind in [] if options.build_only else RUNTIMES:
            if options.again:
                results.forget(kind, 0)
            results.once(kind, 0, lambda kind=kind: _row(folder, kind, options.rounds))  # type: ignore[misc]
    rows = {kind: results.entry(kind, 0) for kind in RUNTIMES}
    for line in lines(rows):
        print(line)
    if options.board:
        _board(rows).save(options.board)
    if options.pictures:
        for path in predictor_picture.write(rows, RUNTIMES, options.pictures):
            print(path)


def _board(rows: Mapping[str, Mapping[str, Any]]) -> Board:
    """Return the predictors of this machine, as ``strop bench predict learn`` would have learned them."""
    runtimes = {"onnx": "onnxruntime", "tflite": "litert"}
    found = {named(runtimes[kind], 1): Predictor.from_json(row["predictor"]) for kind, row in rows.items() if row}
    return Board(describe().processor, found)


def _row(folder: Path, kind: str, rounds: int) -> dict[str, Any]:
    times = measure(folder, kind, rounds)
    return {"times": times, **judged(gathered(folder, kind, times))}


def lines(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what was found as lines for people."""
    return [line for kind, row in found.items() for line in _lines(RUNTIMES[kind], row)] or ["nothing measured yet"]


def _lines(runtime: str, row: Mapping[str, Any]) -> Iterator[str]:
    if not row:
        return
    spread = statistics.median(statistics.median(one["rounds"]) / one["ms"] for one in row["times"].values())
    yield (
        f"{runtime}: {row['variants']} files of {row['families']} families, one family left out at a time; "
        f"median round {spread:.2f} of the least"
    )
    for idea, one in row["ideas"].items():
        yield f"  {idea:9} {_said(one)}"
    yield f"  the best of the three by the families that it knows ({row['idea']} with all): {_said(row)}"
    is_met = row["median"] <= GOALS["median"] and (row["coverage"] or 0) >= GOALS["coverage"]
    goals = f"median error {GOALS['median']:.0%}, coverage {GOALS['coverage']:.0%}"
    yield f"  goals: {goals}: {'met' if is_met else 'missed'}"


def _said(one: Mapping[str, Any]) -> str:
    covered = "no interval" if one["coverage"] is None else f"covers {one['coverage']:.1%}, {one['width']:.2f} wide"
    return f"median error {one['median']:.1%}, p90 {one['p90']:.1%}, 90 % interval {covered}, {one['refused']} refused"


if __name__ == "__main__":
    main()
