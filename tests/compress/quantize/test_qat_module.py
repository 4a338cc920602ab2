# SPDX-License-Identifier: Apache-2.0
"""The trainable network of a plan: it computes the plan's integers, and goes back into a plan."""

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.quantize import integer
from compress.quantize.calibrate import Observed, calibrate
from compress.quantize.decide import decide
from compress.quantize.gates import open_gates
from compress.quantize.qat_module import FloatNetwork, QuantizedNetwork
from compress.quantize.step import folded, widened
from tests.support.quant_nets import Net, conv, images, mobile, residual, separable, settled


def gated():
    """A hard-swish, a SiLU and a concatenation: added constants, products, sigmoids, shared codes."""

    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = conv(8, 8, act=nn.Hardswish), conv(8, 8, act=nn.SiLU)

        def forward(self, x):
            return torch.cat([self.a(x), self.b(x)], 1)

    return Net(conv(3, 8, stride=2), Joined(), conv(16, 8, 1), features=8)


@cache
def observed_graph(build):
    net, samples = settled(build), images(64, 1)
    graph = open_gates(folded(net, samples[:1]))
    return graph, calibrate(graph, samples)


def made(build, *, fixed_point=True):
    """Graph, observed ranges, plan, trainable network, and a function that decides again."""
    graph, observed = observed_graph(build)
    rules = {"samples": 64, "embedding": True, "tie_free": True, "fixed_point": fixed_point}
    plan = decide(graph, observed, correct_bias=True, **rules)
    again = partial(decide, correct_bias=False, **rules)
    return graph, observed, plan, QuantizedNetwork(graph, observed.ranges, plan).eval(), again


def redone(network, again):
    """The plan of a network as it stands."""
    return again(network.trained(), Observed(network.ranges(), {}))


def steps_apart(network, plan, x):
    with torch.no_grad():
        real = network(x).numpy()
    return np.abs(real - integer.predict(plan, x)) / plan.activations[plan.outputs["logits"]].scale


@pytest.mark.parametrize("build", [mobile, residual, separable, gated])
def test_start_computes_what_the_plans_integers_compute(build):
    # Without multipliers of 1/q: those put sums onto ties, which float32 breaks at random.
    _, _, plan, network, _ = made(build, fixed_point=False)
    apart = steps_apart(network, plan, images(48, 2))
    assert apart.max() < 1.5
    assert (apart > 0.5).mean() < 0.1


def test_start_is_within_two_steps_where_sums_meet_ties():
    _, _, plan, network, _ = made(mobile)
    assert steps_apart(network, plan, images(48, 2)).max() < 2.5


@pytest.mark.parametrize("build", [mobile, residual, gated])
def test_untrained_network_gives_its_plan_again(build):
    _, _, plan, network, again = made(build)
    assert redone(network, again).digest == plan.digest


