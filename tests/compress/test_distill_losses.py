# SPDX-License-Identifier: Apache-2.0
"""Terms of a distillation against their formulas written out, and their sum against its parts."""

import math

import pytest
import torch
from torch import nn

from compress.distill.attention import attention_loss, attention_map
from compress.distill.contrastive import contrastive_loss
from compress.distill.objective import Distillation, last_linear
from compress.distill.relational import angle_loss, distance_loss, relational_loss
from compress.distill.terms import TERMS, Settings
from compress.losses import Objective, cross_entropy, label_loss
from compress.steps import training
from edge_contract.errors import ModelError


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def huber(a, b):
    return 0.5 * (a - b) ** 2 if abs(a - b) < 1 else abs(a - b) - 0.5


def test_attention_is_the_formula_written_out():
    student, teacher = draw(2, 3, 2, 2), draw(2, 5, 2, 2, seed=1)
    total = 0.0
    for n in range(2):
        maps = []
        for features in (student, teacher):
            energy = [
                sum(float(features[n, c, i, j]) ** 2 for c in range(features.shape[1]))
                for i in range(2)
                for j in range(2)
            ]
            length = math.sqrt(sum(v * v for v in energy))
            maps.append([v / length for v in energy])
        total += sum((a - b) ** 2 for a, b in zip(*maps, strict=True))
    assert float(attention_loss(student, teacher)) == pytest.approx(total / 2, rel=1e-5)


def test_attention_ignores_size_sign_and_order_of_channels():
    features = draw(3, 4, 5, 5)
    assert float(attention_loss(features, -7 * features.flip(1))) == pytest.approx(0.0, abs=1e-10)


def test_attention_of_a_larger_teacher_is_averaged_over_squares():
    student = draw(1, 2, 3, 3)
    larger = student.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert float(attention_loss(student, larger)) == pytest.approx(0.0, abs=1e-9)


def test_attention_map_has_unit_length():
    assert torch.allclose(attention_map(draw(4, 3, 5, 6)).norm(dim=1), torch.ones(4))


def test_distances_are_the_formula_written_out():
    student, teacher = draw(5, 2), draw(5, 7, seed=1)

    def normalised(points):
        rows = [[math.dist(a, b) for b in points.tolist()] for a in points.tolist()]
        mean = sum(map(sum, rows)) / (5 * 4)
        return [[value / mean for value in row] for row in rows]

    a, b = normalised(student), normalised(teacher)
    expected = sum(huber(a[i][j], b[i][j]) for i in range(5) for j in range(5)) / 25
    assert float(distance_loss(student, teacher)) == pytest.approx(expected, rel=1e-5)


def test_angles_are_the_formula_written_out():
    student, teacher = draw(4, 3), draw(4, 2, seed=1)

    def cosine(points, i, j, k):
        a = [p - q for p, q in zip(points[i], points[j], strict=True)]
        b = [p - q for p, q in zip(points[k], points[j], strict=True)]
        long = math.hypot(*a) * math.hypot(*b)
        return sum(p * q for p, q in zip(a, b, strict=True)) / long if long else 0.0

    s, t = student.tolist(), teacher.tolist()
    n = range(4)
    expected = sum(huber(cosine(s, i, j, k), cosine(t, i, j, k)) for i in n for j in n for k in n) / 64
    assert float(angle_loss(student, teacher)) == pytest.approx(expected, rel=1e-5)


def test_relations_do_not_change_with_scale_turn_and_shift():
    points = draw(6, 3)
    turn, _ = torch.linalg.qr(draw(3, 3, seed=2))
    assert float(relational_loss(3 * points @ turn + 5, points)) == pytest.approx(0.0, abs=1e-6)


def test_relations_have_a_gradient_although_two_embeddings_are_equal():
    student = torch.cat([draw(3, 2), draw(1, 2, seed=3), draw(1, 2, seed=3)]).requires_grad_()
    relational_loss(student, draw(5, 4, seed=1)).backward()
    assert bool(torch.isfinite(student.grad).all()) and bool(student.grad.any())


