# SPDX-License-Identifier: Apache-2.0
"""Launches in turns that survive an interruption, results that may be compared, and the command on real models."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.commands.compare_cmd import is_model
from benchmarks.comparison.outcome import outcome_of, times_of
from benchmarks.comparison.stored import is_result, stored
from benchmarks.comparison.turns import Turns, order
from benchmarks.plan import plan_for
from benchmarks.result import Quality, build, save
from benchmarks.result.schema import Artifact
from benchmarks.stats import NoiseFloor, save_floor
from edge_contract.errors import MeasurementError, UsageError
from tests.benchmarks.stats.made import PI5, drawn, launch, measurement, plan
from tests.edge_agent.runner import bundles

BOARD = "raspberry-pi-5-model-b-rev-1-0-aarch64"


class Machine:
    """Makes launches of chosen speeds, and breaks where it is told to."""

    def __init__(self, b_ns=1e6, breaks=lambda made: None):
        self.made, self.b_ns, self.breaks = [], b_ns, breaks
        self.random = np.random.default_rng(1)

    def __call__(self, which, number, label):
        self.breaks(self.made)
        self.made.append((label, number))
        (times,) = drawn(self.random, 1, 40, median_ns=self.b_ns if label == "B" else 1e6)
        return launch(number, times, label, readings=())


def turns(machine, out=None, **words):
    both = plan(governor="", **words), plan(sha256="1" * 64, governor="", **words)
    return Turns(both, out, lambda line: None, machine)


def test_launches_are_laid_between_each_other():
    machine = Machine()
    turns(machine).upto(4)
    assert "".join(label for label, _ in machine.made) == "ABBAABBA"
    assert [number for _, number in machine.made] == [0, 0, 1, 1, 2, 2, 3, 3]
    places = [[i for i, (side, _) in enumerate(order(10)) if side == one] for one in (0, 1)]
    assert sum(places[0]) == sum(places[1])  # a drift that is even falls on both alike


def test_an_interruption_loses_nothing_that_was_finished(tmp_path):
    def interrupt(made):
        if len(made) == 5:
            raise KeyboardInterrupt

    first = Machine(breaks=interrupt)
    began = turns(first, tmp_path)
    began.upto(4)
    a, b = began.sides()
    assert began.is_interrupted
    assert (len(a.launches), len(b.launches)) == (3, 2)
    assert "interrupted" in a.notes[-1]
    second = Machine()
    again = turns(second, tmp_path)
    again.upto(4)
    assert [one for one in second.made if one in first.made] == []
    assert sorted(first.made + second.made) == sorted(("AB"[side], n) for side, n in order(4))
    assert again.sides()[0].launches[0] == a.launches[0]


def test_an_interruption_before_anything_is_finished_ends_it():
    def interrupt(made):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        turns(Machine(breaks=interrupt)).upto(2)


def test_a_folder_of_another_comparison_is_refused(tmp_path):
    turns(Machine(), tmp_path).upto(1)
    with pytest.raises(UsageError, match="launches of another comparison"):
        turns(Machine(), tmp_path, threads=4)
    (tmp_path / "launches/plans.json").write_text("{")
    with pytest.raises(MeasurementError, match="cannot be used"):
        turns(Machine(), tmp_path)


def test_a_launch_that_fails_is_noted_and_three_of_a_side_end_it():
    def once(made):
        if len(made) == 3 and not failed:
            failed.append(1)
            raise MeasurementError("no memory")

    failed = []
    found = turns(Machine(breaks=once))
    found.upto(5)
    a, b = found.sides()
    assert (len(a.launches) + len(b.launches), a.failed + b.failed) == (9, 1)
    assert "no memory" in " ".join((*a.notes, *b.notes))

    def always(made):
        raise MeasurementError("no memory")

    with pytest.raises(MeasurementError, match="never came to its end: no memory"):
        turns(Machine(breaks=always)).upto(5)


def sides(ratio=1.0, seed=2, **words):
    random = np.random.default_rng(seed)
    a, b = (drawn(random, 10, 60) for _ in range(2))
    return tuple(
        measurement([launch(i, one, **words) for i, one in enumerate(times)], sha256=digit * 64)
        for digit, times in (("0", a), ("1", ratio * b))
    )


def test_an_outcome_says_everything_that_one_needs(tmp_path):
    save_floor(NoiseFloor(BOARD, "0" * 64, "litert-t1-single-bare", 0.01, 1, 0.99, 1.01, 20, "2026"), tmp_path)
    found = outcome_of(("old", "new"), sides(1.2), floors=tmp_path, command="strop bench compare old new")
    text, document = found.to_text(), found.to_json()
    assert found.verdict.kind == "REGRESSION"
    assert "A  old: median" in text
    assert "10 launches, 600 runs of total" in text
    assert "noise floor 1.0 %" in text
    assert text.endswith("command: strop bench compare old new")
    assert document["verdict"]["noise_floor"] == 0.01
    assert len(document["b"]["launch_medians_ns"]) == 10
    json.dumps(document)


def test_an_invalid_launch_takes_the_verdict_its_ground():
    found = outcome_of(("a", "b"), sides(1.2, faults={"major": 7}))
    assert found.verdict.kind == "INCONCLUSIVE"
    assert "would be REGRESSION, but the launches of A and B are invalid: 70 major page faults" in found.verdict.words
    assert [side for side, _ in found.findings] == ["A and B"]


def test_a_stage_that_was_not_timed_is_named():
    with pytest.raises(MeasurementError, match=r"no times of 'capture'.*use one of invoke, total"):
        times_of(measurement(), "capture")


def kept(folder, one, name):
    quality = Quality("top1", 0.9, 100, (0.8, 0.95), True, "samples", one.plan.sha256)
    artifact = Artifact(one.plan.sha256, "tflite", 1000)
    return save(build(one, quality, artifact=artifact), one, folder, name=name)


@pytest.fixture
def two(tmp_path):
    """Two kept results of one board and different bytes."""
    a, b = sides(1.2)
    return kept(tmp_path / "a", a, "result.json"), kept(tmp_path / "b", b, "result.json")


def test_stored_results_of_one_board_are_compared_and_the_exit_code_says_regression(two):
    asked = ["compare", str(two[0]), str(two[1]), "--json", "--floors", "/nowhere"]
    done = CliRunner().invoke(app, asked)
    assert (done.exit_code, json.loads(done.stdout)["verdict"]["kind"]) == (0, "REGRESSION")
    assert CliRunner().invoke(app, [*asked, "--fail-on-regression"]).exit_code == 1
    swapped = ["compare", str(two[1]), str(two[0]), "--fail-on-regression"]
    done = CliRunner().invoke(app, swapped)
    assert (done.exit_code, "IMPROVED" in done.stdout) == (0, True)


def test_different_bytes_are_no_regression_check(two):
    with pytest.raises(MeasurementError, match="different artefacts"):
        stored(*two, same_artefact=True)
    assert len(stored(two[0], two[0], same_artefact=True)) == 2


def test_results_of_different_boards_or_without_samples_are_refused(tmp_path, two):
    other = replace(sides()[0], preflight=replace(PI5, board="Raspberry Pi 4 Model B"))
    path = kept(tmp_path / "c", other, "result.json")
    with pytest.raises(MeasurementError, match=r"different boards: .*pi-5.* and .*pi-4"):
        stored(two[0], path, same_artefact=False)
    fast = sides()[0]
    paced = replace(fast, plan=plan(scenario="paced", fps=10.0))
    path = kept(tmp_path / "d", paced, "result.json")
    with pytest.raises(MeasurementError, match="different scenarios: single bare and paced bare"):
        stored(two[0], path, same_artefact=False)
    (two[1].parent / "samples.bin").unlink()
    with pytest.raises(MeasurementError, match="raw samples are not here"):
        stored(*two, same_artefact=False)


def test_a_result_and_a_model_are_not_compared(two, tmp_path):
    (tmp_path / "m.tflite").write_bytes(b"x")
    done = CliRunner().invoke(app, ["compare", str(two[0]), str(tmp_path / "m.tflite")])
    assert isinstance(done.exception, UsageError)
    assert is_result(str(two[0]))
    assert is_model(str(tmp_path / "m.tflite"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return bundles.build(tmp_path_factory.mktemp("compare") / "b", profile=False)


@pytest.fixture(autouse=True)
def no_warm_up(monkeypatch):
    """The two seconds of a warm-up would be nine tenths of these tests."""
    monkeypatch.setattr("benchmarks.plan.plan_for", lambda model, **words: plan_for(model, **words, **COLD))


COLD = {"warmup_s": 0.0, "warmup_cap_s": 0.2, "cooldown_s": 0.0}
QUICK = ["--launches", "2", "--runs", "20", "--seconds", "0"]


def test_real_models_are_launched_in_turns_and_go_on_from_the_folder(bundle, tmp_path):
    """Two processes each; five would decide nothing less. Then the same folder: nothing is launched again."""
    words = ["compare", f"{bundle}@litert", f"{bundle}@onnxruntime", *QUICK, "--out", str(tmp_path), "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["verdict"]["kind"] == "INCONCLUSIVE"
    assert document["verdict"]["needs"] >= 3
    assert [document[side]["runs"] for side in "ab"] == [[20, 20], [20, 20]]
    assert done.stderr.splitlines()[1:] == [
        f"launch {n} of 2, {s}" for n, s in ((1, "A"), (1, "B"), (2, "B"), (2, "A"))
    ]
    again = CliRunner().invoke(app, words)
    assert "launch 1" not in again.stderr
    assert json.loads(again.stdout)["a"] == document["a"]
    refused = CliRunner().invoke(app, [*words, "--same-artefact"])
    assert isinstance(refused.exception, MeasurementError)


def test_a_model_against_itself_leaves_the_boards_noise_floor(bundle, tmp_path):
    done = CliRunner().invoke(app, ["aa", f"{bundle}@litert", *QUICK, "--floors", str(tmp_path)])
    assert done.exit_code == 0, done.output
    (path,) = tmp_path.glob("*.noise.json")
    (entry,) = json.loads(path.read_text())["floors"]
    assert entry["floor"] > 0
    assert entry["launches"] == 4
    assert f"noise floor {100 * entry['floor']:.1f} %" in done.stdout
