# SPDX-License-Identifier: Apache-2.0
"""Low rank, zeros and shared values on the real digits, with little training."""

import copy

import pytest
import torch

from compress import evaluate
from compress.cluster.step import cluster
from compress.cost import measure
from compress.distill.soft_targets import combined
from compress.factorize.step import factorize
from compress.memory import zipped_kb
from compress.sources import Tensors
from compress.sparsify.step import sparsify
from compress.steps.cluster import Cluster
from compress.steps.factorize import Factorize
from compress.steps.sparsify import Sparsify
from compress.trainer import Training, train
from examples.digits import data, model

TUNING = Training(epochs=1, batch=64, learning_rate=1e-3)


@pytest.fixture(scope="module")
def trained():
    """The digits' teacher after a short training: (net, training split, validation split, its accuracy)."""
    torch.set_num_threads(1)
    splits = data.load()
    parts = [
        Tensors(torch.from_numpy(s.x).float()[:, None] / 255, torch.from_numpy(s.y))
        for s in (splits.train, splits.validation)
    ]
    torch.manual_seed(0)
    net = model.teacher()
    train(net, parts[0].x, parts[0].y, Training(epochs=2, batch=64, learning_rate=5e-3))
    return net, *parts, accuracy(net, parts[1])


def accuracy(net, split):
    return float(evaluate.hits(net, split.x, split.y).mean())


@pytest.mark.slow
def test_60_percent_of_the_macs_stay_within_a_few_points(trained):
    net, split, validation, before = trained
    thin = copy.deepcopy(net)
    factorize(Factorize(share=0.6), thin, split)
    assert measure(thin, split.x[:1]).macs <= 0.6 * measure(net, split.x[:1]).macs
    assert accuracy(thin, validation) > before - 0.10
    train(thin, split.x, split.y, TUNING, loss=combined(net, temperature=4.0, alpha=0.9))
    assert accuracy(thin, validation) > before - 0.02


@pytest.mark.slow
def test_zeros_and_shared_values_shrink_the_download_within_a_few_points(trained):
    net, split, validation, before = trained
    sparse = copy.deepcopy(net)
    sparsify(Sparsify("lamp", 0.7, training=TUNING), sparse, split, seed=0, teacher=net)
    assert accuracy(sparse, validation) > before - 0.03
    assert zipped_kb(sparse) < 0.5 * zipped_kb(net)
    cluster(Cluster(training=Training(epochs=0)), sparse, split, seed=0)
    assert accuracy(sparse, validation) > before - 0.04
    assert zipped_kb(sparse) < 0.2 * zipped_kb(net)
