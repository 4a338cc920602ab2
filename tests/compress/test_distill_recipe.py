# SPDX-License-Identifier: Apache-2.0
"""What a recipe may say of a distillation, and that each way of saying it teaches the student."""

import copy

import pytest
import torch

from compress import recipe, sources
from compress.distill.mutual import Mutual
from compress.distill.remember import Remembering
from compress.distill.soft_targets import soft_target_loss
from compress.distill.step import fit
from compress.recipe_table import Table
from compress.steps import Distill, Train, read_step
from compress.trainer import Training, train
from edge_contract.errors import ModelError, RecipeError

LAYERS = (("block2", "block1"),)


def read(**values):
    return read_step(Table({"kind": "distill", **values}, "r.toml [step 1]"))


@pytest.mark.parametrize(
    ("values", "terms"),
    [
        ({}, {"labels": pytest.approx(0.1), "soft-targets": 0.9}),
        ({"alpha": 1.0}, {"soft-targets": 1.0}),
        ({"method": "mutual"}, {"labels": 0.5, "soft-targets": 0.5}),
        ({"method": "self", "alpha": 0.5}, {"labels": 0.5, "soft-targets": 0.5}),
        ({"method": "relational", "alpha": 0.5}, {"labels": 0.5, "soft-targets": 0.5, "relational": 25.0}),
        ({"method": "contrastive"}, {"labels": pytest.approx(0.1), "soft-targets": 0.9, "contrastive": 0.8}),
        (
            {"method": "attention", "alpha": 0.0, "weight": 3, "layers": [["a", "b"]]},
            {"labels": 1.0, "attention": 3.0},
        ),
        (
            {"losses": {"soft-targets": 0.9, "attention": 50.0, "labels": 0}, "layers": [["a", "b"]]},
            {"soft-targets": 0.9, "attention": 50.0},
        ),
    ],
)
def test_every_method_is_a_weighted_sum(values, terms):
    assert read(**values).terms == terms


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"losses": {"atention": 1.0}}, r"r\.toml \[step 1\] losses: unknown key 'atention' .*; write 'attention'"),
        ({"method": "relation"}, r"key 'method': unknown value 'relation'; write 'relational'"),
        ({"losses": {"soft-targets": -1}}, r"losses: key 'soft-targets': -1 is out of range; give 0 or more"),
        ({"losses": {"soft-targets": 1}, "alpha": 0.5}, r"key 'alpha': given beside losses; remove it"),
        ({"losses": {"soft-targets": 1}, "method": "self"}, r"losses with method 'self'; remove method, or losses"),
        ({"method": "combined"}, r"key 'losses': no losses to combine; add losses = \{"),
        ({"losses": {"labels": 1}}, r"no term asks the teacher; add soft-targets, or use kind = 'train'"),
        ({"alpha": 0.0}, "no term asks the teacher"),
        ({"losses": {"attention": 1}}, r"key 'layers': attention without layers; use method"),
        ({"method": "features"}, r"key 'layers': features without layers"),
        ({"layers": [["a", "b"]]}, r"key 'layers': layers with method 'soft-targets'"),
        ({"init": "teachers"}, r"key 'init': unknown value 'teachers'; write 'teacher'"),
        ({"method": "self", "init": "teacher"}, r"key 'init': the teacher is 'itself'; write init = \"as-is\""),
        ({"teacher": "me"}, r"key 'teacher': unknown value 'me'; write one of 'itself', 'peer', 'recipe'"),
        ({"method": "mutual", "teacher": "recipe"}, r"'recipe' with method 'mutual'; write 'peer', or remove it"),
        ({"losses": {"relational": 1}, "teacher": "peer"}, r"'peer' with method 'combined'; write method = 'mutual'"),
        ({"accumulate": 0}, r"key 'accumulate': 0 is too small; give 1 or more"),
    ],
)
def test_slips_are_named(values, message):
    with pytest.raises(RecipeError, match=message):
        read(**values)


@pytest.fixture
def bars(kitchen):
    read = recipe.load(kitchen())
    work, _ = sources.load_data(read)
    return sources.load_model(read), sources.load_teacher(read), sources.tensors(read, work.train)


def agreement(student, teacher, x):
    with torch.no_grad():
        return float((student(x).argmax(1) == teacher(x).argmax(1)).float().mean())


