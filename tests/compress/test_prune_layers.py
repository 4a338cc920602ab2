# SPDX-License-Identifier: Apache-2.0
"""Every kind of coupling is cut right, or left whole, or refused by name with the reason."""

import copy

import pytest
import torch
from torch import nn

from compress import cost
from compress.prune.graph import PruningGraph, replay
from compress.prune.importance import magnitude
from compress.prune.ledger import Ledger
from compress.prune.schedule import Limits, choose
from edge_contract.errors import ModelError, UnsupportedOperatorError
from tests.zoo import models


class UNet(nn.Module):
    """Two levels: concatenated skips, transposed convolution, resize, PReLU."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.PReLU(8))
        self.deep = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU())
        self.deeper = nn.Sequential(nn.Conv2d(12, 16, 3, 2, 1), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 10, 2, 2)
        self.merge = nn.Sequential(nn.Conv2d(22, 12, 3, padding=1), nn.ReLU())
        self.out = nn.Conv2d(20, 1, 1)

    def forward(self, x):
        a = self.down(x)
        b = self.deep(a)
        c = self.merge(torch.cat([self.up(self.deeper(b)), b], 1))
        return self.out(torch.cat([nn.functional.interpolate(c, scale_factor=2.0), a], 1))


def series():
    return nn.Sequential(
        nn.Conv1d(3, 8, 5, 2, 2), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 8, 3, groups=8), nn.Conv1d(8, 12, 1),
        nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(12, 10), nn.BatchNorm1d(10), nn.ReLU(),
        nn.Linear(10, 4),
    )  # fmt: skip


class Block(nn.Module):
    """A transformer block whose q, k and v come out of one linear layer."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.project(attended.transpose(1, 2).reshape(n, t, c))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 4, 4)
        self.places = nn.Parameter(torch.randn(1, 16, 16) * 0.02)
        self.blocks = nn.Sequential(Block(16, 2), Block(16, 2))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(x)).mean(1))


class GroupNormed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 6, 3)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.norm(self.first(x))))).mean((2, 3)))


