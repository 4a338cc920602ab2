# SPDX-License-Identifier: Apache-2.0
"""What a teacher gives a small student on Fashion-MNIST: ``python -m benchmarks.training.distillation``.

The teacher is the zoo's MobileNetV2-like checkpoint (70 666 parameters), the student has 12 970. Every row is one step
as a recipe would have it, trained on all 60 000 training images and read on the 10 000 test images after the last
epoch; settings were chosen on the last 5 000 training images. What was interrupted goes on where it stopped.
"""

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.training.common import Results, mean_interval, paired_interval
from benchmarks.training.fashion import flips, split
from compress import cost, evaluate
from compress.distill.remember import Remembering
from compress.distill.step import fit
from compress.recipe_table import Table
from compress.steps import Train, read_step
from compress.trainer import EpochLog
from tests.zoo import models

__all__ = ["ROWS", "main", "summarise", "train_row"]

BUILD: Final = Path(__file__).resolve().parents[2] / "build/training"
COMMON: Final = {"batch": 128, "learning_rate": 6e-3, "weight_decay": 0.02}
SOFT: Final = {"kind": "distill", "method": "soft-targets", "alpha": 1.0, "temperature": 2.0}
OURS: Final = {**SOFT, "init": "teacher"}
ROWS: Final[dict[str, dict[str, Any]]] = {
    "plain": {"kind": "train", "epochs": 5, "label_smoothing": 0.05, **COMMON},
    "usual KD": {"kind": "distill", "epochs": 5, "temperature": 4.0, "alpha": 0.7, **COMMON},
    "ours, drawn weights": {**SOFT, "epochs": 5, **COMMON},
    "ours": {**OURS, "epochs": 5, **COMMON},
    "ours, 4x": {**OURS, "epochs": 20, **COMMON},
}


def train_row(row: Mapping[str, Any], seed: int, teacher: Remembering, checkpoint: Path) -> dict[str, Any]:
    """Train a student from its own start as a row says, and return its accuracy on the test images in per cent."""
    step = read_step(Table(dict(row), "the benchmark's row"))
    assert isinstance(step, Train)  # the rows above hold no other kind
    torch.manual_seed(seed)
    student, test = models.student(), split("t10k")
    logs = fit(
        step,
        student,
        split("train"),
        seed=seed,
        teacher=teacher,
        augment=flips,
        checkpoint=checkpoint,
        progress=_tell,
    )
    hits = evaluate.hits(student, test.x, test.y)
    checkpoint.unlink(missing_ok=True)
    return {"accuracy": 100 * float(hits.mean()), "loss": logs[-1].loss}


def _tell(log: EpochLog) -> None:
    print(f"  epoch {log.epoch} of {log.epochs}: loss {log.loss:.4f}", flush=True)


def summarise(results: Results) -> dict[str, Any]:
    """Return for each finished row its mean accuracy, and its gain over ``plain`` seed by seed, with 95 % intervals."""
    plain, found = results.values("plain", "accuracy"), {}
    for row in results.settings:
        values = results.values(row, "accuracy")
        if values:
            found[row] = {"accuracy": mean_interval(list(values.values())).text(), "seeds": len(values)}
        if row != "plain" and values.keys() & plain.keys():
            found[row]["gain"] = paired_interval(plain, values).text("+.2f")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.distillation", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--show", action="store_true", help="print what is there, train nothing")
    parser.add_argument("--again", action="store_true", help="drop what is there of these rows and seeds first")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    student = cost.measure(models.student().eval(), torch.zeros(1, 1, 28, 28))
    results, teacher = Results("distillation", ROWS), Remembering(models.load("mobilenet-v2"))
    for row, seed in product(options.rows, options.seeds) if options.again else ():
        results.forget(row, seed)
    for row, seed in [] if options.show else results.missing(options.seeds):
        if row in options.rows:
            print(f"{row}, seed {seed}", flush=True)
            checkpoint = BUILD / f"{row.replace(', ', '-').replace(' ', '-')}-{seed}.pt"
            results.once(row, seed, partial(train_row, ROWS[row], seed, teacher, checkpoint))
            results.write({"student": {"parameters": student.parameters, "macs": student.macs}, **summarise(results)})
    _print(results, f"student of {student.parameters} parameters and {student.macs / 1e6:.3f} M MACs")


def _print(results: Results, title: str) -> None:
    print(f"\n{title}, % of 10 000 test images, mean over seeds [95 %]")
    for row, found in summarise(results).items():
        gain = found.get("gain", "–")
        print(f"{row:20} {ROWS[row]['epochs']:3} epochs {found['seeds']:2} seeds  {found['accuracy']:24} gain {gain}")


if __name__ == "__main__":
    main()
