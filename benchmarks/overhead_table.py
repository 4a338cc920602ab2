# SPDX-License-Identifier: Apache-2.0
"""``strop bench overhead``: the measurement in each runtime's own interpreter, and the table with the goals."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from edge_contract.errors import MeasurementError

__all__ = ["GOALS_US", "RUNTIMES", "SHARE", "collect", "held", "here", "to_text"]

RUNTIMES: Final = ("litert", "onnxruntime", "tflite-runtime")
GOALS_US: Final = {"plain": 20.0, "counted": 60.0}
SHARE: Final = 0.025
"""Of the bare runtime's time: where a large input or output alone costs more than the goals in microseconds."""
_NAMES: Final = {"plain": "answers", "counted": "answers, counted with input statistics"}
_TIMEOUT_S: Final = 900


def collect(bundle: Path, pythons: Mapping[str, str], pairs: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Measure a bundle in runtimes, one after the other; return the results, and runtime → why not.

    Args:
        bundle: A bundle's folder.
        pythons: Runtime → the interpreter that has it.
        pairs: Turns in each.

    Raises:
        MeasurementError: It could be measured in none of them.
    """
    found, missing = [], {}
    for runtime, python in pythons.items():
        words = [python, "-m", "benchmarks.overhead", str(bundle.resolve()), "--runtime", runtime, f"--pairs={pairs}"]
        root = Path(__file__).resolve().parents[1]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, cwd=root)
        except (OSError, subprocess.TimeoutExpired) as error:
            missing[runtime] = str(error)
            continue
        if done.returncode:
            missing[runtime] = (done.stderr.strip().splitlines() or ["it failed"])[-1].removeprefix("error: ")
        else:
            found.append(json.loads(done.stdout))
    if not found:
        reasons = "; ".join(f"{runtime}: {why}" for runtime, why in missing.items())
        raise MeasurementError(f"no runtime could be measured: {reasons}"[:500], where=str(bundle))
    return found, missing


def held(way: str, added: Mapping[str, Any]) -> bool:
    """Tell whether a goal is held: microseconds, or a share of the bare runtime.

    Example:
        >>> held("plain", {"median_us": 25.0, "share": 0.01}), held("plain", {"median_us": 25.0, "share": 0.1})
        (True, False)
    """
    return bool(added["median_us"] <= GOALS_US[way] or added["share"] <= SHARE)


def to_text(results: Sequence[Mapping[str, Any]], missing: Mapping[str, str]) -> str:
    """Return the table for people."""
    lines = []
    for found in results:
        title = f"{found['model']} in {found['runtime']} {found['version']}, {found['input']}, {found['pairs']} turns"
        lines += [title, f"  bare runtime {found['bare_us']:.1f} µs"]
        for way, name in _NAMES.items():
            added = found[way]
            interval = f"[{added['low_us']:.1f}, {added['high_us']:.1f}]"
            goal = f"goal ≤ {GOALS_US[way]:.0f} µs or {SHARE:.1%}: {'held' if held(way, added) else 'missed'}"
            lines.append(f"  {name}: + {added['median_us']:.1f} µs {interval}, {added['share']:.1%}; {goal}")
            own = f"p50 {added['own_p50_us']:.1f} µs, p99 {added['own_p99_us']:.1f} µs"
            lines.append(f"    mean + {added['mean_us']:.1f} µs; our code alone {own}")
    lines += [f"{runtime}: not measured: {why}" for runtime, why in missing.items()]
    machine = results[0]["machine"]
    lines.append(f"machine: {machine['processor']}, {machine['cores']} cores, load {machine['load_1min']:.1f}")
    return "\n".join(lines)


def here(tflite_python: str) -> dict[str, str]:
    """Return runtime → interpreter: this one, and for tflite-runtime one with numpy below 2."""
    found = dict.fromkeys(RUNTIMES, sys.executable)
    return {**found, "tflite-runtime": tflite_python or sys.executable}