def test_contrastive_is_the_formula_written_out():
    student, teacher, tau = draw(5, 3), draw(5, 3, seed=1), 0.1

    def cosine(a, b):
        return sum(p * q for p, q in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    total = 0.0
    for i, s in enumerate(student.tolist()):
        scores = [math.exp(cosine(s, t) / tau) for t in teacher.tolist()]
        total -= math.log(scores[i] / sum(scores))
    assert float(contrastive_loss(student, teacher, tau)) == pytest.approx(total / 5, rel=1e-4)


def test_contrastive_knows_directions_alone_and_is_log_n_where_nothing_is_told_apart():
    points = draw(6, 4)
    assert torch.allclose(contrastive_loss(3 * points, points), contrastive_loss(points, 0.1 * points))
    assert float(contrastive_loss(torch.ones(6, 4), points)) >= math.log(6) - 1e-6
    assert float(contrastive_loss(torch.ones(6, 4), torch.ones(6, 4))) == pytest.approx(math.log(6), rel=1e-6)
    assert float(contrastive_loss(points, points)) < float(contrastive_loss(points.flip(0), points))


def test_label_loss_is_torchs_where_all_have_labels_and_leaves_out_the_rest():
    logits, y = draw(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    for smoothing in (0.0, 0.1):
        expected = nn.functional.cross_entropy(logits[:4], y[:4], label_smoothing=smoothing)
        some = torch.tensor([0, 1, 2, 2, -1, -1])
        assert torch.allclose(label_loss(logits, some, smoothing), expected)
    assert float(cross_entropy()(nn.Identity(), logits, torch.full((6,), -1))) == 0.0


def net(width, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = [nn.Conv2d(1, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*body, nn.Linear(width, 3))


LAYERS = (("0", "0"),)


def objective(weights, teacher=None, **words):
    settings = Settings(2.0, 0.1)
    layers = words.get("layers", LAYERS)
    example = draw(1, 1, 5, 5)
    return Distillation(teacher or net(6, seed=1), net(4), weights, settings=settings, layers=layers, example=example)


def test_every_term_of_a_recipe_is_there():
    assert tuple(TERMS) == training.TERMS


@pytest.mark.parametrize(
    "weights",
    [
        {"labels": 0.2, "soft-targets": 0.7, "features": 3.0, "attention": 5.0, "relational": 11.0},
        {"labels": 0.2, "relational": 11.0, "contrastive": 0.8},
    ],
    ids=["all that are seeded alike", "contrastive"],
)
def test_objective_is_the_weighted_sum_of_its_terms(weights):
    x, y, student = draw(5, 1, 5, 5), torch.tensor([0, 1, 2, -1, -1]), net(4)
    alone = {}
    for name in TERMS:
        torch.manual_seed(3)  # the same adapters every time
        alone[name] = float(objective({name: 1.0})(student, x, y).detach())
    torch.manual_seed(3)
    total = float(objective(weights)(student, x, y).detach())
    assert total == pytest.approx(sum(weight * alone[name] for name, weight in weights.items()), rel=1e-5)
    assert len(set(alone.values())) == len(TERMS)


def test_teacher_that_is_the_student_leaves_nothing_to_learn():
    student = net(4)
    loss = objective({"soft-targets": 1.0, "attention": 1.0, "relational": 1.0}, teacher=net(4))
    assert float(loss(student, draw(5, 1, 5, 5), torch.zeros(5)).detach()) == pytest.approx(0.0, abs=1e-6)


def test_only_fitnets_trains_adapters():
    assert objective({"attention": 1.0}).adapters is None
    assert objective({"features": 1.0}).adapters.convs[0].weight.shape == (6, 4, 1, 1)


def test_contrastive_term_trains_a_head_for_each_network_and_both_modules_can_be_trained_along():
    loss = objective({"contrastive": 1.0})
    assert loss.trained is loss.heads
    assert (loss.heads.student.in_features, loss.heads.teacher.in_features) == (4, 6)
    both = objective({"contrastive": 1.0, "features": 1.0})
    assert list(both.trained) == [both.adapters, both.heads] and objective({"labels": 1.0}).trained is None
    loss(net(4), draw(5, 1, 5, 5), torch.zeros(5, dtype=torch.int64)).backward()
    assert all(bool(p.grad.any()) for p in loss.trained.parameters())


def test_embedding_must_be_one_vector_of_each_input():
    tokens = nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Linear(3, 4))
    with pytest.raises(ModelError, match=r"1: its input \[1, 2, 3\] is no embedding \[N,D\]; .* or pool before"):
        Distillation(tokens, tokens, {"relational": 1.0}, settings=Settings(), layers=(), example=torch.zeros(1, 6))


def test_terms_without_layers_ignore_them_and_objectives_are_told_apart():
    loss = objective({"soft-targets": 1.0})
    assert loss.layers == () and isinstance(loss, Objective)
    assert loss.kept()["keys"].tolist() == []


def test_network_without_a_linear_layer_has_no_embedding():
    with pytest.raises(
        ModelError, match=r"no linear layer is called, .*; leave the relational and contrastive terms out"
    ):
        last_linear(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten()), torch.zeros(1, 1, 2, 2))


def test_last_linear_is_the_last_that_is_called():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.body, self.unused = nn.Linear(3, 2), nn.Linear(4, 3), nn.Linear(1, 1)

        def forward(self, x):
            return self.head(self.body(x))

    assert last_linear(Odd(), torch.zeros(1, 4)) == "head"
