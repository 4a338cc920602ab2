# SPDX-License-Identifier: Apache-2.0
"""The parts that the story is told with, on the real digits with little training."""

from dataclasses import replace

import pytest
import torch
from rich.console import Console

from compress import compressed, cost, evaluate, final, recipe, sources
from examples.digits import build, data, model


@pytest.fixture
def console():
    return Console(quiet=True)


@pytest.fixture
def hasty(monkeypatch):
    """One epoch in place of twenty."""
    monkeypatch.setattr(build, "TEACHER", replace(build.TEACHER, epochs=1, ema=0.0))
    monkeypatch.setattr(build, "BASELINE", replace(build.BASELINE, epochs=1))


def test_teacher_is_trained_once_and_then_taken_from_the_folder(tmp_path, console, hasty):
    first = build.train_teacher(tmp_path, console)
    stamp = (tmp_path / "teacher.pt").stat().st_mtime_ns
    again = build.train_teacher(tmp_path, console)
    assert (tmp_path / "teacher.pt").stat().st_mtime_ns == stamp
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert [path.name for path in tmp_path.iterdir()] == ["teacher.pt"]
    read = recipe.load(build.RECIPES["v1"])
    assert sources.load_teacher(read, tmp_path / "teacher.pt") is not None  # the file is what the recipes take


def test_table_has_teacher_and_baseline_before_any_recipe_ran(tmp_path, console, hasty):
    rows = build.table(tmp_path)
    assert [row.name for row in rows] == ["teacher", "student without distillation"]
    for row in rows:
        document = row.to_json()
        assert document["samples"] == 1000
        assert document["low"] < document["accuracy"] < document["high"]
    assert rows[0].score.accuracy > 0.6  # after one epoch
    assert build.render(rows).row_count == 2


def test_other_digits_cost_a_model_dearly(tmp_path, console, monkeypatch):
    """The drift of the story: the same task from another scanner. A net of a few epochs already shows it."""
    monkeypatch.setattr(build, "BASELINE", replace(build.BASELINE, epochs=4))
    net = build.train_baseline(tmp_path, console)
    read = recipe.load(build.RECIPES["v1"])
    splits = (data.load().test, data.load_other())
    own, foreign = (sources.tensors(read, split) for split in splits)
    at_home = evaluate.hits(net, own.x, own.y).mean()
    abroad = evaluate.hits(net, foreign.x, foreign.y).mean()
    assert at_home > 0.85
    assert abroad < at_home - 0.2


def test_augmentation_moves_images_a_little_and_is_seeded():
    x = sources.tensors(recipe.load(build.RECIPES["v1"]), data.load().train.take_first(64)).x
    one, same, other = (data.augment(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.shape == x.shape
    ink = one.sum((1, 2, 3)) / x.sum((1, 2, 3))
    assert float(ink.min()) > 0.5 and float(ink.max()) < 1.6
    assert float(one.min()) >= 0 and float(one.max()) <= 1


def test_shifted_model_is_wrong_by_one_class_and_as_sure_of_itself(finished, tmp_path):
    _, made = finished
    made.save(tmp_path / "good")
    build.mislabel(tmp_path / "good", tmp_path / "bad")
    good, bad = compressed.load(tmp_path / "good"), compressed.load(tmp_path / "bad")
    x = torch.rand(50, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    for right, wrong in ((good.model, bad.model), (final.int8_logits(good.plan), final.int8_logits(bad.plan))):
        logits = evaluate.predict(right, x)
        assert torch.allclose(evaluate.predict(wrong, x), logits.roll(1, 1), atol=1e-5)
    assert bad.plan.digest != good.plan.digest


def test_recipes_ask_for_a_student_of_six_thousand_parameters():
    """The networks' budgets of the story, from the dry run."""
    from compress.dry_run import dry_run

    for path in build.RECIPES.values():
        steps = dry_run(recipe.load(path))
        assert 5_000 < steps[-1].parameters < 7_500
        assert steps[-1].macs <= 0.5 * steps[0].macs
        assert steps[-1].size_kb < 8


def test_second_recipe_is_the_first_one_given_more_time():
    first, second = (recipe.load(path) for path in build.RECIPES.values())
    assert first.model == second.model and first.data == second.data
    epochs = [sum(s.training.epochs for s in read.steps if hasattr(s, "training")) for read in (first, second)]
    assert epochs[1] > epochs[0]


def test_comparison_network_has_the_size_of_the_pruned_student():
    small = cost.measure(model.small(), torch.zeros(1, 1, 28, 28))
    from compress.dry_run import dry_run

    pruned = dry_run(recipe.load(build.RECIPES["v2"]))[-1]
    assert small.parameters == pytest.approx(pruned.parameters, rel=0.25)
