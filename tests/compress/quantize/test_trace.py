# SPDX-License-Identifier: Apache-2.0
"""From a module to a folded graph: the same function, only expressible operations, and clear refusals."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.quantize.graph import evaluate
from compress.quantize.plan import KINDS
from compress.quantize.step import folded
from compress.quantize.trace import trace
from edge_contract.errors import ModelError, UnsupportedOperatorError
from tests.support.quant_nets import images, mobile, residual, separable, settled


def value(graph, x):
    with torch.no_grad():
        *_, (name, result) = evaluate(graph, x)
    assert name == graph.output
    return result


class Functional(nn.Module):
    """The same operators by their other names."""

    def __init__(self):
        super().__init__()
        self.conv, self.second, self.head = nn.Conv2d(3, 6, 3, padding="same"), nn.Conv2d(6, 6, 1), nn.Linear(6, 4)

    def forward(self, x):
        x = F.relu6(self.conv(x))
        x = F.max_pool2d(x, 2)
        y = self.second(x).clamp(min=0)
        x = F.hardtanh(x + y, 0.0, 6.0)
        x = F.dropout(F.avg_pool2d(x, 2), 0.5, self.training)
        return self.head(x.mean((-2, -1)).contiguous())


class TwoReaders(nn.Module):
    """One convolution read by a ReLU, a BatchNorm and an addition: nothing may be folded into it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 4)

    def forward(self, x):
        x = self.conv(x)
        x = F.relu(x) + self.norm(x) + x
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def norms_first():
    return nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 6, 3), nn.ReLU(), nn.BatchNorm2d(6), nn.MaxPool2d(2), nn.ReLU6(), nn.Flatten(),
        nn.Linear(6 * 49, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 4),
    )  # fmt: skip


NETS = {
    "functional": (Functional, 16),
    "two readers": (TwoReaders, 16),
    "norms first": (norms_first, 16),
    "mobile": (mobile, 32),
    "residual": (residual, 32),
    "separable": (separable, 32),
}


@pytest.mark.parametrize("name", NETS)
def test_folded_graph_computes_the_same_function(name):
    build, size = NETS[name]
    net = settled(build, seed=1, size=size)
    x = images(6, 7, size)
    graph = folded(net, x[:1])
    assert {op.kind for op in graph.operations} <= set(KINDS)
    with torch.no_grad():
        assert torch.allclose(value(graph, x), net(x), atol=2e-5)


def test_every_batch_norm_and_clamp_of_a_plain_net_disappears():
    graph = folded(settled(mobile), images(1, 0))
    kinds = [op.kind for op in graph.operations]
    assert kinds.count("conv2d") == 1 + 5 * 3
    assert kinds.count("add") == 3
    assert kinds[-3:] == ["global_pool", "flatten", "linear"]
    first = graph.operations[0]
    assert (first.name, first.low, first.high) == ("blocks.0.0", 0.0, 6.0)


def test_model_is_left_as_it_was():
    net = settled(separable).train()
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    trace(net, images(1, 0))
    assert net.training
    assert all(torch.equal(before[key], tensor) for key, tensor in net.state_dict().items())


def test_exported_program_can_be_traced_again():
    net = settled(separable)
    program = torch.export.export(net, (images(1, 0),)).module()
    x = images(3, 1)
    with torch.no_grad():
        assert torch.allclose(value(folded(program, x[:1]), x), net(x), atol=1e-5)


class Wrapped(nn.Module):
    """A network whose inner layer is the one under test."""

    def __init__(self, inner, features=6):
        super().__init__()
        self.stem, self.inner, self.head = nn.Conv2d(3, 6, 3), inner, nn.Linear(features, 2)

    def forward(self, x):
        return self.head(self.inner(self.stem(x)).mean((2, 3)))


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


