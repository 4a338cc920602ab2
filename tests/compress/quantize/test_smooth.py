# SPDX-License-Identifier: Apache-2.0
"""SmoothQuant: the same function, smaller activations, and which layers it may touch."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress import pipeline, recipe
from compress.quantize.smooth import Migration, migrations, smooth, smoothed
from compress.quantize.weight_only import simulate
from compress.recipe_table import Table
from compress.steps import read_step
from edge_contract.errors import ModelError, RecipeError, UnsupportedOperatorError, UsageError

WIDTH = 16


class Block(nn.Module):
    """A transformer's block with fused qkv, norm first."""

    def __init__(self, act=F.gelu):
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down, self.act = nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH), act

    def forward(self, x):
        n, length, _ = x.shape
        q, k, v = self.qkv(self.first(x)).reshape(n, length, 3, 2, WIDTH // 2).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, WIDTH)
        x = x + self.out(mixed)
        return x + self.down(self.act(self.up(self.second(x))))


class Tiny(nn.Module):
    """Two blocks and a head on the first token."""

    def __init__(self, act=F.gelu):
        super().__init__()
        self.blocks = nn.Sequential(Block(act), Block(act))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4)

    def forward(self, x):
        return self.head(self.norm(self.blocks(x))[:, 0])


def outliers(seed=0, act=F.gelu):
    """A network whose LayerNorms blow a few channels up, as in large transformers, with small weights behind."""
    torch.manual_seed(seed)
    net = Tiny(act).eval()
    for block in net.blocks:
        block.qkv.weight.data[:, :2] /= 40.0
        block.up.weight.data[:, :2] /= 40.0
    net.head.weight.data[:, :2] /= 40.0
    for module in net.modules():
        if isinstance(module, nn.LayerNorm):
            module.weight.data[:2] *= 60.0
            module.bias.data.normal_()
    return net


def tokens(count=12, seed=1):
    return torch.randn(count, 5, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8, 1.0])
def test_float_function_is_the_same(alpha):
    net, x = outliers(), tokens()
    made = smooth(net, x, alpha)
    assert not torch.equal(made.blocks[0].first.weight, net.blocks[0].first.weight)
    with torch.no_grad():
        assert torch.allclose(made(tokens(4, 9)), net(tokens(4, 9)), rtol=1e-4, atol=1e-4)


def test_norms_and_the_layers_behind_them_are_found():
    found = migrations(outliers(), tokens(1))
    assert found[0] == Migration("blocks.0.first.weight", "blocks.0.first.bias", ("blocks.0.qkv.weight",))
    assert [m.weight for m in found] == [
        *(f"blocks.{i}.{name}.weight" for i in (0, 1) for name in ("first", "second")),
        "norm.weight",
    ]


def test_linear_layers_joined_by_a_relu_are_found_too():
    found = {m.weight: m.readers for m in migrations(outliers(act=torch.relu), tokens(1))}
    assert found["blocks.0.up.weight"] == ("blocks.0.down.weight",)


def test_scales_are_the_papers():
    norm, linear = nn.LayerNorm(3), nn.Linear(3, 2)
    net, x = nn.Sequential(norm, linear).eval(), torch.randn(6, 4, 3)
    peak = norm(x).abs().flatten(0, 1).amax(0)
    scale = peak.sqrt() / linear.weight.abs().amax(0).sqrt()
    made = smooth(net, x)
    assert torch.allclose(made[0].weight, norm.weight / scale, rtol=1e-5)
    assert torch.allclose(made[1].weight, linear.weight * scale, rtol=1e-5)
    # With alpha 1/2 the peaks of activations and of weights become the same.
    assert torch.allclose(made[0](x).abs().flatten(0, 1).amax(0), made[1].weight.abs().amax(0), rtol=1e-4)


def int8(values):
    step = values.abs().max() / 127
    return (values / step).round() * step


def integer_linears(net, x):
    """Answers with inputs and weights of all linear layers rounded to int8, a scale for each tensor."""
    handles = [
        module.register_forward_pre_hook(lambda _, inputs: (int8(inputs[0]),))
        for module in net.modules()
        if isinstance(module, nn.Linear)
    ]
    kept = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Linear):
                module.weight.copy_(int8(module.weight))
        answers = net(x)
        for name, parameter in net.named_parameters():
            parameter.copy_(kept[name])
    for handle in handles:
        handle.remove()
    return answers


@pytest.mark.parametrize("seed", [0, 1])
def test_int8_with_one_scale_loses_less(seed):
    net, x = outliers(seed), tokens(32, 5)
    with torch.no_grad():
        wanted = net(x)
    errors = [float((integer_linears(one, x) - wanted).square().mean()) for one in (net, smooth(net, tokens()))]
    assert errors[1] < errors[0] / 2


