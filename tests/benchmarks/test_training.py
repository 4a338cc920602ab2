# SPDX-License-Identifier: Apache-2.0
"""The harness of the training benchmarks: intervals against an independent library, results that survive a stop."""

import json

import pytest
from scipy import stats

from benchmarks.training.common import Results, mean_interval, paired_interval
from edge_contract.errors import DataError

VALUES = [89.2, 88.9, 89.6, 89.1, 89.4]
SETTINGS = {"plain": {"epochs": 5}, "ours": {"epochs": 5, "alpha": 1.0}}


@pytest.mark.parametrize("n", [2, 3, 5])
def test_interval_is_students(n):
    values = VALUES[:n]
    low, high = stats.t.interval(0.95, n - 1, loc=sum(values) / n, scale=stats.sem(values))
    found = mean_interval(values)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-4)  # the table has three decimals


def test_paired_interval_is_that_of_the_differences_over_common_seeds():
    before, after = dict(enumerate(VALUES)), {seed: value + 1 + 0.1 * seed for seed, value in enumerate(VALUES)}
    found = paired_interval(before, {**after, 9: 0.0})
    t, _ = stats.ttest_rel(list(after.values()), VALUES)
    assert found.n == 5 and found.mean == pytest.approx(1.2)
    half = (found.high - found.low) / 2
    assert found.mean / half == pytest.approx(t / stats.t.ppf(0.975, 4), rel=1e-3)


def test_one_seed_has_no_interval_and_none_no_mean():
    assert mean_interval([1.0]).text() == "1.00 (one seed)"
    with pytest.raises(DataError, match="no values to average; run at least one seed"):
        mean_interval([])


def test_finished_rows_are_taken_from_the_file_and_changed_ones_run_again(tmp_path):
    calls = []

    def make(row):
        calls.append(row)
        return {"accuracy": 90.0}

    first = Results("demo", SETTINGS, tmp_path)
    first.once("plain", 0, lambda: make("plain"))
    first.once("ours", 0, lambda: make("ours"))
    changed = {**SETTINGS, "ours": {"epochs": 5, "alpha": 0.9}}
    second = Results("demo", changed, tmp_path)
    second.once("plain", 0, lambda: make("plain again"))
    assert calls == ["plain", "ours"]
    assert second.missing([0, 1]) == [("ours", 0), ("plain", 1), ("ours", 1)]
    second.forget("plain", 0)
    assert ("plain", 0) in second.missing([0])


def test_file_says_what_it_was_made_with(tmp_path):
    results = Results("demo", SETTINGS, tmp_path)
    results.once("plain", 3, lambda: {"accuracy": 90.0})
    results.write({"gain": "+1.0"})
    document = json.loads((tmp_path / "demo.json").read_text())
    assert document["schema"] == "strop.benchmark-training/1"
    assert set(document["versions"]) >= {"torch", "numpy"} and document["machine"]["cores"] >= 1
    assert document["date"].startswith("20") and document["command"].startswith("python ")
    assert document["summary"] == {"gain": "+1.0"} and document["settings"] == SETTINGS
    assert [(entry["row"], entry["seed"]) for entry in document["entries"]] == [("plain", 3)]


def test_damaged_file_is_named(tmp_path):
    (tmp_path / "demo.json").write_text("{")
    with pytest.raises(DataError, match=r"demo\.json: no results: .*; delete it and run again"):
        Results("demo", SETTINGS, tmp_path)


def test_rows_of_the_distillation_benchmark_are_steps_of_a_recipe():
    from benchmarks.training import distillation
    from compress.recipe_table import Table
    from compress.steps import Distill, read_step
    from tests.zoo import models

    steps = {row: read_step(Table(values, row)) for row, values in distillation.ROWS.items()}
    assert {step.training.batch for step in steps.values()} == {128}
    assert steps["plain"].training.epochs == steps["ours"].training.epochs == steps["usual KD"].training.epochs == 5
    assert isinstance(steps["ours"], Distill) and steps["ours"].init == "teacher"
    assert sum(p.numel() for p in models.student().parameters()) == 12_970
