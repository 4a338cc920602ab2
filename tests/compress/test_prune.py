# SPDX-License-Identifier: Apache-2.0
"""Pruning: the graph, the scores, the search for the target, and what is left."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compress import cost, recipe, sources
from compress.prune.batch_norm import reestimate
from compress.prune.graph import PruningGraph, replay
from compress.prune.importance import CRITERIA, magnitude, normalised, taylor
from compress.prune.schedule import Limits, choose, estimate
from compress.prune.step import cut, fine_tune
from compress.steps import Prune
from compress.trainer import Training
from edge_contract.errors import BudgetError, ModelError, UnsupportedOperatorError
from examples.digits import model as digits


class Residual(nn.Module):
    """Two branches that are added, a depthwise layer, a flatten before the head: every coupling of the story."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(8, 12, 1), nn.BatchNorm2d(12), nn.ReLU6(), nn.Conv2d(12, 8, 1))
        self.depthwise = nn.Conv2d(8, 8, 3, 2, 1, groups=8)
        self.head = nn.Linear(8 * 16, 5)

    def forward(self, x):
        x = self.stem(x)
        x = self.depthwise(x + self.inner(x))
        return self.head(torch.flatten(nn.functional.max_pool2d(torch.relu(x), 1), 1))


NETS = {
    "residual, depthwise, flatten": (Residual, torch.zeros(1, 1, 8, 8)),
    "student": (digits.student, torch.zeros(1, 1, 28, 28)),
    "teacher": (digits.teacher, torch.zeros(1, 1, 28, 28)),
}


