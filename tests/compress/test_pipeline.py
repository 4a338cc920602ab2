# SPDX-License-Identifier: Apache-2.0
"""Whole recipes on a small task: what is measured, what is refused, and what an interruption costs."""

import sys

import numpy as np
import pytest
import torch

from compress import evaluate, final, pipeline, recipe, report, report_files, sources
from compress.listener import Silent
from edge_contract.errors import BudgetError, RecipeError


class Recorder(Silent):
    """Notes what it hears; stops the run where it is told to."""

    def __init__(self, stop=None):
        self.heard, self.stop = [], stop

    def _note(self, *what):
        self.heard.append(what)
        if what == self.stop:
            raise KeyboardInterrupt

    def begins(self, number, kind, epochs):
        self._step = number
        self._note("begins", number)

    def epoch(self, log):
        self._note("epoch", self._step, log.epoch)

    def ends(self, done, *, resumed):
        self._note("kept" if resumed else "ends", done.number)

    def epochs(self):
        return [what[1:] for what in self.heard if what[0] == "epoch"]


def test_every_step_is_measured_on_validation(finished):
    _, made = finished
    steps = made.report.steps
    assert [step.kind for step in steps] == ["enter", "distill", "prune", "quantize"]
    assert all(step.score.samples == 120 for step in steps)
    assert all(step.score.low < step.score.accuracy < step.score.high or step.score.accuracy == 1 for step in steps)
    enter, distill, prune, quantize = steps
    assert prune.cost.macs <= 0.6 * distill.cost.macs
    assert quantize.size_kb < prune.size_kb / 2.5
    assert distill.score.accuracy > 0.85 > enter.score.accuracy
    assert (enter.drop, distill.drop) == (None, None)  # an untrained model is no reference
    assert prune.drop == pytest.approx(100 * (distill.score.accuracy - prune.score.accuracy))
    assert quantize.change.points == pytest.approx(100 * (quantize.score.accuracy - prune.score.accuracy))
    assert len(distill.losses) == 12 and len(prune.losses) == 2


def test_final_rows_are_on_the_test_split_and_int8_is_the_integer_evaluation(finished):
    read, made = finished
    _, sealed = sources.load_data(read)
    test = sources.tensors(read, sealed.open())
    rows = {row.name: row for row in made.report.test}
    assert list(rows) == ["teacher", "float", "int8"]
    assert all(row.score.samples == 150 for row in rows.values())
    assert rows["float"].score.correct == evaluate.hits(made.model, test.x, test.y).sum()
    assert rows["int8"].score.correct == evaluate.hits(final.int8_logits(made.plan), test.x, test.y).sum()
    assert rows["int8"].score.accuracy > rows["float"].score.accuracy - 0.03
    assert rows["int8"].size_kb == sum(c.codes.nbytes for c in made.plan.constants.values()) / 1000


def test_two_runs_agree_to_the_bit(finished, tmp_path):
    read, made = finished
    again = pipeline.run(read, tmp_path / "work")
    assert report.without_times(again.report) == report.without_times(made.report)
    assert again.plan.digest == made.plan.digest


def test_report_names_what_it_was_made_of(finished):
    read, made = finished
    assert made.report.recipe_digest == read.digest
    assert made.report.data_digest == sources.load_data(read)[0].digest
    assert len(made.report.teacher_digest) == 64
    assert dict(made.report.versions)["torch"] == torch.__version__


def test_no_step_reads_the_test_split(kitchen, monkeypatch):
    """The test images are replaced by mines; every step runs over them, and the first reader is the last act."""
    read = recipe.load(kitchen())
    when = []

    class Mined(sources.SealedSplit):
        def open(self):
            when.append(list(listener.heard))
            return super().open()

    load = sources.load_answered

    def mined(read, teacher_weights):
        work, sealed = load(read, teacher_weights)
        reachable = {
            id(array) for split in (work.train, work.calibration, work.validation) for array in (split.x, split.y)
        }
        inner = sealed._split
        assert not {id(inner.x), id(inner.y)} & reachable
        return work, Mined(inner)

    monkeypatch.setattr(sources, "load_answered", mined)
    listener = Recorder()
    pipeline.run(read, kitchen.folder / "work", listener=listener)
    assert len(when) == 1
    assert when[0] == listener.heard and when[0][-1] == ("ends", 3)


