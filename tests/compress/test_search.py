# SPDX-License-Identifier: Apache-2.0
"""The search: what may vary, what is tried, what stops early, and what an interruption costs."""

import json
import sys
import threading
from pathlib import Path

import pytest

from compress import recipe
from compress.recipe_table import Table
from compress.search.space import Search, read_search, varied
from compress.search.study import Study, Trial, front, search, winner
from compress.search.task import Result, Rival, Task
from compress.search.trial import perform
from compress.search.workers import LocalWorkers
from edge_contract.errors import BudgetError, DataError, RecipeError
from tests.compress.conftest import RECIPE

SEARCH = """
[search]
trials = 4
sampler = "grid"
[[search.choice]]
key = "step.2.target.macs"
values = [0.9, 0.6]
[[search.choice]]
key = "step.3.observer"
values = ["min-max", "squared-error"]
"""
BUDGETED = RECIPE.replace("epochs = 12", "epochs = 3").replace("seed   = 3", "seed = 3\nthreads = 1") + SEARCH


def read(text, **changes):
    return read_search(Table({"choice": [{"key": "seed", "values": [1, 2]}], **changes}, "r.toml [search]"))


class Here:
    """Runs trials one after the other in this process; may be stopped after some."""

    count = 1

    def __init__(self, stop_after=None):
        self.tasks, self.stop_after = [], stop_after

    def submit(self, task):
        from concurrent.futures import Future

        if len(self.tasks) == self.stop_after:
            raise KeyboardInterrupt
        self.tasks.append(task)
        future = Future()
        future.set_result(perform(task))
        return future

    def stop(self):
        pass


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"choice": []}, "nothing to choose"),
        ({"choice": [{"key": "seed", "values": [1]}]}, "give two or more"),
        ({"choice": [{"key": "seed", "values": [1, 1]}]}, "one value twice"),
        ({"choice": [{"key": "seed", "values": [1, 2]}] * 2}, "'seed' twice"),
        ({"choice": [{"key": "seed", "vals": [1, 2]}]}, "unknown key 'vals'"),
        ({"objectives": ["acuracy"]}, "write 'accuracy'"),
        ({"objectives": ["macs", "macs"]}, "each once"),
        ({"sampler": "tpf"}, "write 'tpe'"),
        ({"trials": 0}, "0 is too small"),
    ],
)
def test_slip_in_the_search_table_is_answered_in_one_line(changes, words):
    with pytest.raises(RecipeError, match=words) as caught:
        read("", **changes)
    assert "\n" not in str(caught.value) and "r.toml [search]" in str(caught.value)


@pytest.mark.parametrize("path", ["step.9.epochs", "stepp.1.epochs", "step.1.target.macs.x", "model.source.x"])
def test_choice_that_leads_nowhere_is_refused_before_the_first_trial(path):
    document = {"step": [{"kind": "prune", "target": {"macs": 0.5}}], "model": {"source": "a:b"}}
    with pytest.raises(RecipeError, match="leads nowhere"):
        varied(document, {path: 1}, where="r.toml")


def test_a_varied_recipe_leaves_the_given_one_alone():
    document = {"step": [{"kind": "prune", "target": {"macs": 0.5}}]}
    assert varied(document, {"budget.size_kb": 9}, where="r.toml")["budget"] == {"size_kb": 9}
    assert document == {"step": [{"kind": "prune", "target": {"macs": 0.5}}]}


def results(*pairs):
    return [Trial(i, {}, Result("complete", "", {"accuracy": a, "size_kb": s})) for i, (a, s) in enumerate(pairs)]


def test_front_and_winner():
    trials = results((0.9, 9), (0.95, 20), (0.9, 8), (0.7, 2), (0.7, 3), (0.95, 19))
    assert front(trials, ("accuracy", "size_kb")) == (2, 3, 5)
    assert winner(trials, "r.toml") == 5
    failed = [Trial(0, {}, Result("stopped", "size_kb would be 9, allowed 2"))]
    with pytest.raises(BudgetError, match=r"none of 1 trials kept the budget: size_kb would be 9.*raise the budget"):
        winner(failed, "r.toml [search]")


