# SPDX-License-Identifier: Apache-2.0
"""Each criterion against its paper's formula, spelled out, or against what it claims to predict."""

import copy

import pytest
import torch
from torch import nn

from compress.prune.gates import gate_gradients, own_answer_loss
from compress.prune.graph import Group, Member, PruningGraph
from compress.prune.importance import CRITERIA, bn_scale, fpgm, hessian, lamp, taylor
from compress.prune.layers import LAYERS
from compress.prune.scores import score
from compress.sources import Tensors
from compress.trainer import cross_entropy
from edge_contract.errors import ModelError
from examples.digits import model as digits


class Small(nn.Module):
    """Two readers of one residual stream, and a head that reads it too."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.back = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 5, 1), nn.Conv2d(5, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = x + self.back(torch.relu(self.inner(x)))
        return self.head(x.mean((2, 3)))


def small(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Small().eval()
        net.head.weight.data *= 8  # answers that differ
        return net, torch.rand(5, 1, 8, 8)


def linear_group(rows):
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data.copy_(torch.tensor(rows))
    places = tuple(range(len(rows)))
    return Group("l", len(rows), (Member("l", layer, "out", places, places),))


def test_lamp_is_the_papers_formula():
    rows = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    energies = [sum(float(v) ** 2 for v in row) for row in rows]
    wanted = [e / sum(other for other in energies if other >= e) for e in energies]
    assert lamp(linear_group(rows.tolist())).tolist() == pytest.approx(wanted, rel=1e-5)
    assert float(lamp(linear_group(rows.tolist())).max()) == pytest.approx(1.0)


def test_lamp_of_a_dead_layer_is_zero():
    assert lamp(linear_group([[0.0], [0.0]])).tolist() == [0.0, 0.0]


def test_fpgm_is_the_sum_of_distances_and_finds_the_replaceable_filter():
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    wanted = [sum(float((a - b).square().sum()) ** 0.5 for b in rows) for a in rows]
    assert fpgm(linear_group(rows.tolist())).tolist() == pytest.approx(wanted, rel=1e-4)
    # A large filter between two others is expressed by them; magnitude would take a small one at the rim.
    assert int(fpgm(linear_group([[9.0, 0.0], [10.0, 0.0], [11.0, 0.0], [1.0, 4.0]])).argmin()) == 1


def test_fpgm_reads_filters_and_not_their_readers():
    net, x = small()
    group = next(g for g in PruningGraph(net, x[:1]).groups if g.name == "inner")
    filters = net.inner.weight.detach().flatten(1)
    assert torch.allclose(fpgm(group), torch.cdist(filters, filters).sum(1))


@pytest.mark.parametrize("name", ["stem", "inner"])
def test_gate_gradients_are_those_of_explicit_gates(name):
    """Sample by sample, with a factor written into the network's readers."""
    net, x = small()
    groups = PruningGraph(net, x[:1]).groups
    group = next(g for g in groups if g.name == name)
    found = gate_gradients(net, groups, x, seed=3)[name]
    readers = [m.layer for m in group.members if m.side == "in" and isinstance(m.module, LAYERS)]
    assert readers == {"stem": ["inner", "head"], "inner": ["back"]}[name]
    gates = torch.ones(len(x), group.width, requires_grad=True)

    def gated(module, inputs):
        y = inputs[0]
        return (y * gates.view(*gates.shape, *[1] * (y.ndim - 2)),)

    hooks = [net.get_submodule(layer).register_forward_pre_hook(gated) for layer in readers]
    own_answer_loss(net(x), torch.Generator().manual_seed(3)).backward()
    for hook in hooks:
        hook.remove()
    assert torch.allclose(found, gates.grad, atol=1e-5)