REFUSED = {
    "hard-swish": (nn.Hardswish(), "layer 'inner': operator aten.hardswish.default cannot", "use ReLU6"),
    "sigmoid": (nn.Sigmoid(), "layer 'inner': operator aten.sigmoid.default", "leave it to the post-processing"),
    "layer norm": (nn.LayerNorm([6, 14, 14]), "layer 'inner': operator aten.layer_norm.default", "use BatchNorm2d"),
    "grouped": (nn.Conv2d(6, 6, 3, groups=2), "layer 'inner': a grouped convolution (2 groups)", "use groups=1"),
    "transposed": (nn.ConvTranspose2d(6, 6, 2), "operator aten.conv_transpose2d", "use an upsampling outside"),
    "concatenation": (Lambda(lambda x: torch.cat([x, x[:, :0]], 1)), "layer 'inner': operator", ";"),
    "scalar": (Lambda(lambda x: x + 1.0), "layer 'inner': an addition of different shapes", "add two tensors"),
    "broadcast": (Lambda(lambda x: x + x.mean((2, 3), keepdim=True)), "an addition of different shapes", "one shape"),
    "weighted sum": (Lambda(lambda x: torch.add(x, x, alpha=2)), "or with a factor", "add two tensors"),
    "product": (Lambda(lambda x: x * x), "operator aten.mul.Tensor", "use an addition or a convolution"),
    "one dimension": (Lambda(lambda x: x.mean(3, keepdim=True)), "a mean over dimensions [3]", "AdaptiveAvgPool2d(1)"),
    "odd clamp": (nn.Hardtanh(-1.0, 1.0), "a clamp to [-1.0, 1.0]", "use ReLU or ReLU6"),
    "uneven pool": (nn.AdaptiveAvgPool2d(3), "an adaptive pool from 14×14 to 3×3", "a size that divides it"),
    "ceil": (nn.MaxPool2d(3, 2, ceil_mode=True), "a max pool with ceil_mode or dilation", "use ceil_mode=False"),
    "uncounted": (nn.AvgPool2d(3, 1, 1, count_include_pad=False), "count_include_pad=False with padding", "padding=0"),
    "reshape": (
        Lambda(lambda x: x.view(1, 3, 2, 14, 14).view(1, 6, 14, 14)),
        "a reshape from [1, 6, 14, 14]",
        "use flatten(1)",
    ),
    "live statistics": (nn.BatchNorm2d(6, track_running_stats=False), "a BatchNorm without running", "track_running"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_operator_without_integers_names_layer_and_rewrite(name):
    inner, what, fix = REFUSED[name]
    with pytest.raises(UnsupportedOperatorError) as caught:
        folded(Wrapped(inner), torch.zeros(1, 3, 16, 16))
    assert what in str(caught.value)
    assert fix in str(caught.value)
    assert "\n" not in str(caught.value)


class FlatReaders(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.act, self.head = nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x.flatten(1))
        return self.head(self.act(x) + x)


def test_clamp_on_a_flat_tensor_with_other_readers_is_refused():
    with pytest.raises(UnsupportedOperatorError, match="layer 'act': a clamp on a flat tensor that other layers read"):
        folded(FlatReaders(), torch.zeros(1, 3, 2, 2))


class Branch(nn.Module):
    def forward(self, x):
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class Pair(nn.Module):
    def forward(self, x):
        return x.flatten(1), x


UNTRACEABLE = {
    "a wrong number of channels": (Wrapped(nn.ReLU()), torch.zeros(1, 1, 16, 16), "input of shape [1, 1, 16, 16]"),
    "a branch on data": (Branch(), torch.zeros(1, 3, 4, 4), "no branch that depends on the data"),
    "two outputs": (Pair(), torch.zeros(1, 3, 4, 4), "1 inputs and 2 outputs; take one tensor"),
}


@pytest.mark.parametrize("name", UNTRACEABLE)
def test_model_that_cannot_be_traced_is_one_clear_line(name):
    net, example, what = UNTRACEABLE[name]
    with pytest.raises(ModelError, match=re.escape(what)) as caught:
        trace(net, example)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_parameter_that_is_not_finite_is_named(bad):
    net = Wrapped(nn.Conv2d(6, 6, 1))
    net.inner.weight.data[2, 1] = bad
    with pytest.raises(ModelError, match=r"parameter 'inner\.weight': holds NaN or an infinity"):
        trace(net, torch.zeros(1, 3, 16, 16))
