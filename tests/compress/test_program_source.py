# SPDX-License-Identifier: Apache-2.0
"""Exported programs as networks: the same answers, the same names, and everything can be done with them again."""

import copy
import operator
from io import BytesIO

import pytest
import torch
from torch import nn

from compress import cost, recipe, sources
from compress.prune.graph import PruningGraph
from compress.quantize.step import quantize
from compress.sources.program import load_program
from edge_contract.errors import ModelError, UnsupportedOperatorError
from tests.zoo import models as zoo

BATCH = torch.export.Dim("batch", min=1)
# What torch.export says of its own tree of arguments, and of an LSTM's list of weights.
pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.filterwarnings("ignore::UserWarning")]


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.cells, self.head = kind(4, 8, 2, batch_first=True, bidirectional=True), nn.Linear(16, 3)
        self.shift = nn.Parameter(torch.randn(1, 5, 4))

    def forward(self, x):
        return self.head(self.cells(x + self.shift)[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch, self.norm = nn.Conv2d(1, 24, 7, 7), nn.LayerNorm(24)
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 24)), nn.Parameter(torch.randn(1, 17, 24))
        self.qkv, self.out, self.head = nn.Linear(24, 72), nn.Linear(24, 24), nn.Linear(24, 10)
        self.gelu, self.drop = nn.GELU(), nn.Dropout(0.2)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, t, 3, 3, 8).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, c)
        return self.head(self.drop(self.gelu(x + self.out(mixed)))[:, 0])


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.deep = nn.Conv2d(1, 8, 3, padding="same"), nn.Conv2d(8, 16, 3, padding=1)
        self.norm, self.slope = nn.GroupNorm(2, 8), nn.PReLU(16)
        self.up, self.last = nn.ConvTranspose2d(16, 8, 3, 2, 1, 1), nn.Conv2d(16, 2, 1)

    def forward(self, x):
        skip = torch.relu_(self.norm(self.down(x)))
        deep = self.slope(self.deep(nn.functional.max_pool2d(skip, 2)))
        return self.last(torch.cat([skip, self.up(deep)], 1)).mean((2, 3))


class Viewed(nn.Module):
    """Sizes written into the forward pass: a flatten by view, a gate by view."""

    def __init__(self):
        super().__init__()
        self.conv, self.gate, self.head = nn.Conv2d(1, 4, 3, 2), nn.Linear(4, 4), nn.Linear(4 * 9, 5)

    def forward(self, x):
        x = self.conv(x)
        gate = self.gate(x.mean((2, 3))).sigmoid().view(-1, 4, 1, 1)
        return self.head((x * gate).view(-1, 4 * 9))


def series():
    net = nn.Sequential(nn.Conv1d(6, 16, 5, padding=2), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2))
    return nn.Sequential(net, nn.Conv1d(16, 8, 3), nn.SiLU(), nn.AvgPool1d(2), nn.AdaptiveAvgPool1d(1), nn.Flatten())


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm1d(64), nn.Linear(64, 2)

    def forward(self, x):
        return self.head(self.norm(self.conv(torch.tanh(self.conv(x))).flatten(1)))


def gated():
    """Hard-swish, squeeze and excitation, a residual sum, as MobileNetV3 has them."""
    body = zoo.Inverted(8, 16, 8, act=nn.Hardswish, excite=True)
    tail = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(8, 3))
    return nn.Sequential(zoo.conv(1, 8, act=nn.Hardswish), body, *tail)


NETS = {
    "gated": (gated, (1, 12, 12)),
    "resnet-8": (lambda: zoo.load("resnet-8"), (3, 32, 32)),
    "lstm": (Recurrent, (5, 4)),
    "gru": (lambda: Recurrent(nn.GRU), (5, 4)),
    "attention": (Attention, (1, 28, 28)),
    "u-net": (UNet, (1, 12, 12)),
    "view": (Viewed, (1, 7, 7)),
    "series": (series, (6, 40)),
    "shared": (Shared, (1, 8, 8)),
}


def export(net, shape, *, batch=2, dynamic=True):
    shapes = ({0: BATCH},) if dynamic else None
    return torch.export.export(net.eval(), (torch.randn(batch, *shape),), dynamic_shapes=shapes)


def saved(path, program):
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module", params=NETS)
def pair(request, tmp_path_factory):
    """(the network as it was, the network out of its exported program, shape of an input)."""
    torch.manual_seed(5)
    make, shape = NETS[request.param]
    net = make()
    path = saved(tmp_path_factory.mktemp("program") / "net.pt2", export(net, shape))
    return net.eval(), load_program(path), shape


def test_same_answers_names_and_cost(pair):
    net, found, shape = pair
    x = torch.randn(5, *shape)
    with torch.no_grad():
        assert torch.equal(found(x), net(x))  # the same kernels on the same numbers
    assert found.state_dict().keys() == net.state_dict().keys()
    assert cost.measure(found, x[:1]).macs == cost.measure(net, x[:1]).macs


def test_training_is_the_same_step(pair):
    net, found, shape = (copy.deepcopy(one) if isinstance(one, nn.Module) else one for one in pair)
    x = torch.randn(4, *shape)
    for one in (net, found):
        torch.manual_seed(1)
        one.train()(x).square().sum().backward()
    theirs, ours = dict(net.named_parameters()), dict(found.named_parameters())
    for name, parameter in theirs.items():
        assert torch.allclose(ours[name].grad, parameter.grad, rtol=1e-4, atol=1e-6), name
    for (name, one), (_, other) in zip(net.named_buffers(), found.named_buffers(), strict=True):
        assert torch.allclose(one, other), name


