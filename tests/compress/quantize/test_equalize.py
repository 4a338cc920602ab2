# SPDX-License-Identifier: Apache-2.0
"""Cross-layer equalization: the paper's ranges, an unchanged function, and channels that may not be scaled."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from compress.quantize.equalize import equalize, peaks
from compress.quantize.gates import open_gates
from compress.quantize.graph import as_maps, evaluate
from compress.quantize.step import folded, quantize
from tests.support.quant_nets import Net, conv, images, mobile, residual, separable, settled


def relu_mobile():
    """Expand, depthwise, project, with ReLU: the triple of the paper's figure 5."""
    triple = [conv(12, 24, 1, act=nn.ReLU), conv(24, 24, groups=24, act=nn.ReLU), conv(24, 16, 1, act=None)]
    return Net(conv(3, 12, stride=2, act=nn.ReLU), *triple, features=16)


def graph_of(net, shape=(3, 32, 32)):
    return open_gates(folded(net, torch.rand(1, *shape)))


def logits(graph, x):
    return list(evaluate(graph, as_maps(x)))[-1][1]


def rows(op):
    return op.weight.abs().flatten(1).amax(1)


def columns(op):
    return op.weight.abs().transpose(0, 1).flatten(1).amax(1)


def two_layers(act=nn.ReLU):
    """The paper's toy: two layers, the first with rows of very unlike ranges."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(2, 3, 1), act(), nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net[0].weight.data *= torch.tensor([1.0, 1e-2, 30.0]).view(3, 1, 1, 1)
    return net.eval()


def test_ranges_before_and_behind_a_channel_become_the_root_of_their_product():
    before = graph_of(two_layers(), (2, 4, 4))
    first, second = before.operations[:2]
    wanted = torch.sqrt(rows(first) * columns(second))
    first, second = equalize(before).operations[:2]
    assert rows(first).tolist() == pytest.approx(wanted.tolist(), rel=1e-5)
    assert columns(second).tolist() == pytest.approx(wanted.tolist(), rel=1e-5)


def test_ranges_of_a_triple_are_equal_once_it_has_converged():
    graph = equalize(graph_of(settled(relu_mobile)))
    expand, depthwise, project = graph.operations[1:4]
    assert rows(expand).tolist() == pytest.approx(rows(depthwise).tolist(), rel=1e-3)
    assert rows(depthwise).tolist() == pytest.approx(columns(project).tolist(), rel=1e-3)


@pytest.mark.parametrize("build", [relu_mobile, residual, separable, mobile])
@pytest.mark.parametrize("seed", [0, 1])
def test_float_function_is_unchanged(build, seed):
    x = images(32, 5 + seed)
    graph = graph_of(settled(build, seed))
    after = equalize(graph, peaks(graph, x))
    assert any(
        not torch.equal(a.weight, b.weight) for a, b in zip(graph.operations, after.operations) if a.weight is not None
    )
    assert float((logits(graph, x) - logits(after, x)).abs().max()) <= 1e-5


def test_function_is_unchanged_on_data_never_seen_where_no_clamp_has_an_upper_end():
    graph = graph_of(settled(residual))
    x = 50 * images(8, 9)
    assert torch.allclose(logits(graph, x), logits(equalize(graph), x), rtol=1e-4, atol=1e-4)


def test_clamp_at_six_stays_out_of_the_reach_of_scaled_channels():
    net = two_layers(nn.ReLU6)
    x = torch.rand(64, 2, 4, 4)
    graph = graph_of(net, (2, 4, 4))
    top = peaks(graph, x)[graph.operations[0].output]
    assert [bool(value == 6.0) for value in top] == [False, False, True]  # the third channel is cut
    first = equalize(graph, {graph.operations[0].output: top}).operations[0]
    factor = rows(first) / rows(graph.operations[0])
    assert factor[2] == 1.0
    assert (factor[:2] * top[:2] <= 6.0 * (1 + 1e-6)).all()
    assert factor[1] > 1.0


def test_clamp_at_six_without_calibration_leaves_its_channels_alone():
    graph = graph_of(two_layers(nn.ReLU6), (2, 4, 4))
    for before, after in zip(graph.operations, equalize(graph).operations, strict=True):
        assert before.weight is None or torch.equal(before.weight, after.weight)


def test_channels_joined_by_additions_share_their_factor():
    graph = graph_of(settled(residual))
    after = equalize(graph)
    factors = {
        a.output: (rows(b) / rows(a), columns(b) / columns(a))
        for a, b in zip(graph.operations, after.operations, strict=True)
        if a.kind == "conv2d" and a.attributes["groups"] == (1,)
    }
    assert len(factors) == 8
    assert all(torch.isfinite(f[0]).all() for f in factors.values())


class Gated(nn.Module):
    """A hard-swish, a concatenation, a product with a sigmoid: nothing before them can be scaled, all behind can."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(8, 8, 1)
        self.d, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8 * 4, 5)

    def forward(self, x):
        y = torch.relu(self.c(torch.cat([nn.functional.hardswish(self.a(x)), torch.relu(self.b(x))], 1)))
        y = y * torch.sigmoid(self.d(y).mean((2, 3), keepdim=True))
        return self.head(nn.functional.max_pool2d(y, 15).flatten(1))


def test_gates_keep_their_scale_and_joins_hand_it_on():
    torch.manual_seed(0)
    graph = graph_of(Gated().eval())
    x = images(16, 3)
    after = equalize(graph, peaks(graph, x))
    assert float((logits(graph, x) - logits(after, x)).abs().max()) <= 1e-5
    changed = [
        a.name
        for a, b in zip(graph.operations, after.operations)
        if a.weight is not None and not torch.equal(a.weight, b.weight)
    ]
    assert "a" not in changed
    assert {"b", "c", "d", "head"} <= set(changed)


def test_dead_channel_and_zero_column_are_left_alone():
    net = two_layers()
    net[0].weight.data[0] = 0.0
    net[2].weight.data[:, 1] = 0.0
    graph = graph_of(net, (2, 4, 4))
    first = equalize(graph).operations[0]
    assert torch.equal(first.weight[:2], graph.operations[0].weight[:2])
    assert all(math.isfinite(float(op.weight.sum())) for op in equalize(graph).operations if op.weight is not None)


def test_equalized_graph_rescues_a_layer_whose_weights_share_one_scale():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 6)).eval()
    factors = torch.logspace(-2, 2, 16)
    net[1].weight.data *= factors.view(-1, 1)
    net[3].weight.data /= factors
    x = torch.rand(256, 8, 1, 1) - 0.5
    errors = []
    for graph in (graph_of(net, (8, 1, 1)), equalize(graph_of(net, (8, 1, 1)))):
        made = [
            replace(op, weight=(op.weight / (s := op.weight.abs().max() / 127)).round() * s)
            if op.weight is not None
            else op
            for op in graph.operations
        ]
        errors.append(float((logits(replace(graph, operations=tuple(made)), x) - logits(graph, x)).pow(2).mean()))
    assert errors[1] < errors[0] / 30
    assert quantize(net, x, embedding=False).notes == ()