def made(name, seed=0):
    build, example = NETS[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = build().eval()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
                nn.init.normal_(module.running_mean)
    return net, example


def test_groups_hold_all_that_goes_together():
    net, example = made("residual, depthwise, flatten")
    groups = {group.name: group for group in PruningGraph(net, example).groups}
    assert set(groups) == {"stem.0", "inner.0"}  # the head makes the classes and stays
    stem = {(m.layer, m.side): m for m in groups["stem.0"].members}
    # The add ties the stem's channels to the inner branch's output and to the depthwise layer behind it.
    expected = {("stem.0", "out"), ("inner.0", "in"), ("inner.3", "out"), ("depthwise", "out"), ("head", "in")}
    assert expected | {("stem.1", "out")} == set(stem)
    assert stem["head", "in"].per_channel == 16  # the flatten of 4×4
    assert groups["inner.0"].width == 12


@pytest.mark.parametrize("name", NETS)
def test_removing_dead_channels_changes_no_answer(name):
    net, example = made(name)
    x = torch.randn(6, *example.shape[1:], generator=torch.Generator().manual_seed(3))
    graph = PruningGraph(net, example)
    dead = {group.name: (0, group.width - 1) for group in graph.groups}
    with torch.no_grad():
        for group in graph.groups:
            for member in group.members:
                _silence(member, dead[group.name])
        expected = net(x)
    for group_name, channels in dead.items():
        graph.remove(group_name, channels)
    # Fewer terms are added up, in another order.
    assert torch.allclose(net(x), expected, atol=1e-4)


def _silence(member, channels):
    """Make the group's channels neither say nor hear anything."""
    rows = [c for c, root in zip(member.channels, member.roots, strict=True) if root in channels]
    if isinstance(member.module, nn.BatchNorm2d):
        for values in (member.module.weight, member.module.bias, member.module.running_mean):
            values[rows] = 0.0
    elif member.side == "in":
        member.module.weight[:, rows] = 0.0
    else:
        member.module.weight[rows] = 0.0
        if member.module.bias is not None:
            member.module.bias[rows] = 0.0


@given(st.sampled_from(sorted(NETS)), st.data())
@settings(max_examples=25)
def test_estimate_of_any_cut_is_what_is_then_measured(name, draw):
    net, example = made(name)
    full = cost.measure(net, example)
    graph = PruningGraph(net, example)
    kept = {group.name: draw.draw(st.integers(1, group.width), label=group.name) for group in graph.groups}
    expected = {kind: estimate(full, graph.groups, kept, kind=kind) for kind in ("macs", "parameters")}
    for group in graph.groups:
        if kept[group.name] < group.width:
            graph.remove(group.name, range(group.width - kept[group.name]))
    found = cost.measure(net, example)
    assert found.macs == pytest.approx(expected["macs"])
    assert found.parameters == pytest.approx(expected["parameters"])


@given(st.sampled_from(["macs", "parameters"]), st.floats(0.15, 1.0), st.sampled_from([1, 4, 8]), st.integers(0, 99))
@settings(max_examples=30)
def test_choice_meets_its_target_in_blocks_and_not_much_below(kind, share, block, seed):
    net, example = made("student")
    full, graph = cost.measure(net, example), PruningGraph(net, example)
    generator = torch.Generator().manual_seed(seed)
    scores = {g.name: normalised(torch.rand(g.width, generator=generator)) for g in graph.groups}
    chosen = choose(full, graph.groups, scores, Limits(kind, share, block))
    kept = {g.name: g.width - len(chosen.get(g.name, ())) for g in graph.groups}
    assert all(width % block == 0 for width in kept.values())
    found = estimate(full, graph.groups, kept, kind=kind) / (full.macs if kind == "macs" else full.parameters)
    assert found <= share + 1e-9
    assert found > share - 0.2  # one more block in the widest layers of this small net is up to a fifth
    for name, channels in chosen.items():
        gone = scores[name][list(channels)]
        stay = [c for c in range(len(scores[name])) if c not in channels]
        assert float(gone.max()) <= float(scores[name][stay].min())


def test_layer_scope_takes_the_same_share_of_each_layer():
    net, example = made("student")
    full, graph = cost.measure(net, example), PruningGraph(net, example)
    scores = {g.name: torch.rand(g.width, generator=torch.Generator().manual_seed(1)) ** 5 for g in graph.groups}
    chosen = choose(full, graph.groups, scores, Limits("macs", 0.4, 1, scope="layer"))
    shares = [len(chosen[g.name]) / g.width for g in graph.groups]
    assert max(shares) - min(shares) < 0.05


def test_impossible_target_says_what_came_closest():
    net, example = made("student")
    full, graph = cost.measure(net, example), PruningGraph(net, example)
    scores = {g.name: magnitude(g) for g in graph.groups}
    with pytest.raises(BudgetError, match=r"prune: 1% of the macs asked for, 65% came closest; raise the target"):
        choose(full, graph.groups, scores, Limits("macs", 0.01, 8, most=0.3))


def test_taylor_score_predicts_what_removal_costs():
    """The criterion's own claim: to first order it is the change of the loss when the channel is scaled away."""
    net, example = made("student", seed=5)
    x = torch.randn(32, 1, 28, 28, generator=torch.Generator().manual_seed(2))
    y = torch.arange(32) % 10
    loss = nn.functional.cross_entropy(net(x), y)
    loss.backward()
    graph = PruningGraph(net, example)
    group = graph.groups[0]
    members = [m for m in group.members if not isinstance(m.module, nn.BatchNorm2d) and m.layer == "stem.conv"]
    alone = type(group)(group.name, group.width, tuple(members))
    scores, step = taylor(alone), 1e-3
    for channel in (0, 3, 9):
        moved = copy.deepcopy(net)
        with torch.no_grad():
            moved.stem.conv.weight[channel] *= 1 - step
            change = float(nn.functional.cross_entropy(moved(x), y) - loss) / step
        # A finite difference of float32 losses near 2.3 resolves about 2e-4.
        assert abs(change) == pytest.approx(float(scores[channel]), abs=2e-3, rel=0.05)


@pytest.mark.parametrize("name", CRITERIA)
def test_criterion_finds_the_channels_that_do_nothing(kitchen, name):
    _, net, data, _ = _trained(kitchen)
    full = cost.measure(net, data.x[:1])
    with torch.no_grad():  # two channels of the first block are switched off
        for values in (net.block0.norm.weight, net.block0.norm.bias):
            values[[2, 5]] = 0.0
        net.block0.conv.weight[[2, 5]] = 0.0
        net.block1.conv.weight[[2, 5]] = 0.0
        for values in (net.block1.norm.weight, net.block1.norm.bias):
            values[[2, 5]] = 0.0
        net.block2.conv.weight[:, [2, 5]] = 0.0
    share = (full.macs - 2 * 144 * 9 - 2 * 36 * 9 - 2 * 36 * 16) / full.macs  # just what the two channels cost
    step = Prune(method=name, share=share, round_to=1)
    made = cut(step, net, data)
    assert dict(made.prunings) == {"block0.conv": (2, 5)}


def _trained(kitchen):
    from compress.distill.step import fit

    read = recipe.load(kitchen())
    work, _ = sources.load_data(read)
    data, validation = (sources.tensors(read, split) for split in (work.train, work.validation))
    net = sources.load_model(read)
    fit(read.steps[0], net, data, seed=1, teacher=sources.load_teacher(read))
    return read, net, data, validation


def test_pruned_net_is_mended_by_statistics_and_fine_tuning(kitchen):
    read, net, data, validation = _trained(kitchen)
    full = cost.measure(net, data.x[:1])
    step = Prune(share=0.4, round_to=2, training=Training(epochs=4, batch=32, learning_rate=0.01))
    made = cut(step, net, data, teacher=sources.load_teacher(read))
    pruned = cost.measure(net, data.x[:1])
    assert pruned.macs <= 0.4 * full.macs
    assert all(new % 2 == 0 for _, new in made.widths.values())
    fine_tune(step, net, data, seed=2, teacher=sources.load_teacher(read))
    accuracy = float((net(validation.x).argmax(1) == validation.y).float().mean())
    assert accuracy > 0.85


def test_replay_makes_the_same_network_of_a_fresh_one(kitchen):
    read, net, data, _ = _trained(kitchen)
    first = cut(Prune(share=0.7, round_to=1), net, data).prunings
    second = cut(Prune(share=0.7, round_to=1, method="magnitude"), net, data).prunings
    again = replay(sources.load_model(read), data.x[:1], [first, second])
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval()(data.x[:9]), net.eval()(data.x[:9]))