def test_real_search_shares_its_first_steps_and_resumes(kitchen, tmp_path):
    read = recipe.load(kitchen(BUDGETED))
    folder = tmp_path / "study"
    first = Here(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        search(read, folder, first)
    second = Here()
    heard = []
    study = search(read, folder, second, told=lambda trial, of: heard.append((trial.number, of)))
    assert len(second.tasks) == 2 and heard == [(2, 4), (3, 4)]
    assert [trial.result.state for trial in study.trials] == ["complete"] * 4
    assert len({json.dumps(trial.chosen) for trial in study.trials}) == 4
    assert len(list((folder / "steps").glob("step-1.*.done.pt"))) == 1  # distilled once for all four
    assert len(list((folder / "steps").glob("step-2.*.done.pt"))) == 2
    values = [trial.result.values for trial in study.trials]
    assert {value["macs"] for value in values} == {min(v["macs"] for v in values), max(v["macs"] for v in values)}
    best = max(values, key=lambda v: (v["accuracy"], -v["size_kb"]))
    assert study.trials[study.winner].result.values == best
    assert Study(study.trials, study.front, study.winner).to_json()["schema"] == "strop.search/1"
    changed = recipe.parse(read.text.replace("trials = 4", "trials = 5"), read.path)
    with pytest.raises(DataError, match="its recipe has changed"):
        search(changed, folder, Here())


def test_cost_that_misses_the_budget_stops_a_trial_before_it_trains(kitchen, tmp_path):
    text = BUDGETED.replace("[search]", "[budget]\nmacs = 5\n[search]", 1)
    read = recipe.load(kitchen(text))
    with pytest.raises(BudgetError, match=r"none of 4 trials kept the budget: .*macs would be"):
        search(read, tmp_path / "study", Here())
    assert not list((tmp_path / "study").glob("steps/*.pt"))


def test_trial_that_a_cheaper_one_beats_stops_after_its_step(kitchen, tmp_path):
    path = kitchen(BUDGETED)
    text = path.read_text().split("[search]")[0].replace("epochs = 3", "epochs = 0", 1)
    text = text.replace("epochs   = 2", "epochs   = 0")
    trained = 'kind = "train"\nepochs = 1\nlearning_rate = 0.0001\n'
    text = text.replace('kind   = "distill"\nmethod = "soft-targets"\nepochs = 0\n', trained).replace(
        "learning_rate = 0.02\n", ""
    )
    rival = Rival(0.0, 0, (1.0, 1.0, 1.0))
    result = perform(Task(text, str(path), str(tmp_path / "w"), rivals=(rival,)))
    assert result.state == "stopped" and "after step 1" in result.reason and len(result.steps) == 1


def test_broken_recipe_of_a_trial_is_a_failure_and_no_crash(kitchen, tmp_path):
    path = kitchen()
    result = perform(Task(path.read_text().replace("taylor", "tailor"), str(path), str(tmp_path / "w")))
    assert result.state == "failed" and "write 'taylor'" in result.reason


def test_workers_are_processes_whose_crash_is_a_failed_trial(tmp_path, monkeypatch):
    workers = LocalWorkers(1)
    bad = Task("name = 'x'", str(tmp_path / "r.toml"), str(tmp_path / "w"))
    assert workers.submit(bad).result(60).state == "failed"
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert workers.submit(bad).result(60).reason.startswith("the worker ended")
    workers.stop()


def test_stopping_ends_running_workers(tmp_path, monkeypatch):
    script = tmp_path / "slow"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    workers = LocalWorkers(1)
    future = workers.submit(Task("", "", ""))
    while not workers._children:
        threading.Event().wait(0.01)
    workers.stop()
    assert future.result(10).state == "failed"


def test_search_through_the_command_line(kitchen, tmp_path):
    import subprocess

    path, out = kitchen(BUDGETED.replace("trials = 4", "trials = 2")), tmp_path / "out"
    command = [sys.executable, "-m", "strop", "compress", "search", str(path), "--out", str(out), "--jobs", "2"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=200, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    study = json.loads(done.stdout)
    assert len(study["trials"]) == 2 and study == json.loads((out / "study.json").read_text())
    report = json.loads((out / "best" / "report.json").read_text())
    won = study["trials"][study["winner"]]["result"]["values"]
    assert report["steps"][-1]["validation"]["accuracy"] == won["accuracy"] and report["test"]


def test_search_without_its_table_says_how_to_add_it(kitchen, tmp_path):
    with pytest.raises(RecipeError, match=r"add \[search\]"):
        search(recipe.load(kitchen()), tmp_path / "s", Here())


def test_search_type():
    assert isinstance(read(""), Search)


@pytest.mark.ray
@pytest.mark.timeout(900)  # two workers import torch before the first trial
def test_search_on_two_workers_of_ray(kitchen, tmp_path):
    from compress.search.workers import RayWorkers

    study = search(recipe.load(kitchen(BUDGETED)), tmp_path / "study", RayWorkers(2))
    assert [trial.result.state for trial in study.trials] == ["complete"] * 4