def test_test_images_decide_nothing(finished, kitchen):
    """The same run with other test images ends in the same integers."""
    _, made = finished
    task = kitchen.folder / "strop_other_test.py"
    task.write_text(
        "from strop_tiny_task import *\n"
        "from dataclasses import replace\n"
        "def other():\n    return replace(load(), test=bars(150, 77))\n"
    )
    sys.modules.pop("strop_other_test", None)
    text = kitchen.text.replace("strop_tiny_task:load", "strop_other_test:other")
    again = pipeline.run(recipe.load(kitchen(text)), kitchen.folder / "work")
    assert again.report.data_digest != made.report.data_digest
    assert again.plan.digest == made.plan.digest


@pytest.mark.parametrize(
    ("stop", "left"),
    [
        (("epoch", 1, 10), [(1, 11), (1, 12), (2, 1), (2, 2)]),
        (("ends", 1), [(2, 1), (2, 2)]),
        (("begins", 2), [(2, 1), (2, 2)]),
        (("epoch", 2, 1), [(2, 2)]),
        (("begins", 3), []),
    ],
    ids=str,
)
def test_interrupted_run_goes_on_and_ends_in_the_same_bits(finished, tmp_path, stop, left):
    read, made = finished
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(read, tmp_path, listener=Recorder(stop))
    listener = Recorder()
    again = pipeline.run(read, tmp_path, listener=listener)
    assert listener.epochs() == left
    assert report.without_times(again.report) == report.without_times(made.report)
    assert again.plan.digest == made.plan.digest
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), made.model.parameters(), strict=True))


def test_work_of_another_recipe_is_not_taken(finished, tmp_path, kitchen):
    read, _ = finished
    pipeline.run(read, tmp_path / "work")
    changed = recipe.load(kitchen(kitchen.text.replace("learning_rate = 0.01", "learning_rate = 0.012")))
    listener = Recorder()
    pipeline.run(changed, tmp_path / "work", listener=listener)
    assert ("kept", 1) in listener.heard
    assert listener.epochs() == [(2, 1), (2, 2)]


def test_missed_budget_says_what_came_closest_and_leaves_the_test_split_closed(kitchen, monkeypatch):
    monkeypatch.setattr(sources.SealedSplit, "open", lambda self: pytest.fail("the test split was opened"))
    work = kitchen.folder / "work"
    read = recipe.load(kitchen(kitchen.text + "[budget]\nsize_kb = 0.1\n"))
    with pytest.raises(BudgetError) as caught:
        pipeline.run(read, work)
    text = str(caught.value)
    assert text.startswith("bars.toml [budget]: size_kb is 0.")
    assert "allowed 0.1; step 3 (quantize) came closest: " in text
    assert text.endswith("raise size_kb, or change the steps that decide it")
    assert caught.value.exit_code == 1
    missed = report_files.read(work)
    assert not missed.is_kept and missed.test == () and len(missed.steps) == 4
    assert "The budget was missed" in (work / "report.html").read_text()


def test_relaxed_budget_needs_no_new_training(kitchen):
    work = kitchen.folder / "work"
    with pytest.raises(BudgetError):
        pipeline.run(recipe.load(kitchen(kitchen.text + "[budget]\nsize_kb = 0.1\n")), work)
    listener = Recorder()
    pipeline.run(recipe.load(kitchen(kitchen.text + "[budget]\nsize_kb = 10\n")), work, listener=listener)
    assert listener.epochs() == []