def test_gate_gradients_leave_the_network_as_it_was():
    net, x = small()
    before = copy.deepcopy(net.state_dict())
    gate_gradients(net, PruningGraph(net, x[:1]).groups, x)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_hessian_predicts_the_divergence_of_a_closing_gate():
    """Its own claim: KL(answers ‖ answers with a channel scaled by 1 - ε) = ε² · score, to second order."""
    net, x = small(1)
    groups = PruningGraph(net, x[:1]).groups
    many = x.repeat(600, 1, 1, 1)  # so that the drawn classes average out
    scores = hessian(gate_gradients(net, groups, many)["inner"])
    step = 0.05
    with torch.no_grad():
        p = net(x).log_softmax(1)
        for channel in range(5):
            moved = copy.deepcopy(net)
            moved.back.weight[:, channel] *= 1 - step
            q = moved(x).log_softmax(1)
            divergence = float((p.exp() * (p - q)).sum(1).mean()) / step**2
            # 3 000 draws leave a few per cent; third order is a few more.
            assert divergence == pytest.approx(float(scores[channel]), rel=0.2, abs=2e-4)


def test_taylor_score_predicts_what_removal_costs():
    """The criterion's own claim: to first order it is the change of the loss when the channel is scaled away."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = digits.student().eval()
    x = torch.randn(32, 1, 28, 28, generator=torch.Generator().manual_seed(2))
    y = torch.arange(32) % 10
    loss = nn.functional.cross_entropy(net(x), y)
    loss.backward()
    group = PruningGraph(net, x[:1]).groups[0]
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


def test_batches_of_opposite_gradients_do_not_cancel():
    net, x = small()
    data = Tensors(x.repeat(26, 1, 1, 1), torch.arange(130) % 4)
    groups = PruningGraph(net, x[:1]).groups
    scores = score("taylor", net, data, groups, cross_entropy())
    assert all(float(values.mean()) == pytest.approx(1.0) for values in scores.values())
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("name", CRITERIA)
def test_scores_are_finite_not_negative_and_one_for_each_channel(name):
    net = digits.student()
    data = Tensors(torch.rand(70, 1, 28, 28, generator=torch.Generator().manual_seed(1)), torch.arange(70) % 10)
    groups = PruningGraph(net, data.x[:1]).groups
    scores = score(name, net, data, groups, cross_entropy())
    for group in groups:
        assert scores[group.name].shape == (group.width,)
        assert bool((scores[group.name] >= 0).all()) and bool(scores[group.name].isfinite().all())


def test_criterion_that_does_not_fit_names_another():
    net, x = small()
    groups = PruningGraph(net, x[:1]).groups
    with pytest.raises(ModelError, match="stem: no batch normalisation follows this layer; use method = 'hessian'"):
        bn_scale(groups[0])
    frozen = copy.deepcopy(net).requires_grad_(False)
    with pytest.raises(ModelError, match="no gradient reaches this layer; use method = 'magnitude'"):
        taylor(PruningGraph(frozen.requires_grad_(True), x[:1]).groups[0])
    image = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3))
    with pytest.raises(ModelError, match=r"the answers \[5, 1, 4, 4\] are no logits; use method = 'taylor'"):
        gate_gradients(image, PruningGraph(image, x[:1]).groups, x)


def test_places_of_an_answer_are_classified_each_on_its_own():
    """The Fisher of a map of answers: the sum over its places of that of one answer, where all see the same."""
    logits = torch.tensor([[0.3, -1.0, 0.2]])
    gradients = []
    for shape in ((1, 3), (1, 3, 2, 2)):
        total = torch.zeros(3)
        for seed in range(400):
            x = logits.view(1, 3, *[1] * (len(shape) - 2)).expand(shape).clone().requires_grad_()
            own_answer_loss(x, torch.Generator().manual_seed(seed)).backward()
            total += x.grad.flatten(2).sum(2)[0].square() if x.ndim > 2 else x.grad[0].square()
        gradients.append(total / 400)
    p = logits.softmax(1)[0]
    assert torch.allclose(gradients[0], p * (1 - p), atol=0.03)
    assert torch.allclose(gradients[1], 4 * p * (1 - p), atol=0.12)
