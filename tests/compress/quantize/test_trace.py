# SPDX-License-Identifier: Apache-2.0
"""From a module to a folded graph: the same function, only expressible operations, and clear refusals."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.quantize.gates import open_gates
from compress.quantize.graph import as_maps, evaluate
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


class Gates(nn.Module):
    """Hard-swish, SiLU, sigmoid, hard-sigmoid, squeeze-and-excitation; read by pools, sums, joins and the output."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(24, 5)

    def forward(self, x):
        x = F.hardswish(self.norm(self.first(x)))
        y = F.silu(self.second(x))
        gate = F.hardsigmoid(self.third(F.adaptive_avg_pool2d(y, 1)))
        z = torch.sigmoid(self.third(y)) * y + F.hardswish(self.second(y))
        joined = torch.cat([x, y * gate, F.max_pool2d(z, 3, 1, 1)], 1)
        return self.head(F.adaptive_avg_pool2d(joined, 1).flatten(1))


class Constants(nn.Module):
    """Arithmetic with numbers and with one number per channel, as inputs are normalised; explicit padding."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1))
        self.conv, self.grouped, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 12, 3, groups=3), nn.Linear(12, 5)

    def forward(self, x):
        x = F.pad((x - self.mean) / 0.25, (1, 0, 2, 1))
        x = F.relu(self.conv(x) * 2.0 + 0.5) - 1.0
        return self.head(self.grouped(x).mean((2, 3)))


NETS = {
    "constants": (Constants, 16),
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


def series():
    return nn.Sequential(
        nn.Conv1d(3, 8, 5, 2, 2), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(8, 8, 3, groups=8),
        nn.AvgPool1d(2), nn.Conv1d(8, 12, 3, padding="same"), nn.Hardswish(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(12, 4),
    )  # fmt: skip


def test_series_become_maps_of_height_one():
    torch.manual_seed(0)
    net, x = series().eval(), torch.rand(4, 3, 64)
    graph = folded(net, x[:1])
    assert graph.input_shape == (3, 1, 64)
    assert all(op.weight.shape[2] == 1 for op in graph.operations if op.kind == "conv2d")
    with torch.no_grad():
        assert torch.allclose(value(graph, as_maps(x)), net(x), atol=1e-5)


def test_opened_gates_compute_the_same_function():
    torch.manual_seed(0)
    net, x = Gates().eval(), images(6, 7, 16)
    graph = folded(net, x[:1])
    assert {"hard_swish", "silu", "sigmoid", "mul", "concat"} <= {op.kind for op in graph.operations}
    opened = open_gates(graph)
    assert {op.kind for op in opened.operations} <= set(KINDS)
    with torch.no_grad():
        assert torch.allclose(value(graph, x), net(x), atol=1e-5)
        assert torch.allclose(value(opened, x), net(x), atol=1e-5)


def test_hard_swish_that_leaves_the_model_flat_is_refused():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4), nn.Hardswish())
    with pytest.raises(UnsupportedOperatorError, match="layer 'output': a hard-swish or sigmoid on a flat tensor"):
        open_gates(folded(net, torch.zeros(1, 3, 8, 8)))


def test_hard_swish_costs_one_sum_and_one_product():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardswish(), nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    graph = open_gates(folded(net.eval(), images(1, 0, 16)))
    assert [op.kind for op in graph.operations] == [
        "conv2d", "add_constant", "mul", "conv2d", "global_pool", "flatten"
    ]  # fmt: skip
    assert torch.equal(graph.operations[3].weight, net[2].weight / 6)


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


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.factors = nn.Parameter(torch.ones(14))

    def forward(self, x):
        return x * self.factors


REFUSED = {
    "layer norm": (nn.LayerNorm([6, 14, 14]), "layer 'inner': LayerNorm has no integer form", "use BatchNorm2d"),
    "transposed": (nn.ConvTranspose2d(6, 6, 2), "operator aten.conv_transpose2d", "use an upsampling outside"),
    "concatenation": (Lambda(lambda x: torch.cat([x, x[:, :0]], 1)), "layer 'inner': operator", ";"),
    "broadcast": (Lambda(lambda x: x + x.mean((2, 3), keepdim=True)), "an addition of different shapes", "one shape"),
    "wide product": (Lambda(lambda x: x * x[:, :1]), "layer 'inner': operator aten.slice", ";"),
    "row product": (Scaled(), "arithmetic with a constant of shape [14]", "one per channel"),
    "weighted sum": (Lambda(lambda x: torch.add(x, x, alpha=2)), "with a factor", "multiply by the factor"),
    "difference": (Lambda(lambda x: x - x), "a subtraction of two tensors", "negate a convolution"),
    "quotient": (Lambda(lambda x: x / (x + 1)), "a division of two tensors", "multiply by a constant"),
    "rows joined": (Lambda(lambda x: torch.cat([x, x], 2)), "a concatenation along dimension 2", "dim=1"),
    "padded pool": (Lambda(lambda x: F.max_pool2d(F.pad(x, (1, 1)), 2)), "a padding that no convolution", "directly"),
    "odd padding": (Lambda(lambda x: F.pad(x, (1, 1), value=1.0)), "a padding that is not zeros", "zero padding"),
    "gelu": (nn.GELU(), "layer 'inner': operator aten.gelu.default cannot", "use ReLU or hard-swish"),
    "attention": (Lambda(lambda x: x @ x), "layer 'inner': operator aten.matmul.default", "dynamic int8"),
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
