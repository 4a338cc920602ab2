# SPDX-License-Identifier: Apache-2.0
"""A profile is taken in a process of its own: profilers slow a session down for good, and LiteRT's is called by ctypes.

``python -m benchmarks.ops.running MODEL --threads N --runs N --drop N`` prints the profile as JSON.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.ops.profile import Profile
from edge_contract.errors import MeasurementError, MissingDependencyError, StropError, UsageError

__all__ = ["file_of", "main", "profile_of"]

_SUFFIXES: Final = (".onnx", ".tflite")


def profile_of(
    path: Path, *, threads: int = 1, runs: int = 100, drop: int = 10, provider: str = "cpu", python: str = ""
) -> Profile:
    """Profile a model file in a child process.

    Args:
        path: ``.onnx`` or ``.tflite``.
        threads: Of one inference.
        runs: Profiled runs that count, in turns with as many that are not profiled.
        drop: First turns that do not count.
        provider: Of ONNX Runtime, by its short name.
        python: An interpreter that has the runtime; default: this one.

    Raises:
        UsageError: Neither kind of file.
        MissingDependencyError: The runtime is not installed.
        MeasurementError: The runtime refuses the file, or the child died.
    """
    if path.suffix not in _SUFFIXES or not path.is_file():
        what = "no such file" if path.suffix in _SUFFIXES else "neither an .onnx nor a .tflite file"
        raise UsageError(what, where=str(path), fix="name a model file; a bundle holds model.onnx and model.tflite")
    words = [python or sys.executable, "-m", "benchmarks.ops.running", str(path.absolute())]
    words += [f"--threads={threads}", f"--runs={runs}", f"--drop={drop}", f"--provider={provider}"]
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).strip(":")}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    if done.returncode == 0:
        return Profile.from_json(json.loads(done.stdout.splitlines()[-1]), str(path))
    raise _refusal(done, path)


def file_of(model: Path) -> Path:
    """Return the model file that a person names: a file, or what ``strop bench run`` would measure of a bundle.

    Raises:
        UsageError: A bundle with more than one artefact, and no runtime named; the words list them.
    """
    if model.is_file() or model.suffix in _SUFFIXES:
        return model
    from benchmarks.plan import plan_for

    return Path(plan_for(model).artefact)


def _refusal(done: "subprocess.CompletedProcess[str]", path: Path) -> StropError:
    """Return the child's own words, or say that it died."""
    last = done.stderr.strip().splitlines()[-1:] or ["without a word"]
    if done.returncode == 3:
        return MissingDependencyError(last[0].removeprefix("error: "))
    if done.returncode == 1:
        return MeasurementError(last[0].removeprefix("error: "))
    how = f"by signal {-done.returncode}" if done.returncode < 0 else f"with {done.returncode}"
    return MeasurementError(f"the profiling process ended {how}: {last[0][:200]}", where=str(path))


def main(arguments: list[str] | None = None) -> int:
    """Run in this process; 0, 1 (refused) or 3 (not installed)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ops.running", description="Profile a model file.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--drop", type=int, default=10)
    parser.add_argument("--provider", default="cpu")
    options = parser.parse_args(arguments)
    try:
        print(json.dumps(_profile(options).to_json()))
    except StropError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3 if isinstance(error, MissingDependencyError) else 1
    return 0


def _profile(options: argparse.Namespace) -> Profile:
    words = {"threads": options.threads, "runs": options.runs, "drop": options.drop}
    if options.model.suffix == ".onnx":
        from benchmarks.ops import onnx_profile

        return onnx_profile.profile(options.model, provider=options.provider, **words)
    from benchmarks.ops import litert_profile

    return litert_profile.profile(options.model, **words)


if __name__ == "__main__":
    sys.exit(main())
