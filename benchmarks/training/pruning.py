# SPDX-License-Identifier: Apache-2.0
"""Half of the MACs gone, and what is left of accuracy and time: ``python -m benchmarks.training.pruning``.

The network is the zoo's MobileNetV2-like checkpoint, which is also the teacher. Our rows are one ``prune`` step as a
recipe would have it; the others are torch-pruning's own pruner, with the same epochs and checkpoint. All train
on the 60 000 training images and are read on the 10 000 test images after the last epoch; settings were chosen on the
last 5 000 training images. Speed is ONNX Runtime's in float32, one thread, timed call by call in turns with the whole
network.
"""

import argparse
import copy
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from benchmarks.peers import speed
from benchmarks.training.common import RESULTS, Results, mean_interval
from benchmarks.training.fashion import flips, split
from benchmarks.training.ort_stopwatch import OrtStopwatch, write_float
from benchmarks.training.torch_pruning import TorchPruning
from compress import cost, evaluate
from compress.fine_tune import fine_tune
from compress.latency import LatencyTable
from compress.prune.step import cut, totals
from compress.recipe_table import Table
from compress.sources import Tensors
from compress.steps.prune import Prune, read_prune, stages
from compress.stopwatch import build
from compress.trainer import EpochLog
from tests.zoo import models

__all__ = ["ROWS", "main", "run_row", "summarise"]

BUILD: Final = Path(__file__).resolve().parents[2] / "build/training"
TABLE: Final = RESULTS / "mobilenet-v2-onnxruntime.latency.json"
NET: Final = "mobilenet-v2"
CALLS: Final = 3000
COMMON: Final = {"batch": 128, "weight_decay": 0.02}
PEER: Final = {"learning_rate": 2e-3, **COMMON}
KD: Final = {"distill": True, "temperature": 4.0, "alpha": 0.7}
PLAIN: Final = {"distill": False, "label_smoothing": 0.05}
OURS: Final = {
    "method": "hessian",
    "scope": "saving",
    "stages": 8,
    "round_to": 8,
    "temperature": 2.0,
    "alpha": 1.0,
    "learning_rate": 6e-3,
    **COMMON,
}
ROWS: Final[dict[str, dict[str, Any]]] = {
    "ours, 2 epochs": {**OURS, "target": {"macs": 0.5, "latency": 0.58}, "table": TABLE.name, "epochs": 2},
    "torch-pruning magnitude": {"peer": "magnitude", **PEER, **PLAIN, "epochs": 2},
    "torch-pruning magnitude + KD": {"peer": "magnitude", **PEER, **KD, "epochs": 2},
    "torch-pruning Taylor": {"peer": "taylor", **PEER, **PLAIN, "epochs": 2},
    "torch-pruning Taylor + KD": {"peer": "taylor", **PEER, **KD, "epochs": 2},
    "ours, 10 epochs": {**OURS, "target": {"macs": 0.5, "latency": 0.58}, "table": TABLE.name, "epochs": 10},
}


def _latency_table() -> LatencyTable:
    """Return the committed table; measure it where there is none."""
    if not TABLE.exists():
        stopwatch = OrtStopwatch(BUILD)
        table = build(models.load(NET), _example(), stopwatch, about=stopwatch.about, progress=_points)
        table.save(TABLE)
    return LatencyTable.load(TABLE)


def _example() -> Tensor:
    return torch.zeros(1, 1, 28, 28)


def _points(done: int, of: int) -> None:
    print(f"\r  latency table: {done} of {of}", end="" if done < of else "\n", flush=True)


def _step_of(row: Mapping[str, Any]) -> Prune:
    """Return the recipe's step of a row; of a peer's row, its fine-tuning."""
    words = {key: value for key, value in row.items() if key != "peer"}
    return read_prune(Table({"target": {"macs": 0.5}, **words}, "the benchmark's row"))


def _pruned(row: Mapping[str, Any], step: Prune, net: nn.Module, data: Tensors) -> None:
    """Cut a network in place as the row says."""
    if "peer" in row:
        TorchPruning(row["peer"]).halve(net, data)
        return
    table = _latency_table() if step.table else None
    full = totals(step, net, data.x[:1], table=table)
    for stage in stages(step):
        cut(stage, net, data, full=full, table=table)


def run_row(name: str, seed: int) -> dict[str, Any]:
    """Prune and fine-tune as a row says, and return its accuracies in per cent, its costs and its speed."""
    row, data, test = ROWS[name], split("train"), split("t10k")
    step, net, teacher = _step_of(row), models.load(NET), models.load(NET)
    full = cost.measure(net, _example())
    _pruned(row, step, net, data)
    found = cost.measure(net, _example())
    raw = _accuracy(net, test)
    checkpoint = BUILD / f"pruning-{name.replace(' ', '-').replace(',', '')}-{seed}.pt"
    fine_tune(
        stages(step)[-1], net, data, seed=seed, teacher=teacher, augment=flips, checkpoint=checkpoint, progress=_tell
    )
    accuracy = _accuracy(net, test)
    checkpoint.unlink(missing_ok=True)
    shares = {"macs": found.macs / full.macs, "parameters": found.parameters / full.parameters}
    return {"accuracy": accuracy, "raw": raw, **shares, **_faster(net, test)}


def _tell(log: EpochLog) -> None:
    print(f"  epoch {log.epoch} of {log.epochs}: loss {log.loss:.4f}", flush=True)


def _accuracy(net: nn.Module, test: Tensors) -> float:
    return 100 * float(evaluate.hits(copy.deepcopy(net).eval(), test.x, test.y).mean())


def _faster(net: nn.Module, test: Tensors) -> dict[str, Any]:
    """Return by which factor a network is faster than the whole one in ONNX Runtime, with the interval of the ratio."""
    paths = [
        write_float(one, _example(), BUILD / name)
        for one, name in ((models.load(NET), "whole.onnx"), (net, "cut.onnx"))
    ]
    found = speed.files(paths[0], paths[1], test.x[:64].numpy(), CALLS)
    return {"speedup": found["ratio"], "speed": found}


def summarise(results: Results) -> dict[str, Any]:
    """Return each finished row's means over seeds with 95 % intervals."""
    found: dict[str, Any] = {}
    for row in results.settings:
        seeds = results.values(row, "accuracy")
        if seeds:
            texts = {key: mean_interval(list(results.values(row, key).values())).text() for key in ("accuracy", "raw")}
            means = {key: _mean(results, row, key) for key in ("macs", "parameters", "speedup")}
            found[row] = {**texts, **means, "seeds": len(seeds)}
    return found


def _mean(results: Results, row: str, key: str) -> float:
    return mean_interval(list(results.values(row, key).values())).mean


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.pruning", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--show", action="store_true", help="print what is there, train nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    BUILD.mkdir(parents=True, exist_ok=True)
    results = Results("pruning", ROWS)
    for row, seed in [] if options.show else results.missing(options.seeds):
        if row in options.rows:
            print(f"{row}, seed {seed}", flush=True)
            results.once(row, seed, partial(run_row, row, seed))
            results.write(summarise(results))
    _print(results)


def _print(results: Results) -> None:
    print("\nMobileNetV2-like, teacher 92.90 %, % of 10 000 test images, mean over seeds [95 %]")
    for row, found in summarise(results).items():
        print(
            f"{row:29} {found['seeds']} seeds  raw {found['raw']:22} tuned {found['accuracy']:22} "
            f"MACs {found['macs']:.1%}  parameters {found['parameters']:.1%}  {found['speedup']:.2f}x"
        )


if __name__ == "__main__":
    main()