class Shuffled(nn.Module):
    """Channels change places by a reshape, which the graph does not see."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6, 3)

    def forward(self, x):
        x = torch.relu(self.first(x))
        n, c, h, w = x.shape
        x = x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(torch.relu(self.second(x)).mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cell, self.head = kind(4, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.attend(x, x, x)[0].mean(1))


NETS = {
    "u-net": (UNet, (1, 1, 16, 16), {"down.0", "deep.0", "deeper.0", "up", "merge.0"}),
    "series": (series, (1, 3, 40), {"0", "4", "8"}),
    "vit": (ViT, (1, 1, 16, 16), {"blocks.0.mlp.0", "blocks.1.mlp.0"}),
    "group norm": (GroupNormed, (1, 1, 8, 8), {"second"}),
    "shuffled": (Shuffled, (1, 1, 8, 8), {"second"}),
    "squeeze-excite": (lambda: models.MEMBERS["mobilenet-v3"].build(), (1, 1, 28, 28), None),
    "residual": (lambda: models.MEMBERS["resnet-8"].build(), (1, 3, 32, 32), None),
    "ds-cnn": (lambda: models.MEMBERS["ds-cnn"].build(), (1, 1, 49, 10), None),
}


def made(name):
    build, shape, names = NETS[name]
    with torch.random.fork_rng():
        torch.manual_seed(4)
        net = build().eval()
        for module in net.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d)):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
                nn.init.normal_(module.running_mean)
    return net, torch.zeros(shape), names


@pytest.mark.parametrize("name", NETS)
def test_network_is_halved_runs_and_is_replayed(name):
    net, example, names = made(name)
    fresh = copy.deepcopy(net)
    graph = PruningGraph(net, example)
    if names is not None:
        assert {group.name for group in graph.groups} == names
    ledger = Ledger(net, example, graph.groups)
    scores = {group.name: magnitude(group) for group in graph.groups}
    smallest = {group.name: 1 for group in graph.groups}
    full = {"parameters": ledger.total("parameters", {})}
    goal = 0.5 * (full["parameters"] + ledger.total("parameters", smallest))
    chosen = choose(ledger, scores, Limits({"parameters": goal}, full, scope="saving"))
    kept = {group.name: group.width - len(chosen.get(group.name, ())) for group in graph.groups}
    estimates = {kind: ledger.total(kind, kept) for kind in ("macs", "parameters")}
    record = [graph.remove(layer, channels) for layer, channels in chosen.items()]
    found = cost.measure(net, example)
    assert found.parameters == pytest.approx(estimates["parameters"]) and found.parameters <= goal
    assert found.macs == pytest.approx(estimates["macs"])
    again = replay(fresh, example, [record])
    again.load_state_dict(net.state_dict())
    x = torch.rand(3, *example.shape[1:], generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.eval()(x), net.eval()(x))


@pytest.mark.parametrize("name", NETS)
def test_removed_channels_are_exactly_those_that_were_silent(name):
    """Behind concatenations and flattens a wrong place would go unnoticed by shapes alone."""
    net, example, _ = made(name)
    silent = copy.deepcopy(net)
    graph = PruningGraph(net, example)
    chosen = {group.name: tuple(range(0, group.width, 3)) for group in graph.groups}
    with torch.no_grad():
        for group in graph.groups:
            for member in group.members:
                _silence(silent.get_submodule(member.layer), member, chosen[group.name])
    for layer, channels in chosen.items():
        graph.remove(layer, channels)
    x = torch.rand(3, *example.shape[1:], generator=torch.Generator().manual_seed(1))
    # Fewer terms are added up, in another order.
    assert torch.allclose(net(x), silent(x), atol=1e-4, rtol=1e-3)


def _silence(module, member, channels):
    rows = [entry for entry, root in zip(member.channels, member.roots, strict=True) if root in channels]
    if isinstance(module, nn.PReLU):
        return
    is_transposed = isinstance(module, nn.ConvTranspose2d)
    if member.side == "in":
        module.weight[(rows,) if is_transposed else (slice(None), rows)] = 0.0
        return
    module.weight[(slice(None), rows) if is_transposed else (rows,)] = 0.0
    if module.bias is not None:
        module.bias[rows] = 0.0


def test_heads_of_a_fused_attention_stay_and_say_why():
    net, example, _ = made("vit")
    whole = PruningGraph(net, example).whole
    assert "LayerNorm centres all features together" in whole.values() or any("parameter" in r for r in whole.values())
    assert all(layer in whole for layer in ("blocks.0.qkv", "blocks.1.qkv"))
    assert "does not answer as if that channel were silent" in whole["blocks.0.qkv"]


def test_channels_before_a_group_norm_stay_and_say_why():
    net, example, _ = made("group norm")
    assert PruningGraph(net, example).whole == {"first": "GroupNorm centres the channels of a group together"}


@pytest.mark.parametrize(
    ("net", "shape", "message"),
    [
        (Recurrent(nn.LSTM), (1, 5, 4), r"cell: pruning does not handle LSTM: its gates share one hidden state"),
        (Recurrent(nn.GRU), (1, 5, 4), r"cell: pruning does not handle GRU: its gates share .*; leave out the"),
        (Attention(), (1, 5, 8), r"attend: pruning does not handle MultiheadAttention: its heads are packed"),
        (nn.Sequential(nn.Conv2d(4, 8, 3, groups=4)), (1, 4, 8, 8), r"0: a convolution of 4 groups cannot lose single"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 3)), (1, 1, 8, 8),
         r"0: no channel can be removed: GroupNorm centres .*; leave out the prune step; factorize or quantize"),
    ],
    ids=["lstm", "gru", "attention", "grouped", "nothing left"],
)  # fmt: skip
def test_what_cannot_be_cut_is_refused_by_name_with_the_reason(net, shape, message):
    with pytest.raises(UnsupportedOperatorError, match=message):
        PruningGraph(net.eval(), torch.zeros(shape))


def test_unknown_layer_to_keep_offers_the_nearest():
    net, example, _ = made("u-net")
    with pytest.raises(ModelError, match=r"meerge\.0: no such layer to keep; use 'merge\.0'|write 'merge\.0'"):
        PruningGraph(net, example, ["meerge.0"])
