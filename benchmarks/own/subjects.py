# SPDX-License-Identifier: Apache-2.0
"""The subjects: each is one launch in a process of its own that gives figures, each a few values; smaller is better.

``python -m benchmarks.own.subjects NAME FOLDER`` prints one JSON object. What they work on is made from seeds, so that
the figures of two days are of the same bytes: the small bundle of the tests, and files of random integers.
"""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import process_time_ns
from typing import Any, Final

import numpy as np

from edge_contract.errors import MeasurementError, StropError, UsageError

__all__ = ["SUBJECTS", "UNITS", "Figures", "agent", "delta", "drift", "footprint", "ingest", "main"]

Figures = dict[str, list[float]]
_ROOT: Final = Path(__file__).resolve().parents[2]
_OBSERVED: Final = 2000

UNITS: Final[Mapping[str, str]] = {
    "agent, litert: own time of an answer": "µs",
    "agent, litert: with input statistics": "µs",
    "agent, onnxruntime: own time of an answer": "µs",
    "agent, onnxruntime: with input statistics": "µs",
    "drift: one inference counted": "µs",
    "delta: patch of 2 MB made": "ms",
    "delta: patch of 2 MB applied, process and all": "ms",
    "delta: its bytes": "bytes",
    "ingest, sqlite: one batch": "µs",
    "ingest, sqlite: processor time of a batch": "µs",
    "footprint: control process": "MiB",
    "footprint: runner process": "MiB",
    "footprint: start until ready": "s",
}
"""Figure → unit, in the order of the table."""


def agent(folder: Path) -> Figures:
    """Time our own code around an answer, without and with input statistics, in both runtimes."""
    from benchmarks import overhead

    found: Figures = {}
    for runtime in ("litert", "onnxruntime"):
        seen = overhead.measure(_bundle(folder), runtime, pairs=300)
        found[f"agent, {runtime}: own time of an answer"] = [seen.plain.own_p50_us]
        found[f"agent, {runtime}: with input statistics"] = [seen.counted.own_p50_us]
    return found


def drift(folder: Path) -> Figures:
    """Time the counting of an inference for its window's summary: processor time, batches and all."""
    from edge_agent.runner.observe import Observer
    from edge_contract.profile import ReferenceProfile

    profile = ReferenceProfile.from_bytes((_bundle(folder) / "model.tflite.profile.json").read_bytes())
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 2, (64, len(profile.labels))).astype(np.float32)
    embedding = draw.normal(0, 2, (64, profile.projection.dimension)).astype(np.float32)
    raw = draw.integers(0, 256, (64, 28, 28), dtype=np.uint8)
    times = []
    for _ in range(7):
        observer, began = Observer(profile), process_time_ns()
        for i in range(_OBSERVED):
            observer.observe(logits[i % 64], embedding[i % 64], raw[i % 64], 900.0)
        observer.counters()
        times.append((process_time_ns() - began) / _OBSERVED / 1000)
    return {"drift: one inference counted": times[2:]}


def delta(folder: Path) -> Figures:
    """Make a patch of a file of 2 MB, and apply it in the device's helper."""
    words = [sys.executable, "-m", "benchmarks.peers.own_delta", str(folder)]
    return _told(subprocess.run(words, capture_output=True, text=True, check=False, cwd=_ROOT))


def ingest(folder: Path) -> Figures:
    """Take 2000 batches through broker and one worker into SQLite."""
    words = ["--turns=1", "--count=2000", "--devices=500", "--only=sqlite", "--workers=1", "--json"]
    command = [sys.executable, "-m", "benchmarks.fleet.ingest", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=_ROOT)
    ways = _told(done)["ways"]
    one: dict[str, Any] = next(way for name, way in ways.items() if name.startswith("sqlite"))
    return {
        "ingest, sqlite: one batch": [1e6 / one["rate"]],
        "ingest, sqlite: processor time of a batch": [float(one["receiver_us"])],
    }


def footprint(folder: Path) -> Figures:
    """Start an agent without a network on the bundle, and look at its memory for some seconds."""
    from benchmarks.footprint_agent import Plan, measure

    plan = Plan(_bundle(folder), is_offline=True, every_s=1.0, total_s=5.0, warmup_s=3.0)
    found = measure(plan, "python -m benchmarks.own_speed")
    names = {"control": "footprint: control process", "runner": "footprint: runner process"}
    kept = {names[role]: [one["pss_mib"]] for role, one in found["processes"].items() if role in names}
    return {**kept, "footprint: start until ready": [found["ready_s"]]}


SUBJECTS: Final[dict[str, Callable[[Path], Figures]]] = {
    "agent": agent, "drift": drift, "delta": delta, "ingest": ingest, "footprint": footprint,
}  # fmt: skip


def _bundle(folder: Path) -> Path:
    """Return the bundle of the tests, made from its seed where it is not there yet."""
    made = folder / "bundle"
    if not made.is_dir():
        importlib.import_module("tests.edge_agent.runner.bundles").build(made, profile=True)
    return made


def _told(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    if done.returncode:
        last = (done.stderr.strip() or "without a word").splitlines()[-1]
        raise MeasurementError(f"ended with {done.returncode}: {last[:200]}", where=" ".join(done.args[1:3]))
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run one subject once in this process; 0, or the error's exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if len(words) != 2 or words[0] not in SUBJECTS:
            raise UsageError("two words: a subject and a folder", where="own", fix=f"one of {', '.join(SUBJECTS)}")
        print(json.dumps(SUBJECTS[words[0]](Path(words[1]))))
    except StropError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
