# SPDX-License-Identifier: Apache-2.0
"""Costs, against torch's own counter of floating-point operations."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compress import cost
from edge_contract.errors import ModelError
from examples.digits import model

NETS = {
    "teacher": (model.teacher, (1, 28, 28)),
    "student": (model.student, (1, 28, 28)),
    "strided, padded, grouped": (
        lambda: nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1, groups=2), nn.Conv2d(8, 8, (1, 3), padding=(0, 2), groups=8)),
        (4, 11, 7),
    ),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, 2, 1, 1), nn.ConvTranspose2d(6, 6, 2, 2, groups=6)),
        (4, 5, 7),
    ),
    "linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.Linear(7, 3, bias=False)), (3, 2, 2)),
}


@pytest.mark.parametrize("name", NETS)
def test_macs_are_half_of_torchs_flops(name):
    build, shape = NETS[name]
    net, example = build().eval(), torch.zeros(1, *shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(example)
    found = cost.measure(net, example)
    assert 2 * found.macs == counter.get_total_flops()
    assert found.parameters == sum(p.numel() for p in net.parameters())
    assert found.macs == sum(layer.macs for layer in found.layers)


def test_networks_of_the_story_have_the_promised_sizes():
    example = torch.zeros(1, 1, 28, 28)
    assert 35_000 < cost.measure(model.teacher(), example).parameters < 39_000
    assert 9_000 < cost.measure(model.student(), example).parameters < 12_500
    assert 5_500 < cost.measure(model.small(), example).parameters < 7_000


def test_measuring_leaves_mode_and_statistics_alone():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    cost.measure(net, torch.ones(1, 1, 5, 5))
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not net[0]._forward_hooks


def test_wrong_input_is_named():
    with pytest.raises(ModelError, match=r"the model refuses \[1, 3, 8, 8\]: .*; make preprocessing and model agree"):
        cost.measure(nn.Conv2d(1, 2, 3), torch.zeros(1, 3, 8, 8))


def test_cost_survives_json():
    found = cost.measure(model.student(), torch.zeros(1, 1, 28, 28))
    assert cost.Cost.from_json(found.to_json()) == found


def test_peak_is_the_largest_input_and_output_together():
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    assert cost.measure(net, torch.zeros(1, 1, 8, 8)).peak_elements == 4 * 64 * 2