def test_kept_layers_stay_whole(kitchen):
    _, net, data, _ = _trained(kitchen)
    cut(Prune(share=0.6, round_to=1, keep=("block2.conv",)), net, data)
    assert net.block2.conv.out_channels == 16
    assert net.block0.conv.out_channels < 8


def test_reestimated_statistics_are_the_average_over_batches():
    net = nn.Sequential(nn.BatchNorm2d(2, momentum=0.3), nn.Dropout(0.5))
    x = torch.randn(40, 2, 3, 3, generator=torch.Generator().manual_seed(1)) * 3 + 5
    assert reestimate(net, x, batch=10) == 1
    means = x.reshape(4, 10, 2, 9).mean((1, 3))
    variances = x.reshape(4, 10, 2, 9).permute(0, 2, 1, 3).flatten(2).var(2)
    assert torch.allclose(net[0].running_mean, means.mean(0), atol=1e-5)
    assert torch.allclose(net[0].running_var, variances.mean(0), atol=1e-4)
    assert net[0].momentum == 0.3
    assert not net.training


def test_grouped_convolution_is_refused_by_name(kitchen):
    read = recipe.load(kitchen(kitchen.text.replace("strop_tiny_task:student", "strop_tiny_task:grouped")))
    with pytest.raises(UnsupportedOperatorError, match=r"block1\.conv: a convolution of 4 groups cannot lose"):
        PruningGraph(sources.load_model(read), torch.zeros(1, 1, 12, 12))


def test_recurrent_layer_is_refused_by_name():
    net = nn.Sequential(nn.LSTM(4, 4, batch_first=True))
    with pytest.raises(UnsupportedOperatorError, match="0: pruning does not handle LSTM; leave out the prune step"):
        PruningGraph(net, torch.zeros(1, 3, 4))


@pytest.mark.parametrize("channels", [(), (99,), tuple(range(16)), (-1,)], ids=str)
def test_impossible_removal_is_refused(channels):
    net, example = made("student")
    graph = PruningGraph(net, example)
    before = cost.measure(net, example)
    with pytest.raises(ModelError, match=r"stem\.conv: cannot remove"):
        graph.remove("stem.conv", channels)
    assert cost.measure(net, example) == before


def test_unknown_group_is_named():
    net, example = made("student")
    with pytest.raises(ModelError, match=r"stem: no such pruning group; use one of stem\.conv"):
        PruningGraph(net, example).remove("stem", (1,))
