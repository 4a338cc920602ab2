# SPDX-License-Identifier: Apache-2.0
"""Prune, distil and integers together, against the network that went in: ``python -m benchmarks.training.combined``.

The recipe is ``examples/fashion/fashion.toml``, run as ``strop compress run`` runs it. Accuracy is that of the test
split, which nothing trained, calibrated or chose on; size is that of the files; time is one inference on one thread,
call by call in turns, in each runtime and then between the fastest float and the fastest integer file of both runtimes.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers import speed
from benchmarks.training.common import Results
from compress import evaluate, pipeline, recipe, sources
from compress.compressed import CompressedModel
from compress.quantize.step import folded
from compress.report_parts import ModelRow, unpack
from export.onnx import float_writer as float_onnx
from export.onnx import writer as onnx
from export.tflite import float_writer as float_tflite
from export.tflite import writer as tflite

__all__ = ["RECIPE", "lines", "main", "measure"]

ROOT: Final = Path(__file__).resolve().parents[2]
BUILD: Final = ROOT / "build/training/combined"
RECIPE: Final = ROOT / "examples/fashion/fashion.toml"
ROW: Final = "fashion"
CALLS: Final = 3000
RUNTIMES: Final = {"onnx": "ONNX Runtime", "tflite": "LiteRT"}


def _settings() -> dict[str, dict[str, Any]]:
    return {ROW: {"recipe": RECIPE.relative_to(ROOT).as_posix(), "digest": recipe.load(RECIPE).digest, "calls": CALLS}}


def _files(read: recipe.Recipe, made: CompressedModel, folder: Path) -> dict[str, Path]:
    """Write what went in, in float, and what came out, in integers, for both runtimes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {f"{form} {kind}": folder / f"{form}.{kind}" for form in ("float", "int8") for kind in RUNTIMES}
    graph = folded(sources.load_model(read).eval(), torch.zeros(1, *made.input_shape))
    float_onnx.write(graph, paths["float onnx"], embedding=False)
    float_tflite.write(graph, paths["float tflite"], embedding=False)
    assert made.plan is not None, "the recipe ends in integers"
    onnx.write(made.plan, paths["int8 onnx"])
    tflite.write(made.plan, paths["int8 tflite"])
    return paths


def _times(paths: dict[str, Path], inputs: NDArray[np.float32]) -> dict[str, Any]:
    """Time float against integers in each runtime, and the best of both."""
    found: dict[str, Any] = {}
    for kind in RUNTIMES:
        found[f"A/A {kind}"] = speed.aa(paths[f"float {kind}"], inputs, CALLS)
        found[kind] = speed.files(paths[f"float {kind}"], paths[f"int8 {kind}"], inputs, CALLS)
    slow, fast = (min(RUNTIMES, key=lambda kind: found[kind][side]) for side in ("a_us", "b_us"))
    a, b = paths[f"float {slow}"], paths[f"int8 {fast}"]
    best = asdict(speed.turns(lambda: speed.opened(a, inputs), lambda: speed.opened(b, inputs), CALLS))
    return {**found, "best": {"float": slow, "int8": fast, **best}}


def _hits(row: ModelRow) -> NDArray[np.bool_]:
    hits = unpack(row.hits, row.score.samples)
    assert hits is not None, "only reports of schema 1 have none"
    return hits


def measure() -> dict[str, Any]:
    """Run the recipe, or go on with it, and return accuracies in per cent, bytes and times."""
    read = recipe.load(RECIPE)
    made = pipeline.run(read, BUILD / "work")
    paths = _files(read, made, BUILD)
    generator = np.random.default_rng(0)
    times = _times(paths, generator.random((64, *made.input_shape), np.float32))
    rows = {row.name: row for row in made.report.test}
    before, after = rows["teacher"], rows["int8"]  # the teacher is the network as it went in
    change = evaluate.paired_difference(_hits(before), _hits(after))
    return {
        "before": before.score.to_json(),
        "after": after.score.to_json(),
        "change": change.to_json(),
        "macs": after.macs / before.macs,
        "parameters": after.parameters / before.parameters,
        "bytes": {name: path.stat().st_size for name, path in paths.items()},
        "times": times,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, then print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.combined", description=__doc__)
    parser.add_argument("--again", action="store_true", help="time it again, from the finished run")
    parser.add_argument("--show", action="store_true", help="print what is there, run nothing")
    options = parser.parse_args(arguments)
    results, seed = Results("combined", _settings()), recipe.load(RECIPE).seed
    if options.again:
        results.forget(ROW, seed)
    if not options.show:
        results.once(ROW, seed, measure)
    for line in lines(results.entry(ROW, seed)):
        print(line)


def lines(found: dict[str, Any]) -> list[str]:
    """Return what was found as lines for people."""
    if not found:
        return ["nothing measured yet"]
    best, size = found["times"]["best"], found["bytes"]
    shares = (f"{RUNTIMES[kind]} file 1/{size[f'float {kind}'] / size[f'int8 {kind}']:.1f}" for kind in RUNTIMES)
    before, after, change = (found[key] for key in ("before", "after", "change"))
    fastest = f"fastest float ({RUNTIMES[best['float']]}) → fastest int8 ({RUNTIMES[best['int8']]})"
    accuracies = " → ".join(f"{100 * one['accuracy']:.2f} %" for one in (before, after))
    return [
        f"{accuracies} of {after['samples']} test images",
        f"change {change['points']:+.2f} points [{change['low']:+.2f}, {change['high']:+.2f}]",
        f"{found['macs']:.0%} of the MACs, {found['parameters']:.0%} of the parameters; {', '.join(shares)}",
        *(
            f"{name}: {found['times'][kind]['a_us']:.0f} → {found['times'][kind]['b_us']:.0f} µs, "
            f"{1 / found['times'][kind]['ratio']:.2f} of the time (A/A {found['times'][f'A/A {kind}']['ratio']:.2f})"
            for kind, name in RUNTIMES.items()
        ),
        f"{fastest}: {1 / best['ratio']:.2f} of the time",
    ]


if __name__ == "__main__":
    main()
