# SPDX-License-Identifier: Apache-2.0
"""What is kept, compared and said of the project's own speed; one real subject runs."""

import json
import random

import pytest

from benchmarks import own_speed
from benchmarks.machine import Machine
from benchmarks.own.keeping import Own, key_of, load, now, others, save
from benchmarks.own.subjects import SUBJECTS, UNITS
from benchmarks.own.subjects import main as subject
from benchmarks.own_speed import compare, main, measure, to_text
from edge_contract.errors import MeasurementError

FIGURE, OTHER = "drift: one inference counted", "delta: its bytes"


def launches(middle: float, seed: int, count: int = 8) -> list[list[float]]:
    draw = random.Random(seed)
    return [[middle * draw.gauss(1, 0.004) for _ in range(5)] for _ in range(count)]


def own(middle: float, seed: int = 0, key: str = "here", **more) -> Own:
    return Own(key, "a machine", "2026-11-21T00:00:00+00:00", "abc", {FIGURE: launches(middle, seed)}, **more)


@pytest.mark.parametrize(("now_us", "kind"), [(6.0, "REGRESSION"), (4.0, "IMPROVED"), (5.02, "INCONCLUSIVE")])
def test_the_three_verdicts(now_us, kind) -> None:
    row = compare(own(5.0), own(now_us, 1))[FIGURE]
    assert row["kind"] == kind and row["low"] <= row["ratio"] <= row["high"]
    assert row["ratio"] == pytest.approx(now_us / 5.0, rel=0.01)


def test_a_kept_noise_floor_raises_the_threshold() -> None:
    quiet = compare(own(5.0), own(5.4, 1))[FIGURE]
    noisy = compare(own(5.0, noise={FIGURE: 0.1}), own(5.4, 1))[FIGURE]
    assert (quiet["kind"], noisy["kind"]) == ("REGRESSION", "INCONCLUSIVE")
    assert noisy["threshold"] > 1.1


def test_two_machines_are_not_compared() -> None:
    with pytest.raises(MeasurementError, match="kept on here, measured on there"):
        compare(own(5.0), own(5.0, key="there"))
    one = Machine("AMD EPYC", 2, "Linux 6.1 x86_64", "3.11.9", "", 0.0)
    assert key_of(one) == "amd-epyc-2-cores-x86-64-py3-11"
    assert key_of(one) != key_of(Machine("AMD EPYC", 4, "Linux 6.1 x86_64", "3.11.9", "", 0.0))
    assert key_of(one) == key_of(Machine("AMD EPYC", 2, "Linux 6.9 x86_64", "3.11.2", "powersave", 3.0))


def test_what_is_kept_is_read_again_and_what_is_wrong_is_named(tmp_path) -> None:
    found = now({FIGURE: launches(5.0, 0)}, missing={"ingest": "ingest: no broker"})
    path = save(found, tmp_path)
    assert load(found.key, tmp_path) == found
    save(own(1.0, key="another"), tmp_path)
    assert others(found.key, tmp_path) == ["another"] and load("nobody", tmp_path) is None
    for text, words in (
        ("{", "no JSON"),
        ('{"schema": "x"}', "schema"),
        (json.dumps({**found.to_json(), "launches": {FIGURE: [["fast"]]}}), "lists of numbers"),
    ):
        path.write_text(text)
        with pytest.raises(MeasurementError, match=words):
            load(found.key, tmp_path)


def told(tmp_path, capsys, monkeypatch, middle: float, *words: str) -> tuple[int, str]:
    """Run the command with a subject that gives a known figure."""
    turn = iter(range(100))

    def once(name, folder):
        if name == "ingest":
            raise MeasurementError("no mosquitto", where=name)
        return {FIGURE: launches(middle, next(turn), 1)[0], OTHER: [1000.0]}

    monkeypatch.setattr(own_speed, "_child", once)
    code = main(["--only=drift", "--only=ingest", "--launches=6", f"--results={tmp_path}", *words])
    return code, capsys.readouterr().out


def test_the_command_from_nothing_kept_to_a_regression(tmp_path, capsys, monkeypatch) -> None:
    code, text = told(tmp_path, capsys, monkeypatch, 5.0)
    assert code == 0 and "nothing is kept yet" in text and "not measured: ingest: no mosquitto" in text
    assert not list(tmp_path.iterdir())
    save(own(1.0, key="another-machine"), tmp_path)
    assert "kept are other machines (another-machine)" in told(tmp_path, capsys, monkeypatch, 5.0, "--keep")[1]
    code, text = told(tmp_path, capsys, monkeypatch, 5.01)
    assert code == 0 and "INCONCLUSIVE" in text and "compared with" in text
    code, text = told(tmp_path, capsys, monkeypatch, 6.0, "--json")
    found = json.loads(text)
    assert code == 1 and found["verdicts"][FIGURE]["kind"] == "REGRESSION"
    assert found["verdicts"][OTHER]["ratio"] == 1.0  # a size that does not move
    code, text = told(tmp_path, capsys, monkeypatch, 4.0, "--aa")
    kept = load(found["key"], tmp_path)
    assert code == 0 and "IMPROVED" in text and 0 < kept.noise[FIGURE] < 0.02


def test_nothing_at_all_is_an_error(tmp_path, capsys) -> None:
    def broken(name, folder):
        raise MeasurementError("gone", where=name)

    assert measure(["drift"], 2, lambda words: None, broken) == ({}, {"drift": "drift: gone"})
    assert subject(["speed", str(tmp_path)]) == 2
    assert "one of agent, drift" in capsys.readouterr().err


def test_every_figure_has_its_unit_and_a_subject_really_runs(tmp_path) -> None:
    assert set(SUBJECTS) == {figure.split(",")[0].split(":")[0] for figure in UNITS}
    (figure,) = SUBJECTS["drift"](tmp_path).items()
    assert figure[0] in UNITS and all(value > 0 for value in figure[1])
    assert "µs" in to_text(own(5.0), None, {}, [])
