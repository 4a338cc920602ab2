# SPDX-License-Identifier: Apache-2.0
"""``strop bench run``: what it prints, keeps, goes on with and refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks import carrying
from benchmarks.cli import app
from benchmarks.commands.run_text import text_of
from benchmarks.plan import plan_for
from benchmarks.record import Measurement, Preflight
from benchmarks.result import build, load
from benchmarks.result.schema import Artifact
from benchmarks.windows import LABEL, score
from edge_contract.errors import CheckError, StropError, UsageError
from tests.benchmarks.harness.test_plan import SHA, launch, plan
from tests.edge_agent.runner import tiny

FAST = ["--launches", "2", "--seconds", "0", "--runs", "30"]


@pytest.fixture
def labelled(bundle, tmp_path):
    """Forty images with the answers of the bundle as labels: all of them are right."""
    import edge_agent

    x = tiny.images(40, seed=11)
    with edge_agent.Model.open(bundle, runtime="litert") as model:
        y = np.array([model.predict(one).cls for one in x])
    np.savez(tmp_path / "d.npz", x=x, y=y)
    return tmp_path / "d.npz"


@pytest.fixture
def hasty(monkeypatch):
    """No two seconds of warm-up."""
    made = plan_for.__globals__["BenchPlan"]
    monkeypatch.setattr("benchmarks.commands.run_cmd.plan_for", lambda model, **chosen: plan_for(
        model, warmup_s=0.0, warmup_cap_s=0.3, cooldown_s=0.0, **{k: v for k, v in chosen.items() if k != "cooldown_s"}
    ))  # fmt: skip
    return made


def invoke(*words):
    return CliRunner().invoke(app, ["run", *map(str, words)])


def test_a_row_with_its_machine_its_reasons_and_its_command(bundle, labelled, tmp_path, hasty):
    done = invoke(bundle, *FAST, "--data", labelled, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "litert-t1-single-bare" in done.stdout
    for words in ("p50, µs [95 %]", "invoke", "100.00 [", "again: strop bench run", "machine: ", "the clock adds"):
        assert words in done.stdout
    assert "p99 is not printed: 60 runs of 2 launches do not bound it" in done.stdout
    (path,) = (tmp_path / "out").rglob("*-single-bare.json")
    found = load(path)
    assert found.quality.value == 1.0 and found.quality.n == 40
    assert f"kept: {path}" in done.stdout
    assert not (tmp_path / "out/.unfinished").exists()  # nothing is left of a measurement that is whole


def test_json_holds_the_same(bundle, hasty):
    done = invoke(f"{bundle}@onnxruntime", *FAST, "--scenario", "paced", "--fps", "500", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["schema"] == "edgebench/1"
    assert found["scenario"]["fps"] == 500
    assert found["status"] == "invalid"  # nobody knows its accuracy
    assert "quality" in {reason["kind"] for reason in found["reasons"]}


def test_a_deadline_is_counted_in_words(bundle, hasty):
    done = invoke(bundle, *FAST, "--scenario", "paced", "--fps", "500", "--deadline-ms", "0.0001")
    assert "deadline 0.0 ms: 60 of 60 runs missed it" in done.stdout


@pytest.mark.parametrize(
    ("plan_of", "spans", "said"),
    [
        ({"scenario": "offline", "batch": 4}, [10.0], "throughput: 720.0 inputs a second in batches of 4"),
        ({"scenario": "sustained", "seconds": 900.0}, [180.0], "in the last (100.0%); no throttling was seen"),
        ({"mode": "realistic", "bundle": "b"}, [10.0], "around the runtime's call: 0.0 µs, 0.0% of the call"),
    ],
)
def test_each_scenario_says_what_it_is_about(plan_of, spans, said):
    """One launch of 1800 runs, each as long as the next."""
    made = tiny_like(spans, runs=1800)
    launches = tuple(replace(one, batch=plan_of.get("batch", 1)) for one in made.launches)
    measurement = replace(made, plan=plan(**plan_of), launches=launches)
    assert said in text_of(measurement, build(measurement, None, artifact=ARTIFACT), None)


ARTIFACT = Artifact(SHA, "tflite", 1000)


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (["nowhere.tflite"], StropError, "cannot be read"),
        (["--fps", "30"], UsageError, "add --scenario paced"),
        (["--affinity", "a,b"], UsageError, "write numbers with commas"),
        (["--profile", "fast"], UsageError, "unknown profile 'fast'"),
        (["--scenario", "burst"], UsageError, "unknown scenario 'burst'"),
        (["--on", "tag:lab"], UsageError, "which fleet?; give --server with --token-file, or --fleet-data"),
        (["--energy", "ina3221", "--launches", "1"], UsageError, "unknown power sensor"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_runs(bundle, words, error, said):
    model = [] if words[0].startswith("nowhere") else [bundle]
    done = invoke(*model, *words)
    assert isinstance(done.exception, error)
    assert said in str(done.exception)


def test_data_that_cannot_be_scored_cost_the_accuracy_and_not_the_times(bundle, short, tmp_path, monkeypatch):
    np.savez(tmp_path / "d.npz", x=tiny.images(4, seed=1), y=np.zeros(3))
    made = Measurement(short(data=str(tmp_path / "d.npz")), Preflight("Pi"), (launch(),))
    monkeypatch.setattr(carrying, "measure", lambda plan, **words: made)
    measurement, result = carrying.carry_out(made.plan)
    assert result.quality is None
    assert any("accuracy was not found" in note and "4 inputs" in note for note in measurement.notes)


def test_ctrl_c_prints_what_is_finished_and_leaves_with_130(bundle, short, tmp_path, monkeypatch):
    made = Measurement(short(), Preflight("Pi"), (launch(),), ("interrupted: 1 of 2 launches",))
    monkeypatch.setattr(carrying, "measure", lambda plan, **words: made)
    done = invoke(bundle, "--out", tmp_path)
    assert done.exit_code == 130
    assert "note: interrupted: 1 of 2 launches" in done.stdout


def tiny_like(spans_s, runs=1000):
    """Launches whose runs take so long together."""
    launches = []
    for number, span in enumerate(spans_s):
        each = round(span * 1e9 / runs)
        times = (each,) * runs
        starts = tuple(k * each for k in range(runs))
        launches.append(
            launch(number=number, stages_ns={"invoke": times, "total": times}, starts_ns=starts, batch=1, every=1)
        )
    return Measurement(plan(profile="mlperf-tiny-like"), Preflight("Pi"), tuple(launches))


class Quality:
    value, n = 0.86, 1000


def test_the_median_of_five_windows_counts_and_says_what_it_is_not():
    found = score(tiny_like([10.0, 10.5, 30.0, 10.2, 10.1]), Quality, 0.85)
    assert found.median_us == pytest.approx(10200.0)
    assert LABEL in str(found) and "98.0 a second" in str(found)


def test_runs_that_were_not_kept_count_in_a_window():
    """A thousand kept runs, one of every five: 10 s hold 4996 inferences of 2 ms."""
    thin = tiny_like([10.0] * 5)
    launches = tuple(replace(one, every=5) for one in thin.launches)
    assert score(replace(thin, launches=launches), Quality, 0.0).median_us == pytest.approx(1e7 / 4996)


def test_a_model_below_the_accuracy_has_no_time():
    with pytest.raises(CheckError, match=r"accuracy 0.8600 on 1000 samples, 0.9 wanted"):
        score(tiny_like([10.0] * 5), Quality, 0.9)
    with pytest.raises(CheckError, match="give --data with x and y"):
        score(tiny_like([10.0] * 5), None, 0.0)


@pytest.mark.parametrize("spans", [[10.0] * 4, [10.0, 10.0, 9.0, 10.0, 10.0]])
def test_fewer_or_shorter_windows_are_not_the_profile(spans):
    with pytest.raises(UsageError, match="keep 5 launches and 10 seconds"):
        score(tiny_like(spans), Quality, 0.0)
