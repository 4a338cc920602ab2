# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.results_here``: measure the rows of benchmarks/results on this machine.

The models come from ``benchmarks.training.bench_models`` (made once, in build/bench); each is timed in both of its
runtimes, one thread, 10 launches of 200 runs on the test split's own images, and answers the whole test split in the
same runtime. Nothing else may run meanwhile: about seven minutes. ``--emulated`` runs the same files on emulated boards
instead, where only the answers count. Rows that are there are measured again and replaced.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.carrying import carry_out
from benchmarks.plan import BenchPlan, plan_for
from benchmarks.result import load, save
from benchmarks.result.build import as_correctness
from edge_contract.errors import MeasurementError

__all__ = ["BOARDS", "RESULTS", "ROWS", "emulated", "here", "main", "models"]

ROOT: Final = Path(__file__).parents[1]
MODELS: Final = ROOT / "build/bench"
RESULTS: Final = Path(__file__).parent / "results"
RUNTIMES: Final = ("litert", "onnxruntime")
BOARDS: Final = ("cortex-a53", "cortex-a72", "cortex-a76")
ROWS: Final[tuple[dict[str, Any], ...]] = (
    {"launches": 10, "runs": 200, "seconds": 0.0},
    {"launches": 10, "runs": 200, "seconds": 0.0, "mode": "realistic"},
)
TRIAL: Final[dict[str, Any]] = {"launches": 3, "runs": 50, "seconds": 0.0, "warmup_s": 0.2, "cooldown_s": 0.0}
ONCE: Final[dict[str, Any]] = {
    "launches": 1, "runs": 3, "seconds": 0.0, "warmup_s": 0.0, "warmup_runs": 1, "warmup_cap_s": 0.0,
    "cooldown_s": 0.0, "timeout_s": 600.0,
}  # fmt: skip


def models(folder: Path = MODELS) -> list[Path]:
    """Return the bundles; make them first where they are missing.

    Raises:
        MeasurementError: They cannot be made, such as without torch or without the data set.
    """
    words = [sys.executable, "-W", "ignore", "-m", "benchmarks.training.bench_models", str(folder)]
    done = subprocess.run(words, cwd=ROOT, check=False)
    found = sorted(path.parent for path in folder.glob("*/manifest.json"))
    if done.returncode or not found:
        fix = "run it where training works: make venv, apt-get install dataset-fashion-mnist"
        raise MeasurementError("the models could not be made", where=" ".join(words[1:]), fix=fix)
    return found


def here(bundles: Sequence[Path], data: Path, out: Path, rows: Sequence[dict[str, Any]] = ROWS) -> list[Path]:
    """Measure every bundle in every runtime and return the results' files."""
    written = []
    for bundle in bundles:
        for runtime in RUNTIMES:
            for row in rows:
                plan = plan_for(bundle, runtime=runtime, data=str(data), threads=1, **row)
                print(f"{bundle.name}: {plan.configuration}", flush=True)
                measurement, result = carry_out(plan, progress=lambda line: print(f"  {line}", flush=True))
                written.append(save(result, measurement, out))
                print(f"  {result.status}: {written[-1].name}", flush=True)
    return written


def emulated(bundles: Sequence[Path], data: Path, out: Path, boards: Sequence[str] = BOARDS) -> list[Path]:
    """Run every bundle on emulated boards, as a device runs a job, and keep what can be said of the answers.

    Golden inputs must give the bundle's answers, and the labelled samples are answered in the board's own runtime.

    Raises:
        MeasurementError: There are no emulated boards here, or a job failed on one.
    """
    written = []
    for bundle in bundles:
        for runtime in RUNTIMES:
            plan = plan_for(bundle, runtime=runtime, data=str(data), threads=1, **ONCE)
            for board in boards:
                print(f"{bundle.name}: {runtime} on an emulated {board}", flush=True)
                written.append(_on_emulated(board, plan, out))
    return written


def _on_emulated(board: str, plan: BenchPlan, out: Path) -> Path:
    python = ROOT / f".arm64/python-{board}"
    if not python.exists():
        raise MeasurementError("no emulated board", where=str(python), fix="make machines")
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job.json"
        job.write_text(json.dumps(plan.to_json()), "utf-8")
        words = [str(python), "-m", "benchmarks.on_device", str(job), folder]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            tail = (done.stderr.strip().splitlines() or ["saying nothing"])[-1]
            raise MeasurementError(f"exit code {done.returncode}: {tail[:300]}", where=f"emulated {board}")
        result = as_correctness(load(Path(folder) / "result.json"), board)
    return save(result, None, out)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results_here", description=__doc__)
    parser.add_argument("--emulated", action="store_true", help="on emulated boards: answers only")
    parser.add_argument("--trial", action="store_true", help="3 launches of 50 runs: to see that it works")
    parser.add_argument("--only", default="", help="bundles whose name contains this")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results")
    words = parser.parse_args(arguments)
    bundles = [one for one in models() if words.only in one.name]
    if words.emulated:
        written = emulated(bundles, MODELS / "fashion-test-250.npz", words.out)
    else:
        written = here(bundles, MODELS / "fashion-test.npz", words.out, [TRIAL] if words.trial else ROWS)
    print(f"{len(written)} results in {words.out}; then: python -m benchmarks.results_page")
    return 0


if __name__ == "__main__":
    sys.exit(main())
