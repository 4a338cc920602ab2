# SPDX-License-Identifier: Apache-2.0
"""A tiny task in two domains, and what a fleet would have made of it: bars on noise, then through a dim, foggy lens.

The student is distilled on the first domain alone; its teacher knows both.
"""

import importlib
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from compress import pipeline, recipe, sources
from compress.sources import names
from compress.splits import Split
from compress.trainer import Training, train
from fleet.adapters.unsealing import write_npz

MODULE = "strop_heal_task"
SOURCE = """
import numpy as np
from collections import OrderedDict
from torch import nn
from compress.sources import DataSplits, Split

def bars(n, seed):
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 3, n).astype(np.int64)
    x = generator.integers(0, 90, (n, 12, 12)).astype(np.uint8)
    for image, label in zip(x, y):
        place = generator.integers(2, 10)
        stroke = generator.integers(120, 255, 12)
        if label == 0:
            image[place] = stroke
        elif label == 1:
            image[:, place] = stroke
        else:
            image[np.arange(12), (np.arange(12) + place) % 12] = stroke
    return Split(x, y)

def dim(split, seed=1):
    noise = np.random.default_rng(seed).normal(0, 6, split.x.shape)
    return Split((split.x * 0.45 + 70 + noise).clip(0, 255).astype(np.uint8), split.y)

def load():
    return DataSplits(bars(300, 1), bars(80, 2), bars(300, 3), bars(400, 4), ("row", "column", "slope"))

def _conv(i, o, stride=1):
    conv = nn.Conv2d(i, o, 3, stride, 1, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(o), act=nn.ReLU()))

def _net(*blocks, features):
    names = {f"block{i}": block for i, block in enumerate(blocks)}
    return nn.Sequential(OrderedDict(
        **names, pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), head=nn.Linear(features, 3)))

def teacher():
    return _net(_conv(1, 16), _conv(16, 24, 2), features=24)

def student():
    return _net(_conv(1, 8), _conv(8, 12, 2), features=12)
"""
RECIPE = """
name   = "bars"
target = "rpi4"
seed   = 3
threads = 1
[model]
source  = "strop_heal_task:student"
teacher = "strop_heal_task:teacher"
teacher_weights = "teacher.pt"
[data]
source  = "strop_heal_task:load"
[preprocess]
scale = 0.00392156862745098
[[step]]
kind   = "distill"
epochs = 8
batch  = 32
learning_rate = 0.03
temperature = 2.0
[[step]]
kind   = "prune"
method = "magnitude"
target = { parameters = 0.8 }
round_to = 1
epochs = 2
learning_rate = 0.01
[[step]]
kind   = "quantize"
[budget]
size_kb  = 9
max_drop = 30.0
"""


def build(folder: Path) -> Path:
    """Write the task, train its teacher on both domains, make the shipped student; return its folder."""
    (folder / f"{MODULE}.py").write_text(SOURCE)
    (folder / "bars.toml").write_text(RECIPE)
    read = recipe.load(folder / "bars.toml")
    task = task_of(read)
    first, second = task.bars(400, 11), task.dim(task.bars(400, 12))
    both = Split(np.concatenate([first.x, second.x]), np.concatenate([first.y, second.y]))
    data, net = sources.tensors(read, both), task.teacher()
    train(net, data.x, data.y, Training(epochs=8, batch=32, learning_rate=0.02, seed=1))
    torch.save(net.state_dict(), folder / "teacher.pt")
    pipeline.run(read, folder / "work").save(folder / "shipped")
    return folder / "shipped"


_MADE = []


@pytest.fixture(scope="session")
def shipped(tmp_path_factory):
    """The folder of the shipped student, made once; ``bars.toml``, the task and its teacher lie beside it."""
    torch.set_num_threads(1)
    if not _MADE:  # each test file that imports the fixture has one of its own
        _MADE.append(build(tmp_path_factory.mktemp("bars")))
    return _MADE[0]


@pytest.fixture(scope="session")
def task(shipped):
    """The task's module."""
    return task_of(recipe.load(shipped.parent / "bars.toml"))


def task_of(read):
    """Return the task's module."""
    names.resolve(f"{MODULE}:load", where="", key="", folder=read.path.parent)
    return importlib.import_module(MODULE)


def export(path: Path, x: Iterable[np.ndarray], devices=("pi-1", "pi-2", "pi-3"), why="drifted") -> Path:
    """Write inputs as ``strop fleet capture export`` does, sent by devices in turn."""

    def sample(row, raw):
        buffer = io.BytesIO()
        np.save(buffer, raw)
        return {
            "device": devices[row % len(devices)],
            "number": row,
            "why": why,
            "time": float(row),
        }, buffer.getvalue()

    write_npz(path, (sample(row, raw) for row, raw in enumerate(x)))
    return path
