# SPDX-License-Identifier: Apache-2.0
"""What one layer alone costs: against a network that was quantized by hand, and properties of the choices."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from compress.evaluate import paired_difference
from compress.quantize import sensitivity
from compress.quantize.gates import open_gates
from compress.quantize.graph import FloatGraph, evaluate, layer_names
from compress.quantize.sensitivity import Sensitivity
from compress.quantize.step import folded, quantize
from edge_contract.errors import DataError, ModelError, UsageError
from tests.support.quant_nets import images, mobile, residual, settled


@pytest.fixture(scope="module")
def case():
    """(graph, plan, samples, labels, sensitivity) of a small network with residual additions."""
    torch.set_num_threads(1)
    net, x = settled(mobile), images(64, 1)
    graph, plan = open_gates(folded(net, x[:1])), quantize(net, x)
    labels = torch.arange(64) % 10
    return graph, plan, x, labels, sensitivity.measure(graph, plan, x, labels)


def fake(values, at):
    codes = torch.round(values / at.scale) + at.zero_point
    return (codes.clamp(-128, 127) - at.zero_point) * at.scale


def by_hand(graph: FloatGraph, plan, x, index):
    """The logits with the weights of one layer as the plan has them, between rounded tensors, all else float."""
    values = {graph.input: x}
    for i, op in enumerate(graph.operations):
        inputs = [values[name] for name in op.inputs]
        if i == index:
            weight, bias = plan.constants[f"{op.name}.weight"], plan.constants[f"{op.name}.bias"]
            scales = torch.from_numpy(np.array(weight.channel_scales()))
            real = torch.from_numpy(weight.codes).float() * scales.view(-1, *[1] * (weight.codes.ndim - 1))
            op = replace(
                op, weight=real, bias=torch.from_numpy((bias.codes * bias.channel_scales()).astype(np.float32))
            )
            inputs = [fake(inputs[0], plan.activations[op.inputs[0]])]
        single = FloatGraph("a", (), op.output, (replace(op, inputs=("a", "b")[: len(inputs)]),))
        if len(inputs) == 2:
            result = (inputs[0] + inputs[1]).clamp(op.low, op.high)
        else:
            result = dict(evaluate(single, inputs[0]))[op.output]
        values[op.output] = fake(result, plan.activations[op.output]) if i == index else result
    return values[graph.output]


@pytest.mark.parametrize("index", [0, 5, -1])
def test_effect_is_that_of_the_layer_quantized_by_hand(case, index):
    graph, plan, x, labels, found = case
    layers = [i for i, op in enumerate(graph.operations) if op.weight is not None]
    with torch.no_grad():
        real, changed = by_hand(graph, plan, x, None), by_hand(graph, plan, x, layers[index])
    effect = found.layers[index].effects["8"]
    p, q = F.softmax(real.double(), 1), F.softmax(changed.double(), 1)
    assert effect.kl == pytest.approx(float((p * (p / q).log()).sum(1).mean()), rel=1e-3)
    assert effect.agreement == pytest.approx(float((real.argmax(1) == changed.argmax(1)).double().mean()))
    a, b = ((logits.argmax(1) == labels).numpy() for logits in (real, changed))
    assert effect.change == paired_difference(a, b)


def test_fewer_bits_cost_more_and_weigh_less(case):
    for layer in case[4].layers:
        kl = {choice: effect.kl for choice, effect in layer.effects.items()}
        size = {choice: effect.size_bytes for choice, effect in layer.effects.items()}
        assert kl["4"] > kl["8"] >= 0 and kl["4"] > kl["float"] >= 0
        assert layer.effects["4"].sqnr_db < layer.effects["8"].sqnr_db
        assert size["4"] < size["8"] < size["float"] == 4 * layer.parameters


def test_layers_with_weights_in_order_and_by_rank(case):
    graph, _, _, _, found = case
    assert [layer.layer for layer in found.layers] == [op.name for op in graph.operations if op.weight is not None]
    ranked = [layer.effects["4"].kl for layer in found.ranked("4")]
    assert ranked == sorted(ranked, reverse=True)
    gains = [layer.effects["8"].kl - layer.effects["float"].kl for layer in found.ranked("8", against="float")]
    assert gains == sorted(gains, reverse=True)


def test_the_batch_does_not_decide_the_result_and_neither_does_a_second_run(case, monkeypatch):
    graph, plan, x, labels, found = case
    assert sensitivity.measure(graph, plan, x[:20], labels[:20]) == sensitivity.measure(
        graph, plan, x[:20], labels[:20]
    )
    monkeypatch.setattr(sensitivity, "_MOST_SAMPLES", 9)
    told = []
    again = sensitivity.measure(graph, plan, x, choices=("8",), progress=lambda done, every: told.append((done, every)))
    assert told[0] == (9, 64) and told[-1] == (64, 64)
    assert again.layers[0].effects["8"].change is None
    for one, other in zip(again.layers, found.layers, strict=True):
        assert one.effects["8"].kl == pytest.approx(other.effects["8"].kl, rel=1e-3, abs=1e-9)


def test_names_are_those_of_the_plan():
    torch.set_num_threads(1)
    net, x = settled(residual), images(64, 1)
    graph, plan = open_gates(folded(net, x[:1])), quantize(net, x)
    assert list(layer_names(graph)) == [op.name for op in plan.operations]
    with pytest.raises(ModelError, match="the plan belongs to another graph"):
        sensitivity.measure(graph, quantize(settled(mobile), images(64, 1)), x)


def test_wrong_words_are_one_line(case):
    graph, plan, x, labels, _ = case
    with pytest.raises(UsageError, match="sensitivity: unknown choice '2'; use 4, 8, float"):
        sensitivity.measure(graph, plan, x, choices=("8", "2"))
    with pytest.raises(DataError, match="64 samples and 3 labels"):
        sensitivity.measure(graph, plan, x, labels[:3])
    with pytest.raises(DataError, match=r"samples of shape \[0, 3, 32, 32\]"):
        sensitivity.measure(graph, plan, x[:0])


def test_sensitivity_survives_json(case):
    found = case[4]
    assert Sensitivity.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_weights_of_four_bits_that_the_plan_has_are_taken_as_they_are(case):
    graph, plan, x, _, found = case
    name = graph.operations[0].name
    weight = plan.constants[f"{name}.weight"]
    rough = replace(weight, codes=np.zeros_like(weight.codes), bits=4)  # a plan that knows better than rounding
    other = replace(plan, constants={**plan.constants, weight.name: rough})
    again = sensitivity.measure(graph, other, x, choices=("4",))
    assert again.layers[0].effects["4"].kl > 2 * found.layers[0].effects["4"].kl
    assert again.layers[1].effects["4"].kl == pytest.approx(found.layers[1].effects["4"].kl)
