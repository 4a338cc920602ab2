# SPDX-License-Identifier: Apache-2.0
"""The numbers of the drift detection at a reduced size, with bounds that chance breaks less than once in a thousand."""

import json

import numpy as np
import pytest

from benchmarks.drift import accuracy, cost, delay, failing_loudly, false_alarms, material, power, results, run_length
from benchmarks.drift.coded import count
from benchmarks.drift.material import Material, Sizes
from benchmarks.drift.real_material import halves
from benchmarks.drift.real_pairs import judged_in_order
from benchmarks.drift.shifts import FAILING_LOUDLY
from benchmarks.drift.streams import autoregressive, held
from edge_contract.alarm_rate import DEFAULT

TINY = Sizes("tiny", 2000, 1000, 4000, 700, training=4000)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The digits protocol with a small reference and small pools."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(material, "BUILD", tmp_path_factory.mktemp("drift"))
        made = material.digits.__wrapped__(0, TINY)
        again = material.digits.__wrapped__(0, TINY)  # from its files
        assert again.profile == made.profile
        assert set(again.pools) == {"calibration", "null", *power.DIGITS}
        yield again


def test_one_null_window_in_a_hundred_is_below_one_percent(tiny):
    p = false_alarms.null_windows(tiny, 200, 250, np.random.default_rng(1))
    assert np.mean(p["family"] < 0.01) <= 0.032  # 8 of 250; 1 % gives 9 or more once in 900
    assert np.mean(p["family"] < 0.5) <= 0.6
    assert set(p) == {"family", "class", "class×confidence", "max-prob", "energy", "embedding", "input"}


def test_a_stream_with_correlation_of_nine_tenths_waits_and_stays_quiet(tiny):
    coded, random = tiny.coded("null"), np.random.default_rng(2)
    found = false_alarms.judged_stream(
        tiny.profile, coded, lambda n: autoregressive(random, coded, n, 0.9), decisions=25, n=400
    )
    assert found["decided"] == 25
    assert found["windows"] > 50  # each verdict waited for 64 effective samples
    assert found["false_alarms"]["share"] <= 0.12  # 3 of 25 at 1 %: once in 600
    assert found["alarmed"] == 0


def test_the_same_image_again_nine_times_in_ten_waits_and_stays_quiet(tiny):
    coded, random, group = tiny.coded("null"), np.random.default_rng(12), tiny.pools["null"].group
    found = false_alarms.judged_stream(tiny.profile, coded, lambda n: held(random, group, n, 0.9), decisions=40, n=600)
    assert found["decided"] == 40
    assert found["windows"] > 60
    assert found["false_alarms"]["share"] <= 0.1  # 4 of 40 at 1 %: once in 1600
    assert found["alarmed"] == 0


def test_power_on_the_digits_protocol(tiny):
    cells = power.powers(tiny, 200, 10, (0.01,), np.random.default_rng(3))
    mean = {f: np.mean([row[f][0] for row in cells.values()]) for f in power.FRACTIONS}
    assert mean[1.0] >= 0.78  # measured .89 with a reference of 20 000
    assert mean[0.5] >= 0.70  # .82
    assert mean[1.0] > mean[0.5] > mean[0.1]
    assert cells["gain .6"][1.0][0] == 1.0


def test_a_strong_shift_alarms_at_once_and_health_never(tiny):
    random = np.random.default_rng(4)
    strong = delay.delays(tiny, "noise .4", 1.0, runs=5, longest=5, random=random)
    assert set(strong["windows"]) == {2}
    healthy = delay.delays(tiny, "noise .4", 0.0, runs=2, longest=12, random=random)
    assert set(healthy["windows"]) == {0}
    assert strong["power"] == 1.0


def test_estimates_that_are_called_valid_are_within_eight_points(tiny):
    random = np.random.default_rng(5)
    rows = np.array([
        row for pool in ("null", "noise .05", "gain .85", "noise .4", "1-pixel translation")
        for row in accuracy.tried(tiny, pool, 1.0, 4, random)
    ])  # fmt: skip
    error, valid = np.abs(rows[:, 0] - rows[:, 1]), rows[:, 2] == 1
    assert valid.sum() >= 4
    assert (~valid).sum() >= 4
    assert error[valid].mean() < accuracy.GOAL_POINTS / 100
    assert rows[valid, 3].mean() > 0.8


