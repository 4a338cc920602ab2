# SPDX-License-Identifier: Apache-2.0
"""Train the teacher of the story on photographs of its own, by both cameras; its weights are there: ``teacher.pt``."""

import argparse
import sys
from pathlib import Path
from typing import Final

import torch
from torch import nn

from compress import evaluate, recipe
from compress.sources import Tensors, tensors
from compress.splits import Split
from compress.threads import threads
from compress.trainer import EpochLog, Training, train
from examples.heal import data, model

__all__ = ["RECIPE", "TEACHER", "train_teacher"]

HERE: Final = Path(__file__).resolve().parent
RECIPE: Final = HERE / "heal.toml"
TEACHER: Final = Training(epochs=7, learning_rate=8e-3, weight_decay=1e-3, ema=0.998, seed=1)


def _tensors(split: Split) -> Tensors:
    return tensors(recipe.load(RECIPE), split)


def train_teacher(path: Path, training: Training = TEACHER) -> nn.Module:
    """Train the teacher, write its state dict and return it; an interrupted training goes on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        net = model.teacher()
    samples = _tensors(data.teachers())

    def progress(log: EpochLog) -> None:
        print(f"epoch {log.epoch} of {log.epochs}, loss {log.loss:.4f}", file=sys.stderr, flush=True)

    checkpoint = path.with_suffix(".training.pt")
    with threads(1):
        train(net, samples.x, samples.y, training, augment=data.augment, checkpoint=checkpoint, progress=progress)
    torch.save(net.state_dict(), path)
    checkpoint.unlink()
    return net


def main() -> None:
    """``python -m examples.heal.build [FILE]`` writes the weights and says how good they are."""
    parser = argparse.ArgumentParser(prog="python -m examples.heal.build", description="Train the teacher of clothes.")
    parser.add_argument("file", type=Path, nargs="?", default=HERE / "teacher.pt", help="where the weights go")
    path: Path = parser.parse_args().file
    net = train_teacher(path)
    for name, split in (("first", data.load().test), ("second", data.second_test())):
        test = _tensors(split)
        right = evaluate.hits(net, test.x, test.y)
        print(f"{name} camera: {evaluate.score(int(right.sum()), right.size)}")
    print(path)


if __name__ == "__main__":
    main()