@pytest.mark.parametrize(
    ("terms", "layers"),
    [
        ({"soft-targets": 0.5, "attention": 5.0}, LAYERS),
        ({"soft-targets": 0.5, "relational": 25.0}, ()),
        ({"soft-targets": 0.5, "features": 1.0, "attention": 1.0, "relational": 5.0}, LAYERS),
    ],
    ids=["attention", "relational", "all"],
)
def test_student_learns_the_teachers_answers_by_every_combination(bars, terms, layers):
    student, teacher, data = bars
    training = Training(epochs=6, batch=32, learning_rate=0.02)
    step = Distill("combined", training, losses=tuple(terms.items()), layers=layers)
    wrong = sources.Tensors(data.x, (data.y + 1) % 3)
    before = agreement(student, teacher, data.x)
    fit(step, student, wrong, seed=1, teacher=teacher)
    assert agreement(student, teacher, data.x) > 0.9 > before


def test_inputs_without_labels_teach_what_the_teacher_says_of_them(bars):
    """Two labelled inputs of one class alone teach one class; with unlabelled inputs the student learns all three."""
    student, teacher, data = bars
    few = sources.Tensors(data.x[data.y == 0][:2], data.y[data.y == 0][:2])
    step = Distill(training=Training(epochs=6, batch=32, learning_rate=0.02), alpha=0.9)
    fit(step, student, few, seed=1, teacher=teacher, unlabelled=data.x)
    assert agreement(student, teacher, data.x) > 0.9


def test_unlabelled_inputs_need_a_teacher(bars):
    student, _, data = bars
    with pytest.raises(RecipeError, match="unlabelled inputs without a teacher; use kind = 'distill'"):
        fit(Train(), student, data, seed=1, unlabelled=data.x)


def test_self_distillation_needs_no_teacher_and_starts_where_it_stands(bars):
    _, teacher, data = bars
    step = Distill("self", Training(epochs=0), teacher="itself")
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    fit(step, teacher.requires_grad_(), data, seed=1)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_born_again_network_comes_back_to_its_own_answers(bars):
    _, model, data = bars
    first = {name: value.clone() for name, value in model.state_dict().items()}
    old = model(data.x).argmax(1)
    step = Distill("self", Training(epochs=6, batch=32, learning_rate=0.02), teacher="itself", init="fresh")
    fit(step, model.requires_grad_(), sources.Tensors(data.x, (data.y + 1) % 3), seed=1)
    assert float((model(data.x).argmax(1) == old).float().mean()) > 0.9
    assert not torch.equal(first["head.weight"], model.head.weight)


def test_teacher_of_another_family_gives_no_weights(bars):
    student, teacher, data = bars
    step = Distill(training=Training(epochs=0), init="teacher")
    with pytest.raises(ModelError, match=r"block2\.conv\.weight: cannot take .*: only the student has it"):
        fit(step, student, data, seed=1, teacher=teacher)


def test_distill_without_a_teacher_is_refused(bars):
    student, _, data = bars
    with pytest.raises(RecipeError, match=r"distill without a teacher; add teacher to \[model\]"):
        fit(Distill(), student, data, seed=1)


def test_memory_may_be_shared_by_trainings(bars):
    student, teacher, data = bars
    remembering = Remembering(teacher)
    for _ in range(2):
        fit(Distill(training=Training(epochs=1, batch=32)), student, data, seed=1, teacher=remembering)
    assert remembering.asked == len(data)


def test_two_peers_agree_at_the_end_and_both_learn(bars):
    student, _, data = bars
    loss = Mutual(student, seed=5, temperature=1.0, alpha=0.5)
    train(student, data.x, data.y, Training(epochs=6, batch=32, learning_rate=0.02), loss=loss, extra=loss.peer)
    assert agreement(student, loss.peer, data.x) > 0.9
    for net in (student, loss.peer):
        assert float((net(data.x).argmax(1) == data.y).float().mean()) > 0.9
    assert not torch.equal(student.head.weight, loss.peer.head.weight)


def test_mutual_loss_is_both_networks_written_out(bars):
    student, _, data = bars
    loss = Mutual(student, seed=5, temperature=2.0, alpha=0.3)
    first, second, y = student(data.x[:9]), loss.peer.eval()(data.x[:9]), data.y[:9]
    hard = sum(torch.nn.functional.cross_entropy(z, y) for z in (first, second))
    soft = soft_target_loss(first, second, 2.0) + soft_target_loss(second, first, 2.0)
    assert torch.allclose(loss(student, data.x[:9], y), 0.7 * hard + 0.3 * soft)


def test_mutual_step_needs_no_teacher_and_is_reproducible(bars):
    student, _, data = bars
    results = []
    for _ in range(2):
        model = copy.deepcopy(student)
        fit(Distill("mutual", Training(epochs=1, batch=32), teacher="peer", alpha=0.5), model, data, seed=1)
        results.append(model.state_dict())
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
