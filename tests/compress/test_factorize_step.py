# SPDX-License-Identifier: Apache-2.0
"""The factorize step: targets met, names checked, what follows it (plan, pruning, fine-tuning) works."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from compress.cost import measure
from compress.factorize import edit
from compress.factorize.step import decide, described, factorize
from compress.prune.graph import PruningGraph
from compress.quantize.step import quantize
from compress.recipe_table import Table
from compress.sources import Tensors
from compress.steps.factorize import Factorize, read_factorize, stages
from edge_contract.errors import BudgetError, ModelError, RecipeError


class Small(nn.Module):
    """Full, depthwise, 1×1 and linear layers, a residual, a layer that is called twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.deep = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point = nn.Conv2d(16, 32, 1)
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(self.deep(self.body(self.body(x)) + x))
        return self.head(torch.relu(self.point(x)).mean((2, 3)))


def made(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Small().eval()
    x = torch.rand(96, 1, 10, 10, generator=torch.Generator().manual_seed(seed))
    return net, Tensors(x, torch.arange(96) % 5)


@pytest.mark.parametrize("method", ["auto", "svd", "spatial-svd", "tucker-2"])
@pytest.mark.parametrize("cost", ["macs", "parameters"])
def test_target_is_met_and_not_far_below(method, cost):
    net, data = made()
    full = measure(net, data.x[:1])
    step = Factorize(method, cost, 0.75, round_to=1, aware="weights")
    changes = factorize(step, net, data)
    found = measure(net, data.x[:1])
    share = getattr(found, cost) / getattr(full, cost)
    assert changes and 0.55 < share <= 0.75
    assert all(how == method or method == "auto" for _, how, _ in changes)
    assert described(changes).count(",") == len(changes) - 1


@pytest.mark.parametrize("aware", ["outputs", "inputs", "weights"])
def test_replayed_network_takes_the_weights_and_answers_alike(aware):
    net, data = made()
    fresh = copy.deepcopy(net)
    changes = factorize(Factorize(share=0.7, aware=aware), net, data)
    again = edit.apply(fresh, changes)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval()(data.x), net(data.x))
    assert stages(Factorize(share=0.7)) == (Factorize(share=0.7),)


def test_knowing_the_loss_keeps_more_of_the_answers():
    """A head that hears two of many channels: only the weighed energy knows that the others may go."""
    torch.manual_seed(1)
    body, head = nn.Linear(20, 20, bias=False), nn.Linear(20, 3, bias=False)
    with torch.no_grad():
        head.weight[:, 2:] = 0.0
        body.weight[2:] *= 5.0  # loud, and unheard
    net = nn.Sequential(body, head).eval()
    data = Tensors(torch.randn(600, 20), torch.zeros(600, dtype=torch.int64))
    expected = net(data.x).detach()

    def error(aware):
        thin = copy.deepcopy(net)
        factorize(Factorize(ranks=(("0", (2,)),), aware=aware), thin, data)
        return float((thin(data.x).detach() - expected).square().mean() / expected.square().mean())

    assert error("outputs") < 0.05 < 0.3 < error("weights")


def test_energy_keeps_at_least_its_share_of_every_layer():
    net, data = made()
    decided = decide(Factorize(energy=0.8, aware="weights", round_to=1), net, data)
    assert {d.option.how for d in decided.decisions} - {"whole"}
    assert all(d.lost <= 0.2 + 1e-9 for d in decided.decisions)
    assert decided.skipped == (("deep", "a convolution of 16 groups is thin already"),)
    everything = decide(Factorize(energy=1.0, aware="weights"), net, data)
    assert everything.changes == ()
    assert described(everything.changes) == "nothing had to go"


def test_ranks_by_hand_choose_the_usual_factorisation():
    net, data = made()
    step = Factorize(ranks=(("body.0", (6,)), ("point", (8,)), ("stem.0", (1, 4))))
    assert factorize(step, net, data) == (
        ("body.0", "spatial-svd", (6,)),
        ("point", "svd", (8,)),
        ("stem.0", "tucker-2", (1, 4)),
    )
    assert [name for name, _ in net.body.named_children()] == ["0", "1", "2"]  # the place keeps its name
    assert net.point.reduce.out_channels == 8


def test_kept_layers_stay():
    net, data = made()
    changes = factorize(Factorize(share=0.95, keep=("body.0",)), net, data)
    assert changes and all(layer != "body.0" for layer, _, _ in changes)
    assert isinstance(net.body[0], nn.Conv2d)


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        (
            Factorize(share=0.5, keep=("haed",)),
            RecipeError,
            "'keep': no linear layer or convolution 'haed'; write 'head'",
        ),
        (Factorize(ranks=(("body.1", (2,)),)), RecipeError, "'ranks': no linear layer or convolution 'body.1'"),
        (Factorize(ranks=(("deep", (2,)),)), RecipeError, "layer 'deep' is left alone; remove it"),
        (Factorize(ranks=(("head", (6,)),)), ModelError, r"head: ranks \[6\] of a layer that has at most \[5\]"),
        (Factorize("spatial-svd", ranks=(("head", (2,)),)), ModelError, "head: Linear has no factorisation"),
        (Factorize(share=0.02), BudgetError, r"2% of the macs asked for, \d+% came closest"),
    ],
)
def test_wrong_names_and_targets_are_one_line(step, error, message):
    net, data = made()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(error, match=message):
        factorize(step, net, data)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_model_without_such_layers_is_refused():
    net = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Flatten())
    data = Tensors(torch.rand(4, 4, 5, 5), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ModelError, match=r"no layer can be factorised \(0: a convolution of 4 groups"):
        factorize(Factorize(share=0.9), net, data)
    with pytest.raises(ModelError, match="no Linear, Conv1d or Conv2d is called"):
        factorize(Factorize(share=0.9), nn.Sequential(nn.Flatten(), nn.BatchNorm1d(100)), data)


