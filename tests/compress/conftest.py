# SPDX-License-Identifier: Apache-2.0
"""A task that a small network learns in a second: which way a bar runs on a noisy 12×12 image."""

from pathlib import Path

import numpy as np
import pytest
import torch

TASK = """
import numpy as np
import torch
from collections import OrderedDict
from torch import nn
from compress.sources import DataSplits, Split

def bars(n, seed):
    generator = np.random.default_rng(seed)
    y = (np.arange(n) % 3).astype(np.int64)
    x = generator.integers(0, 90, (n, 12, 12)).astype(np.uint8)
    for image, label in zip(x, y):
        place = generator.integers(2, 10)
        if label == 0:
            image[place] = generator.integers(120, 255, 12)
        elif label == 1:
            image[:, place] = generator.integers(120, 255, 12)
        else:
            image[np.arange(12), (np.arange(12) + place) % 12] = generator.integers(120, 255, 12)
    return Split(x, y)


def load():
    return DataSplits(bars(240, 1), bars(66, 2), bars(120, 3), bars(150, 4), ("row", "column", "slope"))


def overlapping():
    splits = load()
    return DataSplits(splits.train, splits.calibration, splits.validation, splits.train)


def fails():
    raise OSError("the disk is elsewhere")


def no_splits():
    return [1, 2, 3]


def _conv(i, o, stride=1, groups=1, size=3):
    conv = nn.Conv2d(i, o, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(o), act=nn.ReLU()))


def _net(*blocks, features):
    names = {f"block{i}": block for i, block in enumerate(blocks)}
    return nn.Sequential(OrderedDict(
        **names, pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), head=nn.Linear(features, 3)))


def teacher():
    return _net(_conv(1, 16), _conv(16, 24, 2), features=24)


def student():
    return _net(_conv(1, 8), _conv(8, 8, 2, groups=8), _conv(8, 16, size=1), features=16)


def grouped():
    return _net(_conv(1, 8), _conv(8, 8, groups=4), features=8)


def augment(x, generator):
    return torch.where(torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5, x, x.flip(3).flip(2))


not_callable = 3
"""

RECIPE = """
name   = "bars"
target = "rpi4"
seed   = 3
[model]
source  = "strop_tiny_task:student"
teacher = "strop_tiny_task:teacher"
teacher_weights = "teacher.pt"
[data]
source  = "strop_tiny_task:load"
augment = "strop_tiny_task:augment"
[preprocess]
scale = 0.00392156862745098
[[step]]
kind   = "distill"
method = "soft-targets"
epochs = 12
batch  = 16
learning_rate = 0.02
[[step]]
kind     = "prune"
method   = "taylor"
target   = { macs = 0.6 }
round_to = 2
epochs   = 2
batch    = 32
learning_rate = 0.01
[[step]]
kind   = "quantize"
"""


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def teacher_weights(tmp_path_factory):
    """A trained teacher of the task, made once."""
    folder = tmp_path_factory.mktemp("teacher")
    (folder / "strop_tiny_task.py").write_text(TASK)
    from compress import recipe, sources
    from compress.trainer import Training, train

    read = recipe.parse(RECIPE.replace("strop_tiny_task:student", "strop_tiny_task:teacher"), folder / "t.toml")
    data, _ = sources.load_data(read)
    net, samples = sources.load_model(read), sources.tensors(read, data.train)
    train(net, samples.x, samples.y, Training(epochs=8, batch=32, learning_rate=0.02, seed=1))
    torch.save(net.state_dict(), folder / "teacher.pt")
    return folder / "teacher.pt"


@pytest.fixture
def kitchen(tmp_path, teacher_weights):
    """A folder with the task's module and its teacher; ``kitchen(text)`` writes a recipe there and returns its path."""
    (tmp_path / "strop_tiny_task.py").write_text(TASK)
    (tmp_path / "teacher.pt").write_bytes(Path(teacher_weights).read_bytes())

    def write(text: str = RECIPE, name: str = "bars.toml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    write.text, write.folder = RECIPE, tmp_path
    return write


@pytest.fixture(scope="session")
def finished(tmp_path_factory, teacher_weights):
    """One whole run of the recipe, looked at by many tests: (recipe, compressed model)."""
    from compress import pipeline, recipe

    folder = tmp_path_factory.mktemp("finished")
    (folder / "strop_tiny_task.py").write_text(TASK)
    (folder / "bars.toml").write_text(RECIPE)
    (folder / "teacher.pt").write_bytes(Path(teacher_weights).read_bytes())
    torch.set_num_threads(1)
    read = recipe.load(folder / "bars.toml")
    return read, pipeline.run(read, folder / "work")


@pytest.fixture
def generator():
    return np.random.default_rng(20)
