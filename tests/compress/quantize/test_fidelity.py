# SPDX-License-Identifier: Apache-2.0
"""The distance of every layer between a float network and its integers: closed forms, and a layer that was broken."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from compress.quantize import fidelity, integer
from compress.quantize.distribution import BINS, Stream
from compress.quantize.gates import open_gates
from compress.quantize.graph import evaluate
from compress.quantize.step import folded, quantize
from edge_contract.errors import DataError, ModelError
from tests.support.quant_nets import images, mobile, residual, settled


@pytest.fixture(scope="module")
def measured():
    """(graph, plan, samples, fidelity) of a small network with residual additions."""
    torch.set_num_threads(1)
    net, x = settled(mobile), images(64, 1)
    graph, plan = open_gates(folded(net, x[:1])), quantize(net, x)
    return graph, plan, x, fidelity.measure(graph, plan, x)


def test_logits_are_as_far_as_the_integer_evaluation_says(measured):
    graph, plan, x, found = measured
    with torch.no_grad():
        real = dict(evaluate(graph, x))[graph.output].double()
    difference = real - torch.from_numpy(integer.predict(plan, x)).double()
    last = found.layers[-1]
    assert last.sqnr_db == pytest.approx(10 * math.log10(float(real.square().sum() / difference.square().sum())))
    assert last.largest_steps == pytest.approx(
        float(difference.abs().max()) / plan.activations[graph.output].scale, rel=1e-6
    )
    answers = (real - difference).flatten()
    cosine = torch.nn.functional.cosine_similarity(real.flatten(), answers, dim=0)
    assert last.cosine == pytest.approx(float(cosine), abs=1e-9)


def test_every_operation_of_the_plan_has_a_line_in_its_order(measured):
    _, plan, _, found = measured
    assert [layer.layer for layer in found.layers] == [op.name for op in plan.operations]
    assert found.samples == 64
    assert all(layer.own_db > 20 for layer in found.layers)
    first = found.layers[0]
    assert first.sqnr_db == pytest.approx(first.own_db)  # nothing lies before it


def test_the_batch_does_not_decide_the_result(measured, monkeypatch):
    graph, plan, x, found = measured
    monkeypatch.setattr(fidelity, "_BATCH", 7)
    told = []
    again = fidelity.measure(graph, plan, x, progress=lambda done, every: told.append((done, every)))
    assert told[0] == (7, 64) and told[-1] == (64, 64)
    for one, other in zip(again.activations, found.activations, strict=True):
        # Sums of floats in another order may carry a value over the edge of a bin.
        moved = sum(abs(a - b) for a, b in zip(one.counts, other.counts, strict=True))
        assert sum(one.counts) == sum(other.counts) and moved <= 1e-3 * sum(one.counts) + 2
    for one, other in zip(again.layers, found.layers, strict=True):
        assert one.sqnr_db == pytest.approx(other.sqnr_db, abs=0.01)


def test_a_sound_network_has_no_layer_that_falls(measured):
    assert measured[3].first_fall is None


def test_a_broken_layer_is_named_and_those_behind_it_are_not(measured):
    graph, plan, x, _ = measured
    broken = plan.operations[4]
    assert broken.weight
    constants = dict(plan.constants)
    codes = constants[broken.weight].codes.copy()
    codes[: len(codes) // 2] //= 8  # half of its channels say an eighth
    constants[broken.weight] = replace(constants[broken.weight], codes=codes)
    found = fidelity.measure(graph, replace(plan, constants=constants), x)
    assert found.first_fall is not None
    assert found.first_fall.layer == broken.name
    assert found.worst(1)[0].layer == broken.name
    behind = next(layer for layer in found.layers[5:] if layer.kind == "conv2d")
    assert behind.own_db > found.first_fall.own_db + 6  # it is given bad input, but does nothing wrong itself


def test_clipping_is_counted():
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(4, 2))
    nn.init.ones_(net[0].weight)
    inside, outside = torch.rand(64, 1, 2, 2), torch.rand(1, 1, 2, 2)
    graph, plan = folded(net, inside[:1]), quantize(net, inside, observer="min-max")
    outside[0, 0, 0, 0] = 3.0
    found = fidelity.measure(graph, plan, outside)
    assert found.layers[0].clipped == 0.25
    assert found.layers[0].largest_steps == pytest.approx(2 * 255, rel=0.02)  # 3 where the range ends at 1


def test_a_plan_of_another_network_is_refused(measured):
    graph, _, x, _ = measured
    other = quantize(settled(residual), images(64, 1))
    with pytest.raises(ModelError, match="the plan belongs to another graph"):
        fidelity.measure(graph, other, x)


@pytest.mark.parametrize("samples", [torch.zeros(0, 3, 32, 32), torch.zeros(4, 1, 8, 8)])
def test_samples_of_another_shape_are_refused(measured, samples):
    graph, plan, _, _ = measured
    with pytest.raises(DataError, match="samples of shape"):
        fidelity.measure(graph, plan, samples)


def test_fidelity_survives_json(measured):
    found = measured[3]
    assert fidelity.Fidelity.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_histograms_hold_every_value_and_mark_the_range_of_the_codes(measured):
    graph, plan, x, found = measured
    assert [one.name for one in found.activations] == ["input", *(op.name for op in plan.operations)]
    assert sum(found.activations[0].counts) == x.numel()
    for one in (*found.activations, *found.weights):
        assert 0 < len(one.counts) <= BINS
        assert one.range_low <= 0 <= one.range_high
    by_name = {op.name: op for op in graph.operations}
    for one in found.weights:
        weight = by_name[one.name].weight
        assert sum(one.counts) == weight.numel()
        assert one.low <= float(weight.min()) and float(weight.max()) < one.high
        assert one.range_high >= 0.97 * float(weight.abs().max())


@pytest.mark.parametrize("values", [[0.0], [1.0, 2.0, 3.0], [-5.0, 1e-3], [1e9, -1e-9], [0.1] * 5])
def test_a_stream_counts_as_numpy_does(values):
    values = torch.tensor(values)
    whole, pieces = Stream(), Stream()
    whole.observe(values)
    for value in values:
        pieces.observe(value)
    made = whole.histogram("x", (-1.0, 1.0))
    assert made == pieces.histogram("x", (-1.0, 1.0))
    edges = torch.tensor([made.low + i * made.width for i in range(len(made.counts) + 1)], dtype=torch.float64)
    assert torch.histogram(values.double(), edges).hist.int().tolist() == list(made.counts)
    assert made.counts[0] > 0 and made.counts[-1] > 0


def test_a_stream_refuses_what_has_no_place():
    with pytest.raises(DataError, match="NaN or an infinity"):
        Stream().observe(torch.tensor([1.0, float("nan")]))
    assert Stream().histogram("nothing", (-1.0, 1.0)).counts == (0,)
