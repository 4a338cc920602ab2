# SPDX-License-Identifier: Apache-2.0
"""A small trained classifier of digits-like images with its recipe: what the exporter is given."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F


@pytest.fixture(scope="session", autouse=True)
def only_todays_runtimes(request, tmp_path_factory):
    """A machine that has the old runtimes answers as one that has none, except where they are asked for."""
    if "not old_runtimes" not in (request.config.option.markexpr or ""):
        yield
        return
    nothing = tmp_path_factory.mktemp("old") / "none.json"
    nothing.write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STROP_OLD_RUNTIMES", str(nothing))
        yield


TASK = """
from tests.export.conftest import splits

def load():
    return splits()

def net():
    raise AssertionError("the exporter never builds the model again")
"""

RECIPE = """
name   = "bars"
target = "rpi4"
[model]
source = "strop_export_task:net"
[data]
source = "strop_export_task:load"
[preprocess]
scale = 0.00392156862745098
[[step]]
kind = "train"
epochs = 1
[[step]]
kind = "quantize"
"""


def bars(count, seed):
    """Images uint8 [count, 16, 16] with a bright row (class 0), column (1) or diagonal (2)."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(count) % 3).astype(np.int64)
    raw = generator.integers(0, 110, (count, 16, 16)).astype(np.uint8)
    for image, label in zip(raw, labels, strict=True):
        place, line = generator.integers(2, 14), generator.integers(90, 255, 16)
        rows = np.full(16, place) if label == 0 else np.arange(16)
        columns = np.full(16, place) if label == 1 else (np.arange(16) + place * (label == 2)) % 16
        image[rows, columns] = line
    return raw, labels


def splits():
    from compress.sources import DataSplits, Split

    sizes = (300, 96, 180, 60)
    return DataSplits(*(Split(*bars(size, seed)) for seed, size in enumerate(sizes)), ("row", "column", "slope"))


def small_net():
    def conv(i, o, size=3, stride=1, groups=1):
        layers = (nn.Conv2d(i, o, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(o), nn.ReLU())
        return nn.Sequential(*layers)

    blocks = (conv(1, 8, stride=2), conv(8, 8, groups=8), conv(8, 16, 1), conv(16, 16, 3, 2, 16), conv(16, 24, 1))
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 3))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def compressed():
    """A trained, quantized CompressedModel."""
    from compress.compressed import CompressedModel
    from compress.quantize.step import quantize
    from compress.report import CompressionReport
    from edge_contract.preprocess import Preprocess

    torch.manual_seed(0)
    data, net = splits(), small_net()
    x, y = (torch.from_numpy(data.train.x[:, None] / np.float32(255)), torch.from_numpy(data.train.y))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(6):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    plan = quantize(net.eval(), torch.from_numpy(data.calibration.x[:, None] / np.float32(255)))
    report = CompressionReport("bars", "rpi4", "top1", 0, "a" * 64, "b" * 64, "", ())
    preprocess = Preprocess(scale=1 / 255)
    return CompressedModel("bars", net, plan, preprocess, ("row", "column", "slope"), report, RECIPE, (1, 16, 16))


@pytest.fixture(scope="session")
def samples():
    from export.bundle.builder import Samples

    return Samples(*bars(180, 2))


@pytest.fixture(scope="session")
def inputs(samples):
    """The samples as model inputs, float32 [180, 16, 16, 1]."""
    return (samples.raw[..., None] / np.float32(255)).astype(np.float32)


@pytest.fixture(scope="session")
def bundle_folder(compressed, samples, tmp_path_factory):
    """A finished bundle; copy it before changing it."""
    from export.bundle.builder import build

    folder = tmp_path_factory.mktemp("bundles") / "one"
    build(compressed, folder, version="1.0.0", samples=samples)
    return folder


@pytest.fixture(scope="session")
def compressed_folder(compressed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compressed")
    (folder / "strop_export_task.py").write_text(TASK)
    compressed.save(folder)
    return folder
