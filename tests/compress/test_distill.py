# SPDX-License-Identifier: Apache-2.0
"""Distillation losses against closed forms, and that a student really learns from its teacher."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compress import recipe, sources
from compress.distill.features import Adapters, Tap, feature_loss, features
from compress.distill.soft_targets import combined, soft_target_loss
from compress.distill.step import fit
from compress.steps import Distill
from compress.trainer import Training
from edge_contract.errors import ModelError

logits = st.lists(st.lists(st.floats(-3, 3), min_size=4, max_size=4), min_size=1, max_size=5).map(torch.tensor)


@given(logits, st.floats(1, 20))
def test_soft_target_loss_is_a_divergence(values, temperature):
    moved = values + torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert float(soft_target_loss(values, values + 3.0, temperature)) == pytest.approx(0.0, abs=1e-4)
    assert float(soft_target_loss(moved, values, temperature)) > 0


def test_soft_target_loss_is_the_sum_written_out():
    student, teacher, t = torch.tensor([[1.0, -2.0, 0.5]]), torch.tensor([[2.0, 1.0, -1.0]]), 3.0
    p = [math.exp(v / t) for v in teacher[0].tolist()]
    q = [math.exp(v / t) for v in student[0].tolist()]
    p, q = [v / sum(p) for v in p], [v / sum(q) for v in q]
    expected = t * t * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert float(soft_target_loss(student, teacher, t)) == pytest.approx(expected, rel=1e-5)


def test_gradient_at_high_temperature_is_that_of_matching_logits():
    """Hinton et al., equation 4: for T → ∞ and centred logits, ∂L/∂z = (z - v)/K (here times the kept T²/T² = 1)."""
    student = torch.tensor([[0.3, -0.5, 0.2]], requires_grad=True)
    teacher = torch.tensor([[1.0, -0.4, -0.6]])
    soft_target_loss(student, teacher, 1000.0).backward()
    # The next term of the expansion is of order 1/T; float32 leaves about 1e-3 at this temperature.
    assert torch.allclose(student.grad, (student.detach() - teacher) / 3, atol=2e-3)


def test_alpha_mixes_teacher_and_labels():
    teacher, student = nn.Linear(3, 4), nn.Linear(3, 4)
    x, y = torch.randn(6, 3, generator=torch.Generator().manual_seed(2)), torch.arange(6) % 4
    soft, hard, half = (
        float(combined(teacher, temperature=2.0, alpha=a)(student, x, y).detach()) for a in (1.0, 0.0, 0.5)
    )
    # Single precision: a few parts in ten million, more after the subtractions of the divergence.
    assert hard == pytest.approx(float(nn.functional.cross_entropy(student(x), y).detach()), rel=1e-5)
    assert half == pytest.approx((soft + hard) / 2, rel=1e-5)


def test_teacher_gets_no_gradient_and_runs_in_eval_mode():
    teacher = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.9)).train()
    loss = combined(teacher, temperature=2.0, alpha=1.0)
    student = nn.Linear(3, 4)
    loss(student, torch.ones(2, 3), torch.tensor([0, 1])).backward()
    assert not teacher.training
    assert teacher[0].weight.grad is None
    assert student.weight.grad is not None


def test_feature_loss_is_half_the_mean_square():
    student, teacher = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 2.0)
    assert float(feature_loss(nn.Identity(), student, teacher)) == pytest.approx(2.0)


def test_larger_teacher_map_is_averaged_down():
    teacher = torch.arange(16.0).reshape(1, 1, 4, 4)
    student = torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]])
    assert float(feature_loss(nn.Identity(), student, teacher)) == pytest.approx(0.0, abs=1e-9)


def test_tap_takes_its_hooks_away():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
    with Tap(net, ["0", "1"]):
        assert net[0]._forward_hooks
    assert not net[0]._forward_hooks and not net[1]._forward_hooks


def test_unknown_layer_gets_the_nearest_name(kitchen):
    read = recipe.load(kitchen())
    student, teacher = sources.load_model(read), sources.load_teacher(read)
    with pytest.raises(ModelError, match=r"block9: no such layer; write 'block"):
        features(student, teacher, [("block9", "block0")], torch.zeros(1, 1, 12, 12))
    with pytest.raises(ModelError, match=r"head: its output is no feature map"):
        features(student, teacher, [("block0", "head")], torch.zeros(1, 1, 12, 12))


def test_adapters_fit_the_layers(kitchen):
    read = recipe.load(kitchen())
    student, teacher = sources.load_model(read), sources.load_teacher(read)
    adapters, _ = features(student, teacher, [("block2", "block1")], torch.zeros(1, 1, 12, 12))
    assert isinstance(adapters, Adapters)
    assert adapters.convs[0].weight.shape == (24, 16, 1, 1)


def agreement(student, teacher, x):
    with torch.no_grad():
        return float((student(x).argmax(1) == teacher(x).argmax(1)).float().mean())


@pytest.mark.parametrize(
    ("method", "layers"), [("soft-targets", ()), ("features", (("block2", "block1"),))], ids=["soft", "features"]
)
def test_student_learns_the_teachers_answers_although_every_label_is_wrong(kitchen, method, layers):
    read = recipe.load(kitchen())
    work, _ = sources.load_data(read)
    data, teacher = sources.tensors(read, work.train), sources.load_teacher(read)
    student = sources.load_model(read)
    wrong = sources.Tensors(data.x, (data.y + 1) % 3)
    step = Distill(method, Training(epochs=6, batch=32, learning_rate=0.02), alpha=1.0, layers=layers)
    before = agreement(student, teacher, data.x)
    fit(step, student, wrong, seed=1, teacher=teacher)
    assert agreement(student, teacher, data.x) > 0.9 > before


def test_feature_loss_falls_while_it_is_trained(kitchen):
    read = recipe.load(kitchen())
    work, _ = sources.load_data(read)
    data, teacher = sources.tensors(read, work.train), sources.load_teacher(read)
    step = Distill(
        "features",
        Training(epochs=4, batch=32, learning_rate=0.02),
        layers=(("block2", "block1"),),
        alpha=0.0,
        weight=100.0,
    )
    logs = fit(step, sources.load_model(read), data, seed=1, teacher=teacher)
    assert logs[-1].loss < 0.7 * logs[0].loss


def test_distilling_is_reproducible_to_the_bit(kitchen):
    read = recipe.load(kitchen())
    work, _ = sources.load_data(read)
    data, teacher = sources.tensors(read, work.train), sources.load_teacher(read)
    step = Distill("features", Training(epochs=1, batch=32), layers=(("block2", "block1"),))
    results = []
    for _ in range(2):
        student = sources.load_model(read)
        fit(step, student, data, seed=7, teacher=teacher)
        results.append(student.state_dict())
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
