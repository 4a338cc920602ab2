# SPDX-License-Identifier: Apache-2.0
"""Healing: from the present student, by its own recipe, with captured inputs that only its teacher labels."""

import shutil
import tomllib
from dataclasses import replace

import numpy as np
import pytest

from compress import compressed, evaluate, pipeline, recipe, report_files, sources
from compress.final import int8_logits
from edge_contract.errors import BudgetError, DataError, RecipeError, StropError, UsageError
from strop.loop import training
from strop.loop.derived import derive, to_toml
from strop.loop.training import Healing, retrain
from tests.support import heal_task
from tests.support.heal_task import shipped, task  # noqa: F401  # fixtures

HEALING = Healing(epochs=6, most_forgotten=4.0)


def quiet(_line):
    """Nobody listens."""


@pytest.fixture(scope="session")
def captured(shipped, task):  # noqa: F811
    """320 inputs of the second domain, as a campaign leaves them."""
    return heal_task.export(shipped.parent / "captured.npz", task.dim(task.bars(320, 20), 5).x)


@pytest.fixture(scope="session")
def healed(shipped, captured):  # noqa: F811
    """One whole healing, looked at by many tests: what it returned and what it said."""
    lines = []
    return retrain(shipped, captured, shipped.parent / "healed", progress=lines.append, healing=HEALING), lines


def accuracy(folder, split):
    model = compressed.load(folder)
    test = sources.tensors(recipe.load(folder.parent / "bars.toml"), split)
    return float(evaluate.hits(int8_logits(model.plan), test.x, test.y).mean())


def test_student_learns_the_new_domain_without_a_label_and_keeps_the_old_one(shipped, task, healed):  # noqa: F811
    """On inputs of both domains that nothing has seen."""
    found, _ = healed
    new, old = task.dim(task.bars(400, 31), 6), task.bars(400, 30)
    before, after = accuracy(shipped, new), accuracy(found.run, new)
    assert before < 0.7
    assert after > before + 0.15
    assert accuracy(found.run, old) > accuracy(shipped, old) - 0.06


def test_what_is_returned_is_what_the_report_says(healed):
    found, lines = healed
    report = report_files.read(found.run)
    assert [row.name for row in report.test] == ["teacher", "before", "float", "int8"]
    assert [row.name for row in report.new] == ["before", "float", "int8"]
    assert found.old_accuracy == report.test[-1].score
    assert found.old_accuracy_before == report.row("before").score
    assert found.new_agreement == report.new[-1].score
    assert found.new_agreement_before == report.new[0].score
    assert found.new_change.low > 0
    assert found.samples + found.new_agreement.samples == 320
    assert found.new_agreement.samples == 80
    assert found.words == lines[-1]
    assert "learned from 240 captured inputs; old accuracy" in found.words
    assert found.to_json()["new_agreement"]["samples"] == 80
    assert any(line.startswith("epoch 6 of 6, loss") for line in lines)


def test_before_is_the_student_that_was_shipped(shipped, healed):  # noqa: F811
    """The old report and the new one read the same test split with the same integers."""
    assert healed[0].old_accuracy_before == report_files.read(shipped).test[-1].score


def test_finished_run_is_read_again_and_trains_nothing(shipped, captured, healed, monkeypatch):  # noqa: F811
    monkeypatch.setattr(pipeline, "run", None)
    lines = []
    again = retrain(shipped / "recipe.toml", captured, healed[0].run, progress=lines.append, healing=HEALING)
    assert again == healed[0]
    assert lines == ["the run was finished before"]


def test_derived_recipe_alone_makes_the_same_student_again(healed, tmp_path):
    again = pipeline.run(recipe.load(healed[0].run / "heal.toml"), tmp_path / "work")
    assert again.plan.digest == compressed.load(healed[0].run).plan.digest


def test_interrupted_run_goes_on_and_ends_in_the_same_integers(shipped, captured, healed, tmp_path):  # noqa: F811
    """It stops after the fourth epoch."""

    class Stop(Exception):
        pass

    def stop(line):
        if line.startswith("epoch 4 "):
            raise Stop

    with pytest.raises(Stop):
        retrain(shipped, captured, tmp_path, progress=stop, healing=HEALING)
    assert not (tmp_path / "report.json").exists()
    lines = []
    retrain(shipped, captured, tmp_path, progress=lines.append, healing=HEALING)
    assert [line[:7] for line in lines if line.startswith("epoch")] == ["epoch 5", "epoch 6"]
    assert compressed.load(tmp_path).plan.digest == compressed.load(healed[0].run).plan.digest
    assert not (tmp_path / ".work").exists()


def report_with(report, *, old=None, new=None):
    """Returns the report with other hits after healing, as bool arrays."""
    from compress.report_parts import pack

    def changed(rows, hits):
        right = np.asarray(hits)
        row = replace(rows[-1], score=evaluate.score(int(right.sum()), right.size), hits=pack(right))
        return (*rows[:-1], row)

    return replace(
        report,
        test=report.test if old is None else changed(report.test, old),
        new=report.new if new is None else changed(report.new, new),
    )


