# SPDX-License-Identifier: Apache-2.0
"""A search with a predictor: the fastest candidate first, none trained that cannot keep the budget, all measured."""

import json
import math
import tomllib
from concurrent.futures import Future
from pathlib import Path

import pytest

from benchmarks.predict.board import Board
from benchmarks.predict.ideas import Fit
from benchmarks.predict.limits import Limits
from benchmarks.predict.predictor import Forecast, Judged, Predictor
from compress import cost, predictors, recipe
from compress.search.order import cheapest_first, grid
from compress.search.space import Choice
from compress.search.study import search
from compress.search.task import Result, Task
from compress.search.trial import perform
from edge_contract.errors import MeasurementError, RecipeError
from tests.compress.conftest import RECIPE

HERE = "tests.compress.search.test_predicted"
SEARCH = """
[search]
trials = 3
sampler = "grid"
objectives = ["accuracy", "latency_ms"]
[[search.choice]]
key = "step.2.target.macs"
values = [0.9, 0.4, 0.6]
"""
SHORT = RECIPE.replace("epochs = 12", "epochs = 1").replace("epochs   = 2", "epochs   = 1").replace(
    "seed   = 3", "seed = 3\nthreads = 1"
)  # fmt: skip


def by_macs(model, inputs, *, is_integer):
    """A predictor that knows: 1 ms for 10⁶ products of integers, ± 10 %."""
    assert is_integer and len(inputs) > 1
    ms = cost.measure(model, inputs[:1]).macs / 1e6
    return Forecast(ms, 0.9 * ms, 1.1 * ms)


def refusing(model, inputs, *, is_integer):
    raise MeasurementError("never seen")


def clock(model, example, plan=None):
    return 2e-6 * cost.measure(model, example).macs


class Here:
    """Runs trials one after the other in this process."""

    count = 1

    def __init__(self):
        self.tasks = []

    def submit(self, task):
        self.tasks.append(task)
        future = Future()
        future.set_result(perform(task))
        return future

    def stop(self):
        pass


def test_the_fastest_candidate_comes_first_and_all_are_measured(kitchen, tmp_path):
    read = recipe.load(kitchen(SHORT + SEARCH))
    words = {"stopwatch": f"{HERE}:clock", "predictor": f"{HERE}:by_macs"}
    study = search(read, tmp_path / "study", Here(), **words)
    assert [trial.chosen["step.2.target.macs"] for trial in study.trials] == [0.4, 0.6, 0.9]
    complete = [trial.result for trial in study.trials if trial.result.state == "complete"]
    assert complete and study.front
    for result in complete:
        assert result.values["latency_ms"] == pytest.approx(2e-6 * result.values["macs"])
    for result in (trial.result for trial in study.trials):
        assert result.predicted["low"] < result.predicted["ms"] < result.predicted["high"]
        assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result
    assert complete[0].predicted["ms"] == pytest.approx(1e-6 * complete[0].values["macs"], rel=0.1)


def trial(kitchen, tmp_path, *, budget, predictor="by_macs"):
    path = kitchen(SHORT)
    text = f"{path.read_text()}\n[budget]\nlatency_ms = {budget}\n"
    words = {"stopwatch": f"{HERE}:clock", "predictor": f"{HERE}:{predictor}"}
    return perform(Task(text, str(path), str(tmp_path / "w"), **words))


def test_a_candidate_that_surely_misses_the_budget_is_not_trained(kitchen, tmp_path):
    found = trial(kitchen, tmp_path, budget=1e-6)
    assert found.state == "stopped" and "latency_ms would be" in found.reason and "allowed 1e-06" in found.reason
    assert not found.steps and not list(tmp_path.glob("w/*.pt"))


def test_a_predictor_that_does_not_know_lets_the_clock_decide(kitchen, tmp_path):
    found = trial(kitchen, tmp_path, budget=1e-6, predictor="refusing")
    assert found.state == "stopped" and "latency_ms is" in found.reason and found.steps


def test_order_of_a_grid(kitchen):
    path = kitchen(SHORT)
    choices = [Choice("step.2.target.macs", (0.9, 0.5)), Choice("seed", (1, 2))]
    document = tomllib.loads(path.read_text())
    assert cheapest_first(document, path, choices, "", None) == list(grid(choices))
    assert cheapest_first(document, path, choices, f"{HERE}:refusing", None) == list(grid(choices))
    broken = [Choice("step.2.target.macs", (0.5, 7.0))]  # refused by the recipe: the trial will say so
    assert cheapest_first(document, path, broken, f"{HERE}:by_macs", None)[0] == {"step.2.target.macs": 0}
    many = [Choice("seed", tuple(range(65)))]
    assert len(cheapest_first(document, path, many, f"{HERE}:by_macs", None)) == 65


def test_names_that_lead_nowhere(tmp_path):
    assert predictors.load("") is None
    with pytest.raises(RecipeError, match="predictor"):
        predictors.load("nowhere:at_all")
    with pytest.raises(MeasurementError, match="cannot be read"):
        predictors.load(str(tmp_path / "none.json"))


def board(**ways):
    """A board on which an operator takes some milliseconds, whatever it is."""
    classes = [f"{kind} {name}" for kind in ("int8", "float32") for name in (
        "conv", "pointwise", "depthwise", "dense", "window", "elementwise", "activation", "copy")]  # fmt: skip
    kinds = frozenset(f"{kind} {name}" for kind in ("int8", "float32") for name in (
        "conv", "pointwise", "depthwise", "dense", "mean", "pool", "add", "activation", "reshape", "pad", "quantize",
        "transpose"))  # fmt: skip
    made = {}
    for way, ms in ways.items():
        fit = Fit("sum", 0.0, dict.fromkeys(classes, (0.0, 0.0, 0.0, 0.0, ms)))
        limits = Limits(kinds, dict.fromkeys(classes, (1e12, 1e12)), (1e-6, 1e6))
        errors = tuple((f"f{i}", 0.1) for i in range(12))
        judged = Judged(0.1, 0.2, 0.9, 1.2, 0)
        made[f"{way}/1"] = Predictor(fit, {name: fit for name, _ in errors}, errors, limits, judged)
    return Board("lab", made)


def test_a_boards_file_answers_for_networks(tmp_path):
    import torch
    from torch import nn

    board(litert=0.1, onnxruntime=0.3).save(tmp_path / "board.json")
    asked = predictors.load(str(tmp_path / "board.json"))
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    x = torch.rand(10, 1, 8, 8)
    forecasts = [asked(net, x, is_integer=form) for form in (True, False)]
    for found in forecasts:
        count = found.ms / 0.1  # the faster runtime's operators
        assert count == pytest.approx(round(count)) and 2 <= round(count) <= 5
        assert found.high / found.ms == pytest.approx(math.exp(0.1))
    board(tflite=1.0).save(tmp_path / "other.json")
    with pytest.raises(MeasurementError, match="no runtime that we write for"):
        predictors.load(str(tmp_path / "other.json"))(net, x, is_integer=False)


def test_the_command_line_takes_a_boards_file(kitchen, tmp_path):
    from typer.testing import CliRunner

    from strop.cli import app

    path = kitchen(SHORT + SEARCH)
    done = CliRunner().invoke(
        app, ["compress", "search", str(path), "--out", str(tmp_path / "o"), "--predictor", str(tmp_path / "no.json"),
              "--stopwatch", f"{HERE}:clock"],
    )  # fmt: skip
    assert isinstance(done.exception, MeasurementError) and "strop bench predict learn" in str(done.exception)
    assert not list(Path(tmp_path / "o").glob("steps/*"))
