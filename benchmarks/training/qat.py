# SPDX-License-Identifier: Apache-2.0
"""What quantization-aware training gains over calibration on Fashion-MNIST: ``python -m benchmarks.training.qat``.

Every row starts from a committed checkpoint and the plan that 256 calibration images decide; training draws its images
from the first 55 000 of the training split, and the last 5 000 judge whether it helped. Both plans are then read on the
10 000 test images in their exact integers. Rows with 4 bits have weights in -7..7 in all layers but the first and the
last. The settings were chosen on the last 5 000 training images. What was interrupted goes on where it stopped.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.training.common import Results, mean_interval
from benchmarks.training.fashion import flips, split
from compress.distill.soft_targets import combined
from compress.evaluate import paired_difference, predict
from compress.quantize import integer
from compress.quantize.calibrate import Observed, calibrate
from compress.quantize.decide import decide
from compress.quantize.gates import open_gates
from compress.quantize.graph import FloatGraph
from compress.quantize.ladder import divergence
from compress.quantize.plan import QuantizationPlan
from compress.quantize.qat import ALPHA, TEMPERATURE, TRAINING, learn
from compress.quantize.qat_module import FloatNetwork
from compress.quantize.step import folded
from compress.sources import Tensors
from compress.steps.quantize import Settings
from compress.trainer import EpochLog
from tests.zoo import data, models

__all__ = ["ROWS", "main", "narrowed", "train_row"]

BUILD: Final = Path(__file__).resolve().parents[2] / "build/training"
VALIDATION: Final = 5000
COMMON: Final = {
    "images": 20_000,
    "epochs": TRAINING.epochs,
    "batch": TRAINING.batch,
    "observer": Settings().observer,
}
EIGHT: Final = {**COMMON, "bits": 8, "learning_rate": TRAINING.learning_rate}
FOUR: Final = {**COMMON, "bits": 4, "learning_rate": 3e-4}
ROWS: Final[dict[str, dict[str, Any]]] = {
    "mobilenet-v2": {"member": "mobilenet-v2", **EIGHT},
    "mobilenet-v3": {"member": "mobilenet-v3", **EIGHT},
    "mobilenet-v2, 4 bits": {"member": "mobilenet-v2", **FOUR},
    "mobilenet-v3, 4 bits": {"member": "mobilenet-v3", **FOUR},
}
Decide = Callable[..., QuantizationPlan]


@dataclass(frozen=True, eq=False)
class _Start:
    """A network before training: its float graph, what calibration saw, and the plan that follows."""

    graph: FloatGraph
    observed: Observed
    plan: QuantizationPlan
    decide: Decide


def narrowed(graph: FloatGraph) -> FloatGraph:
    """Return the graph with 4-bit weights in all layers but the first and the last."""
    inner = {op.output for op in [op for op in graph.operations if op.kind in ("conv2d", "linear")][1:-1]}
    operations = (replace(op, weight_bits=4) if op.output in inner else op for op in graph.operations)
    return replace(graph, operations=tuple(operations))


def _start_of(member: str, bits: int) -> _Start:
    """Return the plan of calibration, and what it was decided from."""
    samples = data.calibration(256)
    with torch.no_grad():
        graph = open_gates(folded(models.load(member), samples[:1]))
        graph = narrowed(graph) if bits == 4 else graph
        observed = calibrate(graph, samples)
    decided = partial(decide, samples=len(samples), embedding=True, tie_free=True, fixed_point=True)
    plan = decided(graph, observed, correct_bias=True)
    return _Start(graph, observed, plan, partial(decided, correct_bias=False))


def train_row(row: dict[str, Any], seed: int, checkpoint: Path) -> dict[str, Any]:
    """Train as a row says and return what both plans reach on the test images."""
    start, whole = _start_of(row["member"], row["bits"]), split("train")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(whole) - VALIDATION, generator=generator)[: row["images"]]
    settings = {name: row[name] for name in ("epochs", "batch", "learning_rate")}
    began = time.perf_counter(), time.process_time()
    plan = learn(
        start.graph,
        start.observed,
        start.plan,
        Tensors(whole.x[chosen], whole.y[chosen]),
        Tensors(whole.x[-VALIDATION:], whole.y[-VALIDATION:]),
        decide=start.decide,
        loss=combined(FloatNetwork(start.graph), temperature=TEMPERATURE, alpha=ALPHA),
        training=replace(TRAINING, seed=seed, **settings),
        augment=flips,
        checkpoint=checkpoint,
        progress=_tell,
    )
    spent = {"seconds": time.perf_counter() - began[0], "cpu_seconds": time.process_time() - began[1]}
    found = _compared(start, plan, split("t10k"))
    checkpoint.unlink(missing_ok=True)
    return {**found, **spent, "note": plan.notes[-1]}


def _compared(start: _Start, plan: QuantizationPlan, test: Tensors) -> dict[str, Any]:
    """Return accuracies in per cent, drops from the float network, and distances from its answers."""
    target = predict(FloatNetwork(start.graph), test.x)
    before, after = (torch.from_numpy(integer.predict(one, test.x)) for one in (start.plan, plan))
    hits = [(logits.argmax(1) == test.y).numpy() for logits in (target, before, after)]
    return {
        "float": 100 * float(hits[0].mean()),
        "ptq": 100 * float(hits[1].mean()),
        "qat": 100 * float(hits[2].mean()),
        "ptq_drop": paired_difference(hits[1], hits[0]).to_json(),
        "qat_drop": paired_difference(hits[2], hits[0]).to_json(),
        "gain": paired_difference(hits[1], hits[2]).to_json(),
        "ptq_kl": divergence(target, before),
        "qat_kl": divergence(target, after),
    }


def _tell(log: EpochLog) -> None:
    print(f"  epoch {log.epoch} of {log.epochs}: loss {log.loss:.5f}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.qat", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--show", action="store_true", help="print what is there, train nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = Results("qat", ROWS)
    for row, seed in [] if options.show else results.missing(options.seeds):
        if row in options.rows:
            print(f"{row}, seed {seed}", flush=True)
            checkpoint = BUILD / f"qat-{row.replace(', ', '-').replace(' ', '-')}-{seed}.pt"
            results.once(row, seed, partial(train_row, ROWS[row], seed, checkpoint))
    _print(results, options.seeds)


def _print(results: Results, seeds: Sequence[int]) -> None:
    print("\n% of 10 000 test images; drop = float - int8 in points, paired 95 % interval; KL to float")
    for row in ROWS:
        for seed in seeds:
            if (row, seed) not in results.missing([seed]):
                print(f"{row:21} seed {seed}  {_line(results.once(row, seed, dict))}")
        kl = list(results.values(row, "qat_kl").values())
        if len(kl) > 1:
            print(f"{row:21} KL over {len(kl)} seeds {mean_interval(kl).text('.5f')}")


def _line(v: dict[str, Any]) -> str:
    drops = [f"{d['points']:+.2f} [{d['low']:+.2f}, {d['high']:+.2f}]" for d in (v["ptq_drop"], v["qat_drop"])]
    ptq = f"PTQ {v['ptq']:.2f} drop {drops[0]} KL {v['ptq_kl']:.5f}"
    return f"float {v['float']:.2f}  {ptq}  QAT {v['qat']:.2f} drop {drops[1]} KL {v['qat_kl']:.5f}"


if __name__ == "__main__":
    main()
