# SPDX-License-Identifier: Apache-2.0
"""Do our times agree with those of other loops around the same runtime? ``python -m benchmarks.harness.agreement``.

Blocks of runs of our loop and of another one take turns, A B B A, in one process. The others:

* ``benchmark_model`` style: LiteRT's ``invoke`` alone, the input written once;
* ``onnxruntime_perf_test`` style: ``run`` alone, inputs made once, outputs by the runtime;
* the runtime's own profiler: ``model_run`` of ONNX Runtime, ``Invoke`` of LiteRT. It notes every operator, which slows
  a file of many short ones, in whole microseconds: worth something from a millisecond on.

Printed is the median ratio ours / theirs with its 95 % interval over the rounds; the goal is 0.95 to 1.05.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import inputs
from benchmarks.harness.bare import Bare
from benchmarks.harness.marks import Marks, bare_step, timer_cost
from benchmarks.harness.opening import open_bare
from benchmarks.machine import describe
from benchmarks.plan import BenchPlan, plan_for
from benchmarks.quantiles import median, median_interval
from edge_contract.errors import StropError

__all__ = ["Agreement", "agree", "main"]

GOAL: Final = 0.05
_WARMUP: Final = 30
Block = Callable[[int], Sequence[float]]
"""Runs so many times and returns the nanoseconds of each."""


@dataclass(frozen=True)
class Agreement:
    """Our loop and another one.

    Attributes:
        other: Which.
        ratio, low, high: Median of ours / theirs over the rounds, and its 95 % interval.
        ours_us, theirs_us: Medians over all rounds.
        rounds, runs: So many rounds of so many runs of each.
    """

    other: str
    ratio: float
    low: float
    high: float
    ours_us: float
    theirs_us: float
    rounds: int
    runs: int

    @property
    def is_within(self) -> bool:
        """The interval lies within the goal."""
        return self.low >= 1 - GOAL and self.high <= 1 + GOAL


def agree(plan: BenchPlan, rounds: int = 20, runs: int = 200) -> list[Agreement]:
    """Compare our loop with every other one of the plan's runtime.

    Args:
        plan: Names file, runtime and threads.
        rounds: Pairs of blocks.
        runs: Of a block.

    Raises:
        StropError: What opening the file raises.
    """
    bare = open_bare(plan)
    feeds = inputs.feeds(plan, bare.inputs, inputs.described(plan))
    ours = _ours(bare, feeds)
    with tempfile.TemporaryDirectory(prefix="strop-bench-") as folder:
        others = {"onnxruntime": _onnx}.get(plan.runtime, _tflite)(plan, bare, feeds[0], Path(folder))
        gc.disable()
        try:
            return [_compared(name, ours, other, rounds, runs) for name, other in others.items()]
        finally:
            gc.enable()


def _ours(bare: Bare, feeds: Sequence[inputs.Feed]) -> Block:
    def block(runs: int) -> Sequence[float]:
        marks = Marks(("preprocess", "invoke", "postprocess"), runs)
        step = bare_step(marks, lambda which: bare.place(feeds[which]), bare.invoke, bare.fetch)
        for row in range(runs):
            step(row % len(feeds), row)
        return marks.stages_ns(runs)["invoke"]

    return block


def _plain(call: Callable[[], object]) -> Block:
    clock = time.perf_counter_ns

    def block(runs: int) -> Sequence[float]:
        found = []
        for _ in range(runs):
            start = clock()
            call()
            found.append(float(clock() - start))
        return found

    return block


def _tflite(plan: BenchPlan, bare: Bare, feed: inputs.Feed, folder: Path) -> dict[str, Block]:
    bare.place(feed)
    found = {"benchmark_model style": _plain(bare.invoke)}
    if plan.runtime == "litert":
        found["LiteRT's profiler"] = _litert_profiler(plan, feed)
    return found


def _litert_profiler(plan: BenchPlan, feed: inputs.Feed) -> Block:
    from benchmarks.ops.litert_c import DEFAULT, CompiledModel

    model = CompiledModel(Path(plan.artefact), plan.threads)
    for number, values in enumerate(feed):
        model.write(number, values.tobytes())

    def block(runs: int) -> Sequence[float]:
        found = []
        for _ in range(runs):
            model.start()
            model.run()
            whole = [one.elapsed_us for one in model.stop() if one.tag == "Invoke" and one.kind == DEFAULT]
            found.append(1000.0 * sum(whole))
        return found

    return block


def _onnx(plan: BenchPlan, bare: Bare, feed: inputs.Feed, folder: Path) -> dict[str, Block]:
    from benchmarks.harness.bare_onnx import profiled

    names = [one.name for one in bare.native.get_outputs()]
    arrays = {slot.name: array for slot, array in zip(bare.inputs, feed, strict=True)}

    def block(runs: int) -> Sequence[float]:
        # A profile can be ended once only, so each block has a session of its own; its first runs do not count.
        session = profiled(plan, "", str(folder / "profile"))
        first = min(_WARMUP, runs)
        for _ in range(first + runs):
            session.run(None, arrays)
        path = Path(session.end_profiling())
        events: list[dict[str, Any]] = json.loads(path.read_text())
        path.unlink()
        return [1000.0 * one["dur"] for one in events if one.get("name") == "model_run"][first:]

    return {
        "onnxruntime_perf_test style": _plain(lambda: bare.native.run(names, arrays)),
        "ONNX Runtime's profiler": block,
    }


def _compared(name: str, ours: Block, other: Block, rounds: int, runs: int) -> Agreement:
    """Let both take turns, A B B A, and compare the medians of each round."""
    ours(min(_WARMUP, runs))
    other(min(_WARMUP, runs))
    pairs = []
    for turn in range(rounds):
        if turn % 2:
            theirs, mine = median(other(runs)), median(ours(runs))
        else:
            mine, theirs = median(ours(runs)), median(other(runs))
        pairs.append((mine, theirs))
    found = median_interval([mine / max(theirs, 1.0) for mine, theirs in pairs])
    mine_us, theirs_us = (round(median([pair[side] for pair in pairs]) / 1000, 3) for side in (0, 1))
    ratio, low, high = (round(one, 4) for one in (found.point, found.low, found.high))
    return Agreement(name, ratio, low, high, mine_us, theirs_us, rounds, runs)


def _text(model: str, plan: BenchPlan, found: Sequence[Agreement], clock_ns: float) -> str:
    lines = [f"{model} in {plan.runtime}, {plan.threads} thread{'s' if plan.threads > 1 else ''}; {describe()}"]
    for one in found:
        verdict = "within 5 %" if one.is_within else "not shown to be within 5 %"
        lines.append(
            f"  {one.other}: ours / theirs {one.ratio:.3f} [{one.low:.3f}, {one.high:.3f}], {verdict}; "
            f"{one.ours_us:.1f} and {one.theirs_us:.1f} µs, {one.rounds} rounds of {one.runs} runs"
        )
    return "\n".join([*lines, f"  our clock adds {clock_ns:.0f} ns to each timed call (goal: 1000)"])


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, or the error's exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.harness.agreement", description="Compare our times with other loops, in turns."
    )
    parser.add_argument("models", nargs="+", help=".tflite, .onnx, or BUNDLE@RUNTIME")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        for model in options.models:
            plan = plan_for(model, threads=options.threads)
            found, clock_ns = agree(plan, options.rounds, options.runs), timer_cost()
            whole = {"model": model, "timer_ns": clock_ns, "machine": asdict(describe())}
            rows = [asdict(one) | {"is_within": one.is_within} for one in found]
            print(json.dumps({**whole, "others": rows}) if options.json else _text(model, plan, found, clock_ns))
    except StropError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
