# SPDX-License-Identifier: Apache-2.0
"""The tools: where they are found, with which words they do what we do, how their answer is read.

The same file, the same number of threads, XNNPACK on as it is with us, random input, and no operator profiling: that
alone would slow ``benchmark_model`` and ``onnxruntime_perf_test`` down.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.crosscheck import outputs
from benchmarks.crosscheck.outputs import ToolTime
from edge_contract.errors import MeasurementError, UsageError

__all__ = ["TOOLS", "Tool", "find", "run"]

_TIMEOUT_S: Final = 600
Words = Callable[[str, Path, int, int], list[str]]


@dataclass(frozen=True)
class Tool:
    """One tool.

    Attributes:
        name: Of its program.
        suffix: Of the files that it runs.
        words: (program, file, threads, runs) → command line.
        read: Its output → time.
        source: Where it comes from, for a person who lacks it.
        is_default: Asked without being named.
    """

    name: str
    suffix: str
    words: Words
    read: Callable[[str], ToolTime]
    source: str
    is_default: bool = True


def _benchmark_model(program: str, model: Path, threads: int, runs: int) -> list[str]:
    warm = ["--warmup_runs=10", "--warmup_min_secs=0.5"]
    return [program, f"--graph={model}", f"--num_threads={threads}", f"--num_runs={runs}", *warm, "--use_xnnpack=true"]


def _perf_test(program: str, model: Path, threads: int, runs: int) -> list[str]:
    """``-I`` draws inputs (else it looks for test data beside the file); no result file, so statistics are printed."""
    quiet = ["-D"] if threads > 1 else []  # our pool does not spin either
    return [
        program,
        "-m",
        "times",
        "-r",
        str(runs),
        "-x",
        str(threads),
        "-y",
        "1",
        "-e",
        "cpu",
        "-I",
        *quiet,
        str(model),
    ]


def _litert_benchmark(program: str, model: Path, threads: int, runs: int) -> list[str]:
    return [program, f"--model={model}", f"--num_threads={threads}", f"--num_runs={runs}", "--warmup_runs=20"]


def _profiler(program: str, model: Path, threads: int, runs: int) -> list[str]:
    return [program, "-m", "benchmarks.ops.running", str(model), f"--threads={threads}", f"--runs={runs}"]


TOOLS: Final[tuple[Tool, ...]] = (
    Tool(
        "benchmark_model", ".tflite", _benchmark_model, outputs.benchmark_model,
        "built from LiteRT's sources: bazel build -c opt //tflite/tools/benchmark:benchmark_model",
    ),
    Tool(
        "litert-benchmark", ".tflite", _litert_benchmark, outputs.litert_benchmark,
        "comes with pip install 'ai-edge-litert>=2.3'",
    ),
    Tool(
        "onnxruntime_perf_test", ".onnx", _perf_test, outputs.perf_test,
        "built from ONNX Runtime's sources: ./build.sh --config Release --parallel",
    ),
    Tool("profiler", "", _profiler, outputs.profiler, "the runtime's own, by strop bench profile", is_default=False),
)  # fmt: skip


def find(name: str, given: Mapping[str, str]) -> str | None:
    """Return a tool's program: the given one, the one beside this Python, or on PATH; None if it is nowhere.

    Raises:
        UsageError: The given one is no program.
    """
    if name == "profiler":
        return sys.executable
    path = given.get(name)
    if path:
        if not (Path(path).is_file() and os.access(path, os.X_OK)):
            raise UsageError("no program", where=f"--tool {name}={path}", fix="give the path of the program itself")
        return str(Path(path).absolute())
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else shutil.which(name)


def run(tool: Tool, program: str, model: Path, *, threads: int, runs: int) -> ToolTime:
    """Run a tool once.

    Raises:
        MeasurementError: It failed, did not end, or printed what cannot be read.
    """
    words: Sequence[str] = tool.words(program, model.absolute(), threads, runs)
    environment = (
        {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))} if tool.name == "profiler" else None
    )
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env=environment)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MeasurementError(f"could not be run ({error})", where=tool.name) from error
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "without a word").splitlines()
        raise MeasurementError(f"ended with {done.returncode}: {lines[-1][:200]}", where=" ".join(words))
    return tool.read(f"{done.stdout}\n{done.stderr}" if tool.name != "profiler" else done.stdout)
