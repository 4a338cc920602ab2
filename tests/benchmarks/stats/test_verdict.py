# SPDX-License-Identifier: Apache-2.0
"""The verdict of three words, how many launches it needs, and the noise floor that it knows."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.coverage.verdicts import calls, calm, true_floor
from benchmarks.quantiles import Interval
from benchmarks.stats import NoiseFloor, floor_of, judge, noise_of, save_floor
from benchmarks.stats.floor import floors_of
from benchmarks.stats.verdict import threshold_of
from edge_contract.errors import MeasurementError, UsageError
from tests.benchmarks.stats.made import drawn

FLOOR = NoiseFloor("rpi5", "a" * 64, "litert-t1-single-bare", 0.01, 1.0, 0.99, 1.01, 20, "2026-11-22T00:00:00+00:00")


def pair(ratio, launches=10, seed=0, **words):
    random = np.random.default_rng(seed)
    return list(drawn(random, launches, **words)), [ratio * one for one in drawn(random, launches, **words)]


@pytest.mark.parametrize(("ratio", "kind"), [(1.1, "REGRESSION"), (1 / 1.1, "IMPROVED"), (1.0, "INCONCLUSIVE")])
def test_three_words(ratio, kind):
    found = judge(*pair(ratio), noise=0.005)
    assert (found.kind, found.needs) == (kind, 0)
    assert found.words.startswith(kind)
    assert found.ratio.low < ratio < found.ratio.high
    assert (found.p < 0.001) == (kind != "INCONCLUSIVE")
    assert found.launches == (10, 10)
    json.dumps(found.to_json())


def test_the_two_sides_mirror_each_other():
    a, b = pair(1.2)
    one, other = judge(a, b, noise=None), judge(b, a, noise=None)
    assert (one.kind, other.kind) == ("REGRESSION", "IMPROVED")
    assert one.ratio.point == pytest.approx(1 / other.ratio.point)
    assert one.p == other.p


def test_a_difference_within_the_threshold_is_ruled_out_and_needs_no_more():
    found = judge(*pair(1.005), noise=None)
    assert (found.kind, found.needs) == ("INCONCLUSIVE", 0)
    assert "ruled out" in found.words


def test_a_noisy_board_has_a_higher_threshold_which_more_launches_lower():
    assert judge(*pair(1.1), noise=0.06).kind == "INCONCLUSIVE"
    assert [threshold_of(0.02, n) for n in (10, 40)] == [1.04, 1.03]
    assert threshold_of(0.05, 40) == pytest.approx(1.05)
    assert threshold_of(0.02, 5) > 1.05


def test_few_launches_decide_nothing_however_far_they_are_apart():
    found = judge(*pair(2.0, launches=4), noise=None)
    assert found.kind == "INCONCLUSIVE"
    assert found.needs >= 1
    assert f"needs {found.needs} more launch" in found.words
    single = judge([[1.0, 1.1]], [[2.0, 2.1]], noise=None)
    assert (single.kind, single.needs) == ("INCONCLUSIVE", 4)


def test_what_it_needs_falls_with_the_distance_and_grows_with_the_noise():
    near, far = (judge(*pair(ratio, between=0.03, seed=3), noise=None).needs for ratio in (1.06, 1.09))
    assert near is None or near > far
    quiet = judge(*pair(1.045, between=0.01, seed=4), noise=None).needs
    loud = judge(*pair(1.045, between=0.04, seed=4), noise=None).needs
    assert loud is None or loud > quiet


def test_at_the_threshold_itself_no_number_of_launches_helps():
    a = list(drawn(np.random.default_rng(6), between=0.05))
    found = judge(a, [1.03 * one for one in a], noise=None)
    assert found.needs is None
    assert "a thousand more" in found.words


def test_a_comparison_with_itself_is_not_called_a_regression():
    """A share of the simulation: 60 A/A comparisons, none of them a regression (the goal is 1 %)."""
    found = calls(calm(0.02), 1.0, 10, 0.02, 60)
    assert found.shares.get("REGRESSION", 0.0) <= 0.01 + 3 * (0.01 / 60) ** 0.5
    assert found.held >= 0.95 - 3 * (0.95 * 0.05 / 60) ** 0.5


def test_five_percent_are_found_by_twenty_launches_at_a_floor_of_two():
    world = calm(0.0158)  # 2 %, as the simulation finds it
    assert true_floor(world) == pytest.approx(0.02, rel=0.08)
    found = calls(world, 1.05, 20, 0.02, 60)
    assert found.shares["REGRESSION"] >= 0.6  # about 0.8 in the simulation of benchmarks.coverage
    assert calls(world, 1.10, 10, 0.02, 30).shares["REGRESSION"] > 0.9


def test_the_noise_floor_is_what_comparisons_with_itself_reach():
    world = calm(0.02)
    random = np.random.default_rng(8)
    found = [noise_of(*(list(world.draw(random, 10, 50)) for _ in range(2)), seed=i) for i in range(15)]
    assert np.median(found) == pytest.approx(true_floor(world), rel=0.35)
    assert noise_of([[1.0]] * 5, [[1.0]] * 5) == 0.0
    assert noise_of([[1.0]] * 5, [[1.2]] * 5) >= 0.1999  # something favours a side
    with pytest.raises(UsageError):
        noise_of([[0.0]], [[1.0]])


def test_floors_are_kept_by_board_artefact_and_configuration(tmp_path):
    assert floor_of("rpi5", tmp_path) is None
    save_floor(FLOOR, tmp_path)
    save_floor(replace(FLOOR, artefact="b" * 64, floor=0.03), tmp_path)
    save_floor(replace(FLOOR, configuration="onnxruntime-t4-single-bare", floor=0.05), tmp_path)
    own = {"artefact": "a" * 64, "configuration": FLOOR.configuration}
    assert floor_of("rpi5", tmp_path, **own) == 0.01
    assert floor_of("rpi5", tmp_path, artefact="c" * 64, configuration=FLOOR.configuration) == 0.03
    assert floor_of("rpi5", tmp_path) == 0.05
    assert floor_of("rpi4", tmp_path) is None
    save_floor(replace(FLOOR, floor=0.02), tmp_path)
    assert floor_of("rpi5", tmp_path, **own) == 0.02
    assert len(floors_of("rpi5", tmp_path)) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ('{"schema": "other"}', "schema"),
        ('{"schema": "strop.noise-floor/1", "floors": [{"board": "x"}]}', r"floors\[0\]: field 'artefact' is missing"),
    ],
)
def test_a_file_of_floors_that_is_wrong_says_where(tmp_path, text, words):
    (tmp_path / "rpi5.noise.json").write_text(text)
    with pytest.raises(MeasurementError, match=words):
        floor_of("rpi5", tmp_path)


def test_a_key_that_leaves_the_folder_is_refused(tmp_path):
    with pytest.raises(MeasurementError, match="no board key"):
        floor_of("../x", tmp_path)


def test_an_interval_is_what_the_verdict_prints():
    assert judge(*pair(1.0), noise=None).ratio.n == 10
    assert isinstance(judge(*pair(1.0), noise=None).ratio, Interval)
