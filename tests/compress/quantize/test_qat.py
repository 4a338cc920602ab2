# SPDX-License-Identifier: Apache-2.0
"""Quantization-aware training: it rescues what calibration loses, ends in exact integers, and never ends in worse."""

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch

from compress.distill.soft_targets import combined
from compress.quantize import integer, qat
from compress.quantize.calibrate import Observed, calibrate
from compress.quantize.decide import decide
from compress.quantize.gates import open_gates
from compress.quantize.qat_module import FloatNetwork, QuantizedNetwork
from compress.quantize.step import folded, quantize
from compress.sources import Tensors
from compress.steps.quantize import Settings
from compress.trainer import Training, cross_entropy, train
from edge_contract.errors import DataError, ModelError, UsageError
from tests.support.quant_nets import separable, settled

SHORT = Training(epochs=1, batch=64, learning_rate=2e-4, weight_decay=0.0)
RULES = {"samples": 64, "embedding": True, "tie_free": True, "fixed_point": True}
AGAIN = partial(decide, correct_bias=False, **RULES)


@cache
def stripes(count, seed):
    """Noisy waves [count, 3, 16, 16] in ten directions, and the number of the direction."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(10, (count,), generator=generator)
    angle, at = y[:, None, None] * (torch.pi / 10), torch.arange(16.0) - 7.5
    along = at[:, None] * torch.sin(angle) + at * torch.cos(angle)
    wave = torch.sin(along * 1.2 + 2 * torch.pi * torch.rand(count, 1, 1, generator=generator))
    colours = torch.rand(count, 3, 1, 1, generator=generator)
    return Tensors(wave[:, None] * colours + 0.5 * torch.randn(count, 3, 16, 16, generator=generator), y)


VALIDATION = stripes(512, 9)


@cache
def trained():
    """A network that tells about 97 % of the directions."""
    net, rows = settled(separable, size=16), stripes(1536, 0)
    train(net, rows.x, rows.y, Training(epochs=4, batch=64, learning_rate=1e-2))
    return net


@cache
def four_bits():
    """Graph with 4-bit weights, its ranges and its plan."""
    samples = stripes(64, 1).x
    graph = open_gates(folded(trained(), samples[:1]))
    layers = ("conv2d", "linear")
    operations = (replace(op, weight_bits=4) if op.kind in layers else op for op in graph.operations)
    graph = replace(graph, operations=tuple(operations))
    observed = calibrate(graph, samples)
    return graph, observed, decide(graph, observed, correct_bias=True, **RULES)


def learned(training, *, loss=None, **words):
    graph, observed, plan = four_bits()
    loss = loss or combined(FloatNetwork(graph), temperature=2.0, alpha=1.0)
    return qat.learn(
        graph, observed, plan, stripes(1536, 0), VALIDATION, decide=AGAIN, loss=loss, training=training, **words
    )


def divergence(plan):
    """KL of the float network's answers from the plan's."""
    with torch.no_grad():
        target = trained()(VALIDATION.x).log_softmax(1)
    answer = torch.from_numpy(integer.predict(plan, VALIDATION.x)).log_softmax(1)
    return float((target.exp() * (target - answer)).sum(1).mean())


def test_training_rescues_four_bits():
    plan = learned(replace(SHORT, epochs=3))
    assert divergence(plan) < 0.5 * divergence(four_bits()[2])
    assert np.abs(plan.constants["blocks.1.0.weight"].codes).max() <= 7
    assert "quantization-aware training gave" in plan.notes[-1]


def test_stages_follow_each_other_and_the_end_is_what_was_trained():
    graph, observed, plan = four_bits()
    network, seen = QuantizedNetwork(graph, observed.ranges, plan), []

    def loss(model, x, y):
        seen.append((model.ranges_frozen, model.weights_frozen))
        return cross_entropy()(model, x, y)

    hook = qat._freezing(qat.Schedule(0.25, 0.5), AGAIN, observed)
    rows = stripes(1024, 5)
    train(network, rows.x, rows.y, SHORT, loss=loss, after_step=hook)
    assert seen == [(False, False)] * 4 + [(True, False)] * 4 + [(True, True)] * 8
    last = AGAIN(network.trained(), Observed(network.ranges(), {}))
    with torch.no_grad():
        real = network(VALIDATION.x).numpy()
    step = last.activations[last.outputs["logits"]].scale
    assert np.abs(real - integer.predict(last, VALIDATION.x)).max() < 2.5 * step


def test_worse_than_the_start_returns_the_start():
    def away(model, x, y):
        return -cross_entropy()(model, x, y)

    plan = learned(replace(SHORT, learning_rate=1e-2), loss=away)
    assert plan.digest == four_bits()[2].digest
    assert plan.notes[-1].endswith("the plan from calibration is kept")


def test_whole_way_from_a_module_traces_once(monkeypatch):
    exported, export = [], torch.export.export
    monkeypatch.setattr(torch.export, "export", lambda *a, **k: exported.append(1) or export(*a, **k))
    logs = []
    plan = qat.qat(trained(), stripes(64, 1).x, stripes(256, 5), VALIDATION, training=SHORT, progress=logs.append)
    assert len(exported) == 1
    assert [log.epoch for log in logs] == [1]
    assert plan.samples == 64
    assert plan.outputs.keys() == {"logits", "embedding"}


def test_no_epoch_leaves_the_plan_of_calibration():
    samples = stripes(64, 1).x
    plan = qat.qat(trained(), samples, stripes(256, 5), VALIDATION, training=replace(SHORT, epochs=0))
    assert plan.digest == quantize(trained(), samples).digest


def test_settings_of_the_start_are_kept():
    samples = stripes(64, 1).x
    settings = Settings(observer="min-max", wide=("blocks.1.0",))
    plan = qat.qat(trained(), samples, stripes(256, 5), VALIDATION, settings=settings, training=SHORT)
    start = quantize(trained(), samples, observer="min-max", wide=("blocks.1.0",))
    assert [op.kind for op in plan.operations] == [op.kind for op in start.operations]
    given = plan.activations[plan.input], start.activations[start.input]
    assert given[0].scale == pytest.approx(given[1].scale, rel=0.02)
    assert plan.notes[-1].startswith("quantization-aware training gave")


def test_few_samples_are_noted():
    rows = stripes(64, 5)
    plan = qat.qat(trained(), rows.x[:32], rows, VALIDATION, training=replace(SHORT, epochs=0))
    assert plan.notes[0].startswith("only 32 calibration samples")


def test_an_interrupted_training_ends_in_the_same_integers(tmp_path):
    training = replace(SHORT, epochs=2)
    whole = learned(training)

    def stop(log):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learned(training, checkpoint=tmp_path / "c.pt", progress=stop)
    assert learned(training, checkpoint=tmp_path / "c.pt").digest == whole.digest


def test_bad_input():
    def lost(model, x, y):
        return model(x).sum() * float("nan")

    with pytest.raises(ModelError, match="the loss became nan"):
        learned(SHORT, loss=lost)
    with pytest.raises(UsageError, match="averaged weights"):
        learned(replace(SHORT, ema=0.9))
    empty = Tensors(VALIDATION.x[:0], VALIDATION.y[:0])
    with pytest.raises(DataError, match="validation split"):
        qat.learn(*four_bits(), stripes(64, 5), empty, decide=AGAIN, loss=cross_entropy())
    with pytest.raises(UsageError, match="ranges first"):
        qat.Schedule(0.5, 0.2)
