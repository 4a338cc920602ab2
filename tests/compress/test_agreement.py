# SPDX-License-Identifier: Apache-2.0
"""Data without labels: what the float model answers stands for them, and the score says how often a model agrees."""

import numpy as np
import pytest
import torch

from compress import pipeline, recipe, sources
from compress.evaluate import predict
from compress.splits import Split
from edge_contract.errors import RecipeError

TASK = """
import numpy as np
import strop_tiny_task
from dataclasses import replace
from compress.sources import DataSplits, Split

def bare():
    splits = strop_tiny_task.load()
    return DataSplits(*(Split.unlabelled(split.x) for _, split in splits.items()))

def judged():
    splits = strop_tiny_task.load()
    wrong = Split(splits.test.x, (splits.test.y + 1) % 3)  # so that accuracy and agreement differ
    return replace(bare(), test=wrong, labels=splits.labels)
"""
QUANTIZE = '[[step]]\nkind = "quantize"\n'


@pytest.fixture
def table(kitchen):
    """``table(data, model)`` writes a recipe that only quantizes, judged by agreement."""
    (kitchen.folder / "strop_bare_task.py").write_text(TASK)

    def write(data="bare", model='source = "strop_tiny_task:teacher"\nweights = "teacher.pt"', steps=QUANTIZE):
        rest = f'[data]\nsource = "strop_bare_task:{data}"\nmetric = "agreement"\n'
        rest += "[preprocess]\nscale = 0.00392156862745098\n"
        return recipe.load(kitchen(f'name = "bars"\n[model]\n{model}\n{rest}{steps}'))

    return write


def test_answers_of_the_entering_model_stand_for_labels(table):
    read = table()
    data, sealed = sources.load_answered(read)
    model = sources.load_model(read)
    wanted = predict(model, sources.tensors(read, data.train).x).argmax(1).numpy()
    assert np.array_equal(data.train.y, wanted)
    assert data.labels == ("0", "1", "2") and not sealed.openings


def test_entering_model_agrees_with_itself_and_its_integers_nearly(table, tmp_path):
    made = pipeline.run(table(), tmp_path / "work")
    enter, after = made.report.steps
    assert enter.score.accuracy == 1.0
    assert 0.9 < after.score.accuracy <= 1.0
    assert after.drop == pytest.approx(100 * (1 - after.score.accuracy))
    rows = {row.name: row.score for row in made.report.test}
    assert rows["float"].accuracy == 1.0 and rows["int8"].samples == 150
    assert made.labels == ("0", "1", "2")


def test_labels_of_the_test_split_are_used_where_there_are_some(table, tmp_path, teacher_weights):
    made = pipeline.run(table("judged"), tmp_path / "work")
    rows = {row.name: row.score.accuracy for row in made.report.test}
    assert rows["float"] < 0.5  # an accuracy, not agreement with itself
    assert made.labels == ("row", "column", "slope")


def test_untrained_student_is_judged_by_its_teacher(table):
    model = 'source = "strop_tiny_task:student"\nteacher = "strop_tiny_task:teacher"\nteacher_weights = "teacher.pt"'
    read = table(model=model, steps='[[step]]\nkind = "distill"\nepochs = 1\n')
    data, _ = sources.load_answered(read)
    teacher = sources.load_teacher(read)
    x = sources.tensors(read, data.validation).x
    assert np.array_equal(data.validation.y, predict(teacher, x).argmax(1).numpy())


def test_nobody_to_agree_with_is_refused(table):
    read = table(model='source = "strop_tiny_task:student"', steps='[[step]]\nkind = "train"\nepochs = 1\n')
    with pytest.raises(RecipeError, match=r"\[data\]: key 'metric': agreement with a model that enters untrained; add"):
        sources.load_answered(read)


def test_labelled_splits_and_other_metrics_are_left_alone(table, kitchen):
    split = Split(np.zeros((3, 12, 12), np.uint8), np.arange(3))
    assert sources.with_answers(table(), split, torch.nn.Identity()) is split
    bare = Split.unlabelled(split.x)
    assert sources.with_answers(recipe.load(kitchen()), bare, torch.nn.Identity()) is bare