@pytest.mark.parametrize("how", ["one fixed batch", "core operators"])
@pytest.mark.parametrize("name", ["gated", "view", "u-net", "series"])
def test_other_ways_to_export_give_the_same_network(name, how, tmp_path):
    make, shape = NETS[name]
    net = make()
    if how == "one fixed batch":
        program = export(net, shape, batch=1, dynamic=False)
    else:
        program = export(net, shape).run_decompositions()
    found = load_program(saved(tmp_path / "net.pt2", program))
    x = torch.randn(5, *shape)
    with torch.no_grad():
        assert torch.allclose(found(x), net(x), atol=1e-5)
    assert {n for n, _ in found.named_parameters()} == {n for n, _ in net.named_parameters()}


@pytest.mark.parametrize("name", ["gated", "resnet-8"])
def test_pruning_and_integers_work_as_on_the_original(name, tmp_path):
    make, shape = NETS[name]
    net = make()
    found = load_program(saved(tmp_path / "net.pt2", export(net, shape)))
    x = torch.randn(64, *shape)
    plans = [quantize(one, x) for one in (net, found)]
    codes = [[constant.codes.tobytes() for constant in plan.constants.values()] for plan in plans]
    assert codes[0] == codes[1]
    graphs = [PruningGraph(one, x[:1]) for one in (net, found)]
    assert [(g.name, g.width) for g in graphs[0].groups] == [(g.name, g.width) for g in graphs[1].groups]
    group = max(graphs[1].groups, key=operator.attrgetter("width"))
    for graph in graphs:
        graph.remove(group.name, range(group.width // 2))
    with torch.no_grad():
        assert torch.allclose(found(x[:4]), net(x[:4]), atol=1e-5)


def test_what_comes_out_goes_in_again(finished, tmp_path):
    _, compressed = finished
    compressed.save(tmp_path / "out")
    found = load_program(tmp_path / "out" / "model.pt2")
    x = torch.randn(3, *compressed.input_shape)
    with torch.no_grad():
        assert torch.equal(found(x), compressed.model(x))


def test_recipe_names_a_program_for_model_and_teacher(kitchen):
    read = recipe.load(kitchen())
    saved(kitchen.folder / "teacher.pt2", export(sources.load_teacher(read), (1, 12, 12)))
    text = kitchen.text.replace('"strop_tiny_task:teacher"\nteacher_weights = "teacher.pt"', '"teacher.pt2"')
    again = recipe.load(kitchen(text))
    teacher = sources.load_teacher(again)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    x = torch.randn(2, 1, 12, 12)
    assert torch.equal(teacher(x), sources.load_teacher(read)(x))
    entering = recipe.load(kitchen(text.replace("strop_tiny_task:student", "teacher.pt2")))
    assert entering.model.is_trained
    assert torch.equal(sources.load_model(entering)(x), teacher(x))


class Branch(nn.Module):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: x.sin(), lambda x: x.cos(), (x,)).flatten(1)


class Two(nn.Module):
    def forward(self, x):
        return x.flatten(1), x.mean((1, 2, 3))


class State(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells, self.start = nn.GRU(4, 3, batch_first=True), nn.Parameter(torch.randn(1, 1, 3))

    def forward(self, x):
        return self.cells(x, self.start.expand(-1, x.shape[0], -1).contiguous())[0][:, -1]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3)

    def forward(self, x):
        return nn.functional.conv2d(self.conv(x), self.conv.weight, self.conv.bias, 2).flatten(1)


class FixedBatch(nn.Module):
    def forward(self, x):
        return x.flatten(1) + torch.arange(3.0)[:, None]


def nan():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    net[1].weight.data[0, 0] = float("nan")
    return net


REFUSED = {
    "control flow": (
        lambda: export(Branch(), (1, 8, 8)),
        UnsupportedOperatorError,
        "operator cond is no layer; export the float model, without branches on values",
    ),
    "two outputs": (
        lambda: export(Two(), (1, 8, 8)),
        ModelError,
        "1 inputs and 2 outputs; export a model of one tensor",
    ),
    "a state of its own": (
        lambda: export(State(), (5, 4)),
        UnsupportedOperatorError,
        "with a state of its own; let it",
    ),
    "one weight, two uses": (lambda: export(Tied(), (1, 8, 8)), UnsupportedOperatorError, "weight 'conv.weight'"),
    "training mode": (
        lambda: torch.export.export(gated().train(), (torch.randn(2, 1, 12, 12),)),
        ModelError,
        "was exported in training mode; export it with",
    ),
    "one batch only": (
        lambda: export(FixedBatch(), (1, 8, 8), batch=3, dynamic=False),
        ModelError,
        "works for a batch of 3 only|answers otherwise in a batch than alone",
    ),
    "half precision": (
        lambda: torch.export.export(
            nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).half().eval(), (torch.randn(2, 1, 8, 8).half(),)
        ),
        ModelError,
        "weight '1.weight': of type float16; export model.float()",
    ),
    "not a number": (lambda: export(nan(), (1, 8, 8)), ModelError, "weight '1.weight': holds NaN or Inf; train the"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_program_is_refused_in_one_line(name, tmp_path):
    make, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message) as caught:
        load_program(saved(tmp_path / "net.pt2", make()))
    assert str(caught.value).startswith(str(tmp_path / "net.pt2")) and "\n" not in str(caught.value)


def test_damaged_file_is_refused(tmp_path):
    path = tmp_path / "net.pt2"
    with pytest.raises(ModelError, match="no such file"):
        load_program(path)
    path.write_bytes(b"hello")
    with pytest.raises(ModelError, match="no exported program"):
        load_program(path)
    buffer = BytesIO()
    torch.export.save(export(Shared(), (1, 8, 8)), buffer)
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(ModelError, match="no exported program"):
        load_program(path)