def moved(network, seed=0):
    """Move every number as a training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * 2e-3


@pytest.mark.parametrize("build", [mobile, gated])
def test_frozen_scales_are_the_ones_that_the_final_plan_has(build):
    _, _, first, network, again = made(build)
    moved(network)
    network.freeze(redone(network, again), weights=False)
    assert (network.ranges_frozen, network.weights_frozen) == (True, False)
    moved(network, 1)
    network.freeze(redone(network, again), weights=True)
    assert network.weights_frozen
    moved(network, 2)
    last = redone(network, again)
    assert {spec.scale for spec in last.activations.values()} != {spec.scale for spec in first.activations.values()}
    for name, spec in last.activations.items():
        i = network.group[name]
        assert (float(network.steps()[i]), int(network.zero[i])) == (spec.scale, spec.zero_point), name
    for i, op in network._pairs(last):
        assert np.array_equal(network._layer(i).steps().detach().numpy(), last.constants[op.weight].scales)
    assert steps_apart(network, last, images(48, 2)).max() < 2.5


def test_learned_scales_and_zero_points_reach_the_plan():
    _, _, before, network, again = made(separable)
    i = network.group[network.graph.output]  # signed, and bound to no other tensor
    with torch.no_grad():
        network.steps.theta[i] = 0.1  # 10.5 % wider
        network.shift[i] = 2 / 256  # two codes up
    old, new = (plan.activations[network.graph.output] for plan in (before, redone(network, again)))
    assert new.scale == pytest.approx(old.scale * np.exp(0.1), rel=1e-5)
    assert new.zero_point == old.zero_point + 2


def test_tensors_that_share_codes_share_a_step_and_a_sigmoids_is_given():
    graph, _, _, network, _ = made(gated)
    join = next(op for op in graph.operations if op.kind == "concat")
    assert len({network.group[name] for name in (*join.inputs, join.output)}) == 1
    network(images(8, 1)).square().sum().backward()
    for op in graph.operations:
        if op.kind in ("sigmoid", "add_constant"):
            assert network.steps.theta.grad[network.group[op.output]] == 0
    assert network.steps.theta.grad.count_nonzero() > 5


def test_frozen_parts_get_no_gradient():
    _, _, _, network, again = made(separable)
    network.freeze(redone(network, again), weights=True)
    network(images(8, 1)).square().sum().backward()
    with_gradient = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert with_gradient == {n for n, _ in network.named_parameters() if n.endswith(("weight", "bias"))}


def test_state_keeps_the_stage():
    graph, observed, plan, network, again = made(separable)
    moved(network)
    network.freeze(redone(network, again), weights=True)
    copy = QuantizedNetwork(graph, observed.ranges, plan)
    copy.load_state_dict(network.state_dict())
    assert copy.weights_frozen
    assert redone(copy, again).digest == redone(network, again).digest


def test_wide_layers_stay_in_float():
    graph, observed, _, _, again = made(separable)
    graph = widened(graph, ["blocks.1.0"])
    plan = again(graph, observed)
    network = QuantizedNetwork(graph, observed.ranges, plan)
    assert steps_apart(network, plan, images(16, 2)).max() < 2.5
    i, op = next((i, op) for i, op in enumerate(graph.operations) if op.wide)
    x = torch.rand(2, 16, 4, 4)
    assert torch.allclose(network._layer(i)(x), F.conv2d(x, op.weight, network._layer(i).bias, padding=1, groups=16))
    assert network.trained().operations[i].steps is None
    network.freeze(redone(network, again), weights=True)
    assert network.weights_frozen


def test_rounding_of_an_earlier_pass_is_where_training_starts():
    graph, observed, _, _, again = made(separable)
    i, op = next((i, op) for i, op in enumerate(graph.operations) if op.name == "blocks.1.0")
    codes = torch.randint(-127, 128, op.weight.shape).to(torch.int8)
    operations = (*graph.operations[:i], replace(op, codes=codes), *graph.operations[i + 1 :])
    graph = replace(graph, operations=operations)
    network = QuantizedNetwork(graph, observed.ranges, again(graph, observed))
    assert np.array_equal(redone(network, again).constants["blocks.1.0.weight"].codes, codes.numpy())


def test_float_network_is_the_module():
    net, x = settled(mobile), images(4, 3)
    with torch.no_grad():
        assert torch.allclose(FloatNetwork(open_gates(folded(net, x[:1])))(x), net(x), atol=1e-5)


def test_series_are_maps_of_height_one():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(2, 4, 3, padding="same"), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    x = torch.randn(64, 2, 16)
    graph = open_gates(folded(net, x[:1]))
    observed = calibrate(graph, x.unsqueeze(2))
    rules = {"samples": 64, "embedding": False, "tie_free": True, "fixed_point": False, "correct_bias": True}
    plan = decide(graph, observed, **rules)
    assert steps_apart(QuantizedNetwork(graph, observed.ranges, plan), plan, x).max() < 1.5