def test_a_student_that_forgets_or_gains_nothing_is_refused_with_numbers(healed):
    from compress.report_parts import unpack

    run, report = healed[0].run, report_files.read(healed[0].run)
    before = [
        unpack(rows[-3 if len(rows) == 3 else 1].hits, rows[0].score.samples) for rows in (report.test, report.new)
    ]
    worse = before[0].copy()
    worse[np.flatnonzero(worse)[:6]] = False  # 1.5 of 400
    with pytest.raises(
        BudgetError, match=r"healing forgot 1.50 points, more than 1: learned from 9 captured inputs; old"
    ):
        training._healed(run, report_with(report, old=worse), 9, Healing())
    assert training._healed(run, report_with(report, old=worse), 9, Healing(most_forgotten=1.5)).samples == 9
    lucky = before[1].copy()
    lucky[np.flatnonzero(~lucky)[:1]] = True
    with pytest.raises(
        BudgetError, match=r"gained nothing beyond chance on the new inputs: .* \[-.*; capture more inputs"
    ):
        training._healed(run, report_with(report, old=before[0], new=lucky), 9, Healing())


def test_refused_student_is_not_left_to_be_shipped(shipped, captured, tmp_path):  # noqa: F811
    """Inputs that never drifted teach nothing new; the report stays, the model does not."""
    with pytest.raises(BudgetError):
        retrain(shipped, captured, tmp_path, progress=quiet, healing=replace(HEALING, epochs=1, most_forgotten=-100.0))
    assert not (tmp_path / "report.json").exists()
    assert not (tmp_path / "model.pt2").exists()
    assert report_files.read(tmp_path / ".work").new


DERIVE = {
    "steps that cut": ("step", [("distill", 8), ("quantize", None)]),
}


def test_derived_recipe_says_what_changes(shipped, captured, tmp_path):  # noqa: F811
    text = derive(
        heal_task.RECIPE,
        Healing(share=0.4, test=0.2, learning_rate=0.005),
        present=shipped,
        captured=captured,
        beside=shipped.parent,
        teacher=None,
    )
    made, own = tomllib.loads(text), tomllib.loads(heal_task.RECIPE)
    assert [step["kind"] for step in made["step"]] == ["distill", "quantize"]
    assert made["step"][0] == {**own["step"][0], "learning_rate": 0.005}
    assert made["model"] == {**own["model"], "source": str(shipped / "model.pt2")}
    assert made["data"] == {
        **own["data"],
        "unlabelled": str(captured),
        "unlabelled_share": 0.4,
        "unlabelled_test": 0.2,
    }
    assert made["budget"] == {"size_kb": 9}
    assert made["preprocess"] == own["preprocess"]
    (tmp_path / "heal.toml").write_text(text)
    read = recipe.load(tmp_path / "heal.toml")
    assert read.model.is_trained
    assert read.file("teacher.pt").is_file()


def test_other_methods_and_tables_are_carried_or_turned_into_distillation(tmp_path):
    steps = [
        {"kind": "train", "method": "labels", "epochs": 3, "max_drop": 1.0},
        {"kind": "sparsify", "method": "n:m"},
        {"kind": "factorize", "energy": 0.9},
        {"kind": "cluster"},
        {"kind": "quantize", "qat": {"epochs": 2}},
    ]
    own = {
        "name": "a",
        "model": {"source": "a:b", "teacher": "a:c"},
        "data": {"source": "a:d", "unlabelled": "a:e", "unlabelled_share": 0.1},
        "step": steps,
        "search": {"trials": 3},
        "check": [{"name": "dark", "kind": "slice"}],
    }
    words = {"present": tmp_path, "captured": tmp_path / "c.npz", "beside": tmp_path, "teacher": tmp_path / "t.pt"}
    made = tomllib.loads(derive(to_toml(own), Healing(), **words))
    assert made["step"] == [{"kind": "distill", "epochs": 3}, steps[1], steps[3], steps[4]]
    assert made["model"]["teacher_weights"] == str(tmp_path / "t.pt")
    assert made["data"]["unlabelled"] == str(tmp_path / "c.npz")
    assert made["check"] == own["check"]
    assert "search" not in made
    with pytest.raises(UsageError, match="the recipe has no teacher: nobody labels what was captured"):
        derive(to_toml({**own, "model": {"source": "a:b"}}), Healing(), **words)


@pytest.mark.parametrize(
    "value",
    [0.5, -3, True, 'a "quoted" back\\slash', "Zürich\n\t\x7f", [1, 2.5, "x"], {"a": {"b c": [True]}}, [], 1e-9],
)
def test_toml_is_written_as_it_is_read(value):
    document = {"first key": value, "table": {"inner": value}, "many": [{"one": value}, {"two": 2}]}
    assert tomllib.loads(to_toml(document)) == document


def test_what_cannot_be_healed_is_refused_in_one_line(shipped, captured, tmp_path):  # noqa: F811
    with pytest.raises(
        UsageError, match="no compressed model is here, so there is no student to heal; give the folder"
    ):
        retrain(shipped.parent / "bars.toml", captured, tmp_path / "out", progress=quiet)
    with pytest.raises(RecipeError, match=r"heal.toml \[data\]: key 'unlabelled': no file "):
        retrain(shipped, tmp_path / "gone.npz", tmp_path / "out", progress=quiet)
    with pytest.raises(DataError, match="inputs of unlabelled are also in train"):
        train = sources.load_data(recipe.load(shipped.parent / "bars.toml"))[0].train
        retrain(shipped, heal_task.export(tmp_path / "old.npz", train.x[:40]), tmp_path / "out", progress=quiet)
    copied = tmp_path / "copied"
    shutil.copytree(shipped, copied)
    (copied / "plan.npz").unlink()
    with pytest.raises(StropError, match=r"plan\.npz is missing"):
        retrain(copied, captured, tmp_path / "out", progress=quiet)