def test_summaries_are_as_small_as_promised(tiny):
    sizes = cost.sizes(tiny, 60, np.random.default_rng(6))
    assert np.quantile(sizes, 0.99) <= cost.GOALS["p99"]
    assert max(sizes) <= cost.largest() <= cost.GOALS["most"]
    assert len(cost.updates(tiny.profile, tiny, 28, images=True, rounds=1)) == 1


def test_real_null_windows_do_not_alarm_in_many_years(tiny):
    p = false_alarms._scores(tiny, 200, 80, np.random.default_rng(7))
    alarmed, seen = run_length.long_run(p, DEFAULT.cusum, runs=40, length=500, random=np.random.default_rng(8))
    assert (alarmed, seen) == (0, 20_000)


def _grid(tiny):
    """The pools of the grid, by names of Fashion-MNIST, from the digits' pools."""
    rows = np.arange(700)
    names = dict.fromkeys(("reference", "calibration", "null"), "null")
    names |= dict.fromkeys((*FAILING_LOUDLY, "adversarial"), "noise .4")
    return Material("tiny", tiny.profile, {name: tiny.pools[pool].take(rows) for name, pool in names.items()})


def test_the_grid_goes_on_where_it_was_stopped(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(failing_loudly, "fashion", lambda: _grid(tiny))
    monkeypatch.setattr(failing_loudly, "BUILD", tmp_path)
    monkeypatch.setattr(failing_loudly, "QUICK", ((50,), 40, 3))
    found = failing_loudly.measure(quick=True)
    kept = tmp_path / "failing-loudly-quick.jsonl"
    whole = kept.read_text()
    assert len(whole.split()) >= 1 + 30
    assert len(failing_loudly._finished(kept)) == 31
    kept.write_text(whole[:-200])  # a line cut off in the middle
    assert failing_loudly.measure(quick=True) == found
    row = found["sizes"]["50"]
    assert len(failing_loudly._finished(kept)) == 31
    assert [row["cells"]["noise large 1"][name] for name in ("LEAN", "BBSDs", "KLL")] == [1.0, 1.0, 1.0]
    assert row["bytes"]["KLL"] > 3 * row["bytes"]["LEAN"]
    assert any("1/" in line for line in failing_loudly.lines(found))


def test_the_halves_of_independent_samples_stay_quiet(tiny):
    profile, other = halves(tiny.pools["null"].take(np.arange(1500)), tiny.profile.labels, np.random.default_rng(9))
    assert (profile.size, len(other)) == pytest.approx((750, 750), abs=120)  # cut by image, not by draw
    moved = tiny.coded("noise .4")
    assert judged_in_order(tiny.profile, moved, 5)["alarm"] == 2


def test_a_command_measures_prints_and_keeps(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    measured = []

    def measure(quick):
        measured.append(quick)
        return {"answer": 42}

    results.run("answer", measure, lambda found: [f"it is {found['answer']}"], ["--quick"])
    assert "it is 42" in capsys.readouterr().out
    assert not (tmp_path / "results").exists()
    results.run("answer", measure, lambda _: [], ["--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["found"] == {"answer": 42}
    assert document["machine"]["cores"] >= 1
    results.run("answer", measure, lambda found: [f"kept {found['answer']}"], ["--show"])
    assert "kept 42" in capsys.readouterr().out
    assert measured == [True, False]


@pytest.mark.parametrize("name", ["power", "delay", "accuracy", "cost", "false_alarms", "failing_loudly", "real_pairs"])
def test_what_was_measured_is_printed_again(name):
    """The committed results and the lines that print them fit each other."""
    command = __import__(f"benchmarks.drift.{name}", fromlist=["lines"])
    document = json.loads((results.RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert document["command"] == f"python -m benchmarks.drift.{name}"
    assert len(command.lines(document["found"])) > 2


def test_a_pool_of_answers_counts_its_own_samples(tiny):
    assert count(tiny.coded("null"), np.arange(10)).n_sampled == 10
