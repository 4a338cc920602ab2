# SPDX-License-Identifier: Apache-2.0
"""The models of the story: a teacher, a student without it, two versions by recipe, and a bad third one.

Everything lands in one folder: ``teacher.pt``, ``baseline.pt``, and ``v1``, ``v2``, ``v3`` as compressed models.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from compress import cost, evaluate, recipe
from compress import report_files as reports
from compress.checkpoint import read_checkpoint, write_checkpoint
from compress.compressed import CompressedModel, load
from compress.quantize.plan import QuantizationPlan
from compress.report import ModelRow
from compress.sources import Tensors, tensors
from compress.threads import threads
from compress.trainer import Augment, EpochLog, Training, train
from edge_contract import canonical
from examples.digits import data, model

__all__ = ["Row", "mislabel", "render", "table", "train_baseline", "train_teacher"]

HERE: Final = Path(__file__).resolve().parent
RECIPES: Final = {"v1": HERE / "digits.toml", "v2": HERE / "digits-v2.toml"}
TEACHER: Final = Training(epochs=18, batch=32, learning_rate=5e-3, weight_decay=1e-2, ema=0.995)
BASELINE: Final = Training(epochs=20, learning_rate=8e-3)


@dataclass(frozen=True)
class Row:
    """One line of the story's table, measured on the test split."""

    name: str
    score: evaluate.Score
    macs: int
    parameters: int
    size_kb: float

    def to_json(self) -> dict[str, Any]:
        cost = {"macs": self.macs, "parameters": self.parameters, "size_kb": self.size_kb}
        return {"name": self.name, **self.score.to_json(), **cost}


def _split(name: str) -> Tensors:
    """Return a split as the recipes preprocess it."""
    return tensors(recipe.load(RECIPES["v1"]), getattr(data.load(), name))


def train_teacher(folder: Path, console: Console) -> nn.Module:
    """Train the teacher with light distortions, or take the one in the folder; its weights are ``teacher.pt``."""
    return _trained(folder / "teacher.pt", model.teacher, TEACHER, data.augment, console)


def train_baseline(folder: Path, console: Console) -> nn.Module:
    """Train a network of the student's final size on the labelled images alone, without a teacher: ``baseline.pt``.

    The teacher also answers for distorted copies of the images; docs/recipe.md says how much of the gain that is.
    """
    return _trained(folder / "baseline.pt", model.small, BASELINE, None, console)


def _trained(
    path: Path, factory: Callable[[], nn.Module], training: Training, augment: Augment | None, console: Console
) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        net = factory()
    key = canonical.digest(f"{path.stem} {training} {data.SIZES} {data.SEED} {len(list(net.parameters()))}".encode())
    kept = read_checkpoint(path, key)
    if kept is not None:
        net.load_state_dict(kept["model"])
        return net.eval()
    samples = _split("train")
    with console.status(f"{path.stem}: epoch 0 of {training.epochs}") as status:

        def progress(log: EpochLog) -> None:
            status.update(f"{path.stem}: epoch {log.epoch} of {log.epochs}, loss {log.loss:.3f}")

        checkpoint = path.with_suffix(".training.pt")
        with threads(1):  # as in the recipes
            train(net, samples.x, samples.y, training, augment=augment, checkpoint=checkpoint, progress=progress)
    write_checkpoint(path, key, {"model": net.state_dict()})
    checkpoint.unlink()
    return net


def table(folder: Path) -> list[Row]:
    """Return teacher, student without distillation, and float and int8 of each version that is there.

    The rows of recipes are what each run read from the test split once, at its end.
    """
    console = Console(stderr=True, quiet=True)
    test = _split("test")
    rows = [
        _row("teacher", train_teacher(folder, console), test),
        _row("student without distillation", train_baseline(folder, console), test),
    ]
    for version in RECIPES:
        if (folder / version).is_dir():
            report = reports.read(folder / version)
            rows += [_renamed(row, version) for row in report.test if row.name != "teacher"]
    return rows


def _row(name: str, net: nn.Module, test: Tensors) -> Row:
    right = evaluate.hits(net, test.x, test.y)
    found = cost.measure(net, test.x[:1])
    size_kb = cost.weight_bytes(net) / 1000
    return Row(name, evaluate.score(int(right.sum()), right.size), found.macs, found.parameters, size_kb)


def _renamed(row: ModelRow, version: str) -> Row:
    name = f"int8 {version}" if row.name == "int8" else f"student {version}"
    return Row(name, row.score, row.macs, row.parameters, row.size_kb)


def render(rows: list[Row]) -> Table:
    """Return the rows as a table for a terminal."""
    found = Table("model")
    for head in ("KB of weights", "kMACs", "parameters", "test top-1 [95 %]"):
        found.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        cells = f"{row.size_kb:.1f}", f"{row.macs / 1e3:.0f}", str(row.parameters), str(row.score)
        found.add_row(row.name, *cells)
    return found


def mislabel(source: Path, target: Path) -> CompressedModel:
    """Write a copy of a compressed model that answers one class too high: the accident of a shifted label file.

    The file is well formed, runs as fast and is as sure of itself; only what it says is wrong.

    Args:
        source: Folder of a good model with a plan.
        target: Folder of the bad one.
    """
    good = load(source)
    with torch.no_grad():
        head = [parameter for parameter in good.model.parameters() if parameter.shape[:1] == (len(good.labels),)]
        for parameter in head[-2:]:  # weight and bias of the last layer
            parameter.copy_(parameter.roll(1, 0))
    made = replace(good, plan=None if good.plan is None else _shifted(good.plan))
    made.save(target)
    return made


def _shifted(plan: QuantizationPlan) -> QuantizationPlan:
    last = next(one for one in plan.operations if one.output == plan.outputs["logits"])
    constants = dict(plan.constants)
    for name in (last.weight, last.bias):
        found = constants[name]
        scales = np.roll(found.scales, 1) if found.scales.size > 1 else found.scales
        constants[name] = replace(found, codes=np.roll(found.codes, 1, axis=0), scales=scales)
    return replace(plan, constants=constants)


def main() -> None:
    """Train the teacher alone: ``python -m examples.digits.build FOLDER`` writes ``FOLDER/teacher.pt``."""
    parser = argparse.ArgumentParser(prog="python -m examples.digits.build", description="Train the digits teacher.")
    parser.add_argument("folder", type=Path, help="where teacher.pt goes")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    train_teacher(folder, Console(stderr=True))
    print(folder / "teacher.pt")


if __name__ == "__main__":
    main()