def test_weights_that_are_no_numbers_are_refused():
    net, data = made()
    net.point.weight.data[0, 0] = float("nan")
    with pytest.raises(ModelError, match="point: weights hold NaN"):
        factorize(Factorize(share=0.7), net, data)


def test_a_model_that_reads_a_layers_weight_is_told_to_keep_it():
    class Nosy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(16, 16), nn.Linear(16, 3)

        def forward(self, x):
            return self.head(self.inner(x)) + 0 * self.inner.weight.sum()

    data = Tensors(torch.rand(8, 16), torch.zeros(8, dtype=torch.int64))
    net = Nosy()
    with pytest.raises(ModelError, match=r"inner: the model reads the insides of this layer.*; name it in keep"):
        factorize(Factorize(ranks=(("inner", (2,)),), aware="weights"), net, data)
    assert net(data.x).shape == (8, 3)  # it is as it was


def test_pytorchs_transformer_layer_is_refused_by_name_and_factorised_around():
    encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    net = nn.Sequential(nn.Linear(8, 16), encoder, nn.Flatten(), nn.Linear(64, 6))
    data = Tensors(torch.rand(64, 4, 8), torch.zeros(64, dtype=torch.int64))
    with pytest.raises(ModelError, match=r"1\.linear1: the model reads the insides of this layer"):
        factorize(Factorize(ranks=(("1.linear1", (2,)),)), net, data)
    step = Factorize(ranks=(("3", (2,)),))
    assert factorize(step, net, data) == (("3", "svd", (2,)),)


def test_networks_of_tokens_and_of_images_are_factorised_too():
    tokens = nn.Sequential(
        nn.Flatten(2), nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16), nn.Flatten(), nn.Linear(48, 3)
    )
    images = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1))
    series = nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 12, 5), nn.ReLU(), nn.Conv1d(12, 12, 5), nn.Flatten())
    data = Tensors(torch.rand(64, 3, 4, 4), torch.zeros(64, dtype=torch.int64))
    for net in (tokens, images, series):
        full = measure(net, data.x[:1])
        changes = factorize(Factorize(share=0.7, round_to=1), net, data)
        assert changes
        assert measure(net, data.x[:1]).macs <= 0.7 * full.macs


def test_tied_weights_and_layers_of_other_types_are_left_alone():
    class Own(nn.Linear):
        pass

    net = nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 12), Own(12, 12), nn.Linear(12, 12))
    net[1].weight = net[0].weight
    data = Tensors(torch.rand(80, 12), torch.zeros(80, dtype=torch.int64))
    decided = decide(Factorize(share=0.95, round_to=1), net, data)
    assert [layer for layer, _, _ in decided.changes] == ["3"]
    shared = dict.fromkeys(("0", "1"), "its weight is shared with another layer")
    assert dict(decided.skipped) == {**shared, "2": "its class Own may compute more than its weight says"}


def test_plan_and_pruning_read_the_factorised_network():
    net, data = made()
    factorize(Factorize(ranks=(("body.0", (4, 4)), ("point", (8,)), ("head", (3,)))), net, data)
    plan = quantize(net, data.x)
    assert {"body.0.reduce", "body.0.core", "body.0.expand", "point.reduce"} <= {o.name for o in plan.operations}
    net.forward = type(net).forward.__get__(net)
    groups = {group.name for group in PruningGraph(net, data.x[:1]).groups}
    assert {"body.0.core", "point.reduce"} <= groups  # ranks are channels like others


def table(**values):
    return Table(values, "r.toml [step 1]")


def test_step_is_read():
    step = read_factorize(table(target={"parameters": 0.4}, method="tucker-2", epochs=3, keep=["head"], round_to=8))
    assert (step.method, step.cost, step.share, step.keep, step.round_to) == (
        "tucker-2",
        "parameters",
        0.4,
        ("head",),
        8,
    )
    assert (step.training.epochs, step.training.learning_rate, step.aware) == (3, 1e-3, "outputs")
    assert read_factorize(table(energy=0.9)) == replace(step, method="auto", cost="macs", share=None, energy=0.9,
        keep=(), round_to=4, training=replace(step.training, epochs=5))  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "'target': give one of target, energy and ranks"),
        ({"energy": 0.9, "target": {"macs": 0.5}}, "give one of target, energy and ranks"),
        ({"target": {"macs": 0.5, "parameters": 0.5}}, "'target': 2 costs"),
        ({"target": {"mac": 0.5}}, "unknown key 'mac' .*; write 'macs'"),
        ({"tarjet": {"macs": 0.5}}, "'target': give one of"),
        ({"energy": 1.5}, "'energy': 1.5 is out of range"),
        ({"method": "cp", "energy": 0.9}, "'method': unknown value 'cp'"),
        ({"ranks": {"a": 0}}, "layer 'a': 0 is no rank"),
        ({"ranks": {"a": True}}, "layer 'a': True is no rank"),
        ({"ranks": {"a": [1, 2, 3]}}, "layer 'a': 3 ranks where auto has 1 or 2"),
        ({"ranks": {"a": 3}, "method": "tucker-2"}, "layer 'a': 1 ranks where tucker-2 has 2"),
        ({"ranks": [1, 2]}, "'ranks': no table of layers"),
        ({"ranks": {}}, "'ranks': no table of layers"),
    ],
)
def test_slips_are_answered(values, message):
    with pytest.raises(RecipeError, match=message):
        read_factorize(table(**values))
