# SPDX-License-Identifier: Apache-2.0
"""Peak activation memory by liveness, and weights after deflate."""

import numpy as np
import torch
from torch import nn

from compress.memory import peak, zipped_kb
from compress.quantize.step import folded, quantize
from tests.support.quant_nets import Basic, images, residual, settled


class Skip(nn.Module):
    """A residual: its input has to wait for the addition."""

    def __init__(self, hidden):
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(4, hidden, 1), nn.Conv2d(hidden, 4, 1)

    def forward(self, x):
        return x + self.narrow(torch.relu(self.wide(x)))


def test_what_waits_for_an_addition_counts():
    graph = folded(Skip(10), torch.zeros(1, 4, 8, 8))
    found = peak(graph)
    assert found.values == 64 * (4 + 10 + 4)  # input, hidden, and the output of the second convolution
    assert found.layer == "narrow"
    assert found.kb(32) == 4 * found.values / 1000 and found.kb(8) == found.values / 1000


def test_a_chain_needs_two_neighbours_only():
    chain = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(5)), nn.Flatten(), nn.Linear(256, 2))
    assert peak(folded(chain, torch.zeros(1, 4, 8, 8))).values == 2 * 256


def test_the_output_of_a_projected_shortcut_is_counted():
    found = peak(folded(Basic(4, 8, 2), torch.zeros(1, 4, 8, 8)))
    # 256 in, 128 after the first convolution, 128 after the second or the shortcut: the input waits for the shortcut.
    assert found.values == 256 + 128 + 128


def test_zeros_and_repetitions_vanish_in_a_zip():
    layer = nn.Linear(200, 200, bias=False)
    raw = layer.weight.numel() * 4 / 1000
    assert 0.8 * raw < zipped_kb(layer) < raw  # random mantissas hardly shrink
    layer.weight.data = torch.tensor([-0.5, 0.0, 0.25, 1.0])[torch.randint(0, 4, (200, 200))]
    assert zipped_kb(layer) < 0.12 * raw


def test_a_plan_weighs_what_its_integers_do():
    torch.set_num_threads(1)
    plan = quantize(settled(residual), images(64, 1))
    raw = sum(constant.codes.nbytes for constant in plan.constants.values()) / 1000
    assert 0.5 * raw < zipped_kb(plan) <= raw + 0.1
    assert zipped_kb(plan) == zipped_kb(plan)
    assert np.isfinite(zipped_kb(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))))