class Shared(nn.Module):
    """One norm feeds a linear layer and a sum; another feeds two linear layers; a third is used twice."""

    def __init__(self):
        super().__init__()
        self.summed, self.split, self.twice = (nn.LayerNorm(4) for _ in range(3))
        self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x):
        y = self.summed(x)
        x = y + torch.tanh(self.a(y))
        y = self.split(x)
        x = x + torch.tanh(self.b(y)) + torch.tanh(self.c(y))
        return self.d(self.twice(self.twice(x)))


def test_only_norms_that_linear_layers_alone_read_are_scaled():
    net, x = Shared().eval(), torch.randn(3, 2, 4)
    assert migrations(net, x[:1]) == (Migration("split.weight", "split.bias", ("b.weight", "c.weight")),)
    assert torch.allclose(smooth(net, x)(x), net(x), atol=1e-5)


def test_pytorchs_own_encoder_layer():
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True, norm_first=True).eval()
    made = smooth(layer, tokens(3))
    assert [m.weight for m in migrations(layer, tokens(1))] == ["norm1.weight", "norm2.weight", "linear1.weight"]
    assert torch.allclose(made(tokens(2, 4)), layer(tokens(2, 4)), atol=1e-5)


def test_dead_channel_stays_finite():
    net = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 2)).eval()
    net[0].weight.data[1] = net[0].bias.data[1] = 0.0
    net[1].weight.data[:, 2] = 0.0
    x = torch.randn(5, 4)
    made = smooth(net, x)
    assert all(torch.isfinite(parameter).all() for parameter in made.parameters())
    assert torch.allclose(made(x), net(x), atol=1e-5)


def test_what_cannot_be_smoothed_is_refused():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    with pytest.raises(UnsupportedOperatorError, match="no LayerNorm or linear layer that linear layers alone read"):
        smooth(net, torch.randn(2, 1, 4, 4))
    with pytest.raises(UsageError, match=r"alpha 1.5 is not between 0 and 1; use 0.5"):
        smooth(outliers(), tokens(), 1.5)
    with pytest.raises(UsageError, match="no samples"):
        smooth(outliers(), tokens()[:0])
    with pytest.raises(ModelError, match="cannot be exported"):
        smooth(outliers(), torch.randn(2, 5, WIDTH + 1))


@pytest.mark.parametrize("seed", [0, 1])
def test_dynamic_int8_loses_less_where_channels_stand_out(seed):
    net, x = outliers(seed), tokens(32, 5)
    with torch.no_grad():
        wanted = net(x)
        errors = [float((simulate(one, "dynamic-int8")(x) - wanted).norm()) for one in (net, smooth(net, tokens()))]
    assert errors[1] < errors[0] / 3


def test_recipe_asks_for_it_beside_dynamic_int8_alone():
    step = read_step(Table({"kind": "quantize", "method": "dynamic-int8", "smooth": 0.5}, "r.toml [step 1]"))
    assert step.smooth == 0.5
    net = outliers()
    assert smoothed(net, tokens(), None) is net and smoothed(net, tokens(), step.smooth) is not net
    for method in ("static-int8", "weight-only-int8"):
        with pytest.raises(RecipeError, match=f"'{method}' rounds no activations while it runs; use method"):
            read_step(Table({"kind": "quantize", "method": method, "smooth": 0.5}, "r.toml [step 1]"))
    with pytest.raises(RecipeError, match=r"'smooth': 1.5 is out of range; give a number from 0 to 1"):
        read_step(Table({"kind": "quantize", "method": "dynamic-int8", "smooth": 1.5}, "r.toml [step 1]"))


def test_model_that_is_shipped_is_the_smoothed_one(tmp_path):
    (tmp_path / "strop_smooth_task.py").write_text(TASK)
    text = RECIPE + "smooth = 0.5\n"
    made = {}
    for name, words in (("plain", RECIPE), ("smooth", text)):
        made[name] = pipeline.run(recipe.parse(words, tmp_path / f"{name}.toml"), tmp_path / name)
    weights = {name: found.model[1].weight for name, found in made.items()}
    assert not torch.allclose(weights["plain"], weights["smooth"], rtol=0.01)
    x = torch.rand(5, 1, 4, 4)
    assert torch.allclose(made["plain"].model(x), made["smooth"].model(x), atol=1e-4)
    assert made["smooth"].report.steps[-1].note == "dynamic-int8: the graph stays float, smoothed by 0.5"


TASK = """
import numpy as np
from torch import nn
from compress.sources import DataSplits, Split

def load():
    generator = np.random.default_rng(0)
    parts = [generator.integers(0, 255, (n, 4, 4)).astype(np.uint8) for n in (60, 64, 30, 30)]
    return DataSplits(*(Split(x, (x.mean((1, 2)) > 127).astype(np.int64)) for x in parts), ("dark", "light"))

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
"""
RECIPE = """
name = "tokens"
[model]
source = "strop_smooth_task:net"
[data]
source = "strop_smooth_task:load"
[preprocess]
scale = 0.00392156862745098
[[step]]
kind = "train"
epochs = 1
[[step]]
kind = "quantize"
method = "dynamic-int8"
"""
