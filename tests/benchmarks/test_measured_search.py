# SPDX-License-Identifier: Apache-2.0
"""What is said of a measured search: who wins, what the front's lines tell, and when the goal counts as met."""

import numpy as np
import pytest

from benchmarks.training import measured_search
from benchmarks.training.measured_front import FASTER, chosen_trial, lines
from compress import recipe
from edge_contract.errors import MeasurementError

WHOLE = {"float onnx": 200.0, "float tflite": 140.0, "int8 onnx": 180.0, "int8 tflite": 100.0}


def trial(number, accuracy, points, **more):
    change = {"points": points, "low": points - 0.4, "high": points + 0.4}
    found = {"number": number, "chosen": {"step.1.target.macs": 0.5 + number / 10}, "state": "complete"}
    return found | {"accuracy": {"accuracy": accuracy}, "change": change, "change_int8": change, **more}


def time(ratio, spread=0.02):
    return {"ratio": ratio, "a_us": 100.0, "b_us": 100 / ratio, "parts": [ratio - spread, ratio + spread],
            "best": "int8 tflite"}  # fmt: skip


def front(*trials):
    score = {"accuracy": 0.93}
    return {"whole": {"float": score, "int8": score}, "trials": list(trials)}


def times(**trials):
    return {"whole_us": WHOLE, "reference": "int8 tflite", "A/A": {"ratio": 1.001},
            "trials": {name[1:]: found for name, found in trials.items()}}  # fmt: skip


def test_of(number, points):
    interval = {"points": points, "low": points - 0.3, "high": points + 0.3}
    score = {"accuracy": 0.925, "samples": 8000}
    return {"number": number, "accuracy": {"whole float": score, "int8": score}, "change": {"whole float": interval}}


test_of.__test__ = False


def test_the_most_accurate_of_the_fast_ones_wins():
    found = [trial(0, 0.93, 0.0), trial(1, 0.92, -0.5), trial(2, 0.925, -0.2)]
    assert chosen_trial(found, {"0": time(1.2), "1": time(1.9), "2": time(1.35)}) == 2
    assert chosen_trial(found, {"0": time(1.1), "1": time(1.25), "2": time(1.2)}) == 1  # none: the fastest
    with pytest.raises(MeasurementError, match="no trial was finished"):
        chosen_trial([], {})


@pytest.mark.parametrize(
    ("points", "ratio", "words"),
    [
        (-0.2, 1.4, "1.40x, asked for 1.3x: found"),
        (0.5, 1.4, ": found"),
        (-0.4, 1.4, "not found"),
        (0.0, 1.31, "not found"),
    ],
)
def test_the_goal_asks_for_both_and_for_every_part_of_the_timing(points, ratio, words):
    """Accuracy within the paired interval, and no part of the run slower than asked."""
    said = lines(front(trial(0, 0.925, points)), times(_0=time(ratio)), test_of(0, points))
    assert words in said[-1] and f"{FASTER}" in said[-1]
    assert ("lower" in said[-2]) == (points < -0.3) and ("higher" in said[-2]) == (points > 0.3)


def test_lines_show_the_whole_front_and_what_was_stopped():
    stopped = {"chosen": {"step.2.epochs": 8}, "state": "stopped", "reason": "a trial of no greater cost had 93 %"}
    said = lines(front(trial(0, 0.925, -0.2), stopped), times(_0=time(1.5)), {})
    assert said[0].startswith("whole network, us: int8 tflite 100.0, float tflite 140.0") and "A/A 1.001" in said[0]
    assert "1.50x [1.48, 1.52]" in said[2] and "-0.20 points [-0.60, +0.20]" in said[2]
    assert "stopped: a trial of no greater cost" in said[3] and len(said) == 4
    assert lines({}, {}, {}) == ["nothing measured yet"]


def test_the_committed_recipe_searches_accuracy_and_measured_latency():
    read = recipe.load(measured_search.RECIPE)
    assert read.search is not None and read.search.objectives == ("accuracy", "latency_ms")
    assert [step.kind for step in read.steps] == ["prune", "distill", "quantize"]
    module, _, name = measured_search.STOPWATCH.partition(":")
    assert module == measured_search.__name__ and callable(getattr(measured_search, name))


def test_files_are_timed_in_turns(tmp_path, monkeypatch):
    """Each call of a round is one call of each file; the first rounds warm up."""
    calls = []
    monkeypatch.setattr(measured_search.speed, "opened", lambda path, inputs: lambda: calls.append(path.name))
    found = measured_search._microseconds({"a": tmp_path / "a", "b": tmp_path / "b"}, 30)
    assert set(found) == {"a", "b"} and all(us >= 0 for us in found.values())
    assert calls == ["a", "b"] * (30 + measured_search.speed.WARMUP)
    assert measured_search._inputs().dtype == np.float32
