# SPDX-License-Identifier: Apache-2.0
"""Our harness and a tool in turns: launch, tool, launch, tool …; the median of the ratios says whether they agree.

Each side is a process of its own each time. A tool that tells only an average is compared with our average. More than
ten per cent apart is a warning: one of the two runs other kernels, another number of threads or another build.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

from benchmarks.crosscheck.tools import TOOLS, Tool, find, run
from benchmarks.quantiles import median_interval
from edge_contract.errors import MeasurementError, StropError, UsageError

__all__ = ["LIMIT", "CrossCheck", "check", "ours", "to_text"]

LIMIT: Final = 0.10
Launcher = Callable[[Path, int, int], Sequence[int]]
"""(file, threads, runs) → nanoseconds of each run of one launch."""


@dataclass(frozen=True)
class CrossCheck:
    """One tool beside us.

    Attributes:
        tool: Its name.
        state: ``agrees``, ``differs``, ``absent`` or ``failed``.
        words: One sentence.
        program: Where it was found.
        statistic: What both sides tell.
        ours_us, theirs_us: Medians over the rounds.
        ratio, low, high: Theirs over ours: median over the rounds, and its 95 % interval (wider for few rounds).
        rounds: Turns.
    """

    tool: str
    state: str
    words: str
    program: str = ""
    statistic: str = ""
    ours_us: float = 0.0
    theirs_us: float = 0.0
    ratio: float = 0.0
    low: float = 0.0
    high: float = 0.0
    rounds: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        return asdict(self)


def check(
    model: Path,
    *,
    tools: Sequence[str] = (),
    given: Mapping[str, str] | None = None,
    threads: int = 1,
    rounds: int = 5,
    runs: int = 200,
    launcher: Launcher | None = None,
) -> list[CrossCheck]:
    """Compare our harness with every tool that runs this kind of file.

    Args:
        model: ``.onnx`` or ``.tflite``.
        tools: Names; empty: all that are asked by default.
        given: Name → program, instead of looking for it.
        threads: Of one inference.
        rounds: Turns of us and the tool.
        runs: In each launch.
        launcher: Another harness; default: ours.

    Raises:
        UsageError: No such file, an unknown tool, or one that does not run such files.
        MeasurementError: Our own launch failed.
    """
    if not model.is_file() or model.suffix not in (".onnx", ".tflite"):
        raise UsageError("no .onnx or .tflite file", where=str(model))
    launch, paths = launcher or ours, dict(given or {})
    chosen = _chosen(model, [*tools, *(name for name in paths if name not in tools)])
    return [_one(tool, model, (threads, rounds, runs), paths, launch) for tool in chosen]


def ours(model: Path, threads: int, runs: int) -> Sequence[int]:
    """Return the nanoseconds of one short launch of our harness on random input."""
    from benchmarks.harness import launch
    from benchmarks.plan import plan_for

    words = {"threads": threads, "input": "random", "launches": 1, "runs": runs, "seconds": 0.0}
    plan = plan_for(model, **words, warmup_s=0.5, warmup_cap_s=10.0, cooldown_s=0.0, governor="")
    return launch(plan).stages_ns["invoke"]


def _chosen(model: Path, names: Sequence[str]) -> list[Tool]:
    known = {tool.name: tool for tool in TOOLS}
    for name in names:
        if name not in known:
            raise UsageError(f"unknown tool '{name}'", where="crosscheck", fix=f"one of {', '.join(known)}")
        if known[name].suffix not in ("", model.suffix):
            raise UsageError(f"{name} runs {known[name].suffix} files", where=str(model), fix="leave it out")
    fits = [tool for tool in TOOLS if tool.suffix in ("", model.suffix)]
    return [tool for tool in fits if (tool.name in names if names else tool.is_default)]


def _one(
    tool: Tool, model: Path, sizes: tuple[int, int, int], given: Mapping[str, str], launch: Launcher
) -> CrossCheck:
    program = find(tool.name, given)
    if program is None:
        words = f"{tool.name} is not here: {tool.source}; then put it on PATH, or --tool {tool.name}=/path"
        return CrossCheck(tool.name, "absent", words)
    threads, rounds, runs = sizes
    pairs, statistic, step = [], "", 0.0
    for _ in range(rounds):
        times = launch(model, threads, runs)
        try:
            theirs = run(tool, program, model, threads=threads, runs=runs)
        except (MeasurementError, StropError) as error:
            return CrossCheck(tool.name, "failed", str(error), program)
        statistic, step = theirs.statistic, theirs.step_us
        middle = median(times) if statistic == "median" else fmean(times)
        pairs.append((middle / 1000, theirs.us))
    return _judged(tool, program, statistic, pairs, step)


def _judged(
    tool: Tool, program: str, statistic: str, pairs: Sequence[tuple[float, float]], step_us: float
) -> CrossCheck:
    mine, theirs = median(a for a, _ in pairs), median(b for _, b in pairs)
    found = median_interval([b / a for a, b in pairs])
    slack = LIMIT + step_us / 2 / mine  # what the tool's last digit hides
    agrees = abs(found.point - 1) <= slack
    slower = f"{abs(found.point - 1) * 100:.0f} % {'above' if found.point > 1 else 'below'} ours"
    words = f"{statistic} {theirs:.4g} µs, {slower} ({mine:.4g} µs)"
    if not agrees:
        words += ": same build, delegate and threads? see docs/benchmarking-ops.md"
    state = "agrees" if agrees else "differs"
    return CrossCheck(
        tool.name, state, words, program, statistic, mine, theirs, found.point, found.low, found.high, len(pairs)
    )


def to_text(found: Sequence[CrossCheck]) -> str:
    """Return one line for each tool."""
    width = max((len(one.tool) for one in found), default=0)
    lines = []
    for one in found:
        interval = f"  ratio {one.ratio:.3f} [{one.low:.3f}, {one.high:.3f}], {one.rounds} turns" if one.rounds else ""
        lines.append(f"{one.tool:<{width}}  {one.state:<7}  {one.words}{interval}")
    return "\n".join(lines)