def test_impossible_pruning_target_names_its_step(kitchen):
    text = kitchen.text.replace("macs = 0.6", "macs = 0.02")
    message = r"bars\.toml \[step 2\]: 2% of the macs asked for, \d+% came closest; raise the target or most"
    with pytest.raises(BudgetError, match=message):
        pipeline.run(recipe.load(kitchen(text)), kitchen.folder / "work")


def test_step_that_loses_too_much_is_refused(kitchen):
    text = kitchen.text.replace("macs = 0.6", "macs = 0.25").replace("epochs   = 2\n", "epochs = 0\nmax_drop = 1.0\n")
    with pytest.raises(BudgetError) as caught:
        pipeline.run(recipe.load(kitchen(text)), kitchen.folder / "work")
    message = str(caught.value)
    assert message.startswith("bars.toml [step 2]: prune lost ")
    assert "points, allowed 1 (the step itself -" in message
    assert message.endswith("give it more epochs, a milder target, or raise max_drop")


def test_latency_budget_is_judged_by_the_stopwatch_that_is_handed_in(kitchen):
    read = recipe.load(kitchen(kitchen.text + "[budget]\nlatency_ms = 2.0\n"))
    work = kitchen.folder / "work"
    with pytest.raises(RecipeError, match=r"\[budget\]: key 'latency_ms': nothing measures latency here"):
        pipeline.run(read, work)
    assert not work.exists()  # refused before the first epoch
    with pytest.raises(BudgetError, match=r"latency_ms is 2\.5, allowed 2"):
        pipeline.run(read, work, stopwatch=lambda model, example, plan=None: 2.5)
    made = pipeline.run(read, work, stopwatch=lambda model, example, plan=None: 1.5 if plan else 99.0)
    assert [(line.name, line.value, line.is_kept) for line in made.report.budget] == [("latency_ms", 1.5, True)]


def test_model_with_weights_is_its_own_reference(kitchen):
    text = kitchen.text.replace(
        'source  = "strop_tiny_task:student"', 'source = "strop_tiny_task:teacher"\nweights = "teacher.pt"'
    )
    text = text[: text.index("[[step]]")] + '[[step]]\nkind = "quantize"\n'
    made = pipeline.run(recipe.load(kitchen(text)), kitchen.folder / "work")
    enter, quantize = made.report.steps
    assert enter.drop == 0
    assert quantize.drop == pytest.approx(100 * (enter.score.accuracy - quantize.score.accuracy))


def test_recipe_without_quantize_gives_a_float_model(kitchen):
    text = kitchen.text[: kitchen.text.rindex("[[step]]")]
    made = pipeline.run(recipe.load(kitchen(text)), kitchen.folder / "work")
    assert made.plan is None and made.report.change is None
    assert [row.name for row in made.report.test] == ["teacher", "float"]


def test_few_calibration_samples_are_noted(kitchen):
    task = kitchen.folder / "strop_few.py"
    task.write_text(
        "from strop_tiny_task import *\n"
        "from dataclasses import replace\n"
        "def few():\n    return replace(load(), calibration=load().calibration.take_first(9))\n"
    )
    sys.modules.pop("strop_few", None)
    text = kitchen.text.replace("strop_tiny_task:load", "strop_few:few")
    made = pipeline.run(recipe.load(kitchen(text)), kitchen.folder / "work")
    assert any("9" in note for note in made.report.notes)
    assert np.isfinite(made.report.test[-1].score.accuracy)


def test_threads_are_the_recipes_while_it_runs_and_as_before_afterwards(kitchen):
    seen = []

    class Counter(Recorder):
        def epoch(self, log):
            seen.append(torch.get_num_threads())

    before = torch.get_num_threads()
    read = recipe.load(kitchen(kitchen.text.replace("seed   = 3", "seed = 3\nthreads = 2")))
    pipeline.run(read, kitchen.folder / "work", listener=Counter())
    assert set(seen) == {2}
    assert torch.get_num_threads() == before
