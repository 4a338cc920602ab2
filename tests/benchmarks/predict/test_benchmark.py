# SPDX-License-Identifier: Apache-2.0
"""The predictor's benchmark: what it builds, how it times a file, what it says of itself."""

from collections import Counter

import pytest

from benchmarks.predict.conformal import families_needed
from benchmarks.training import predictor, predictor_picture
from benchmarks.training.files import RUNTIMES, write_files
from benchmarks.training.variants import FAMILIES, Variant, variants
from tests.benchmarks.predict.boards import measured


def test_there_are_enough_variants_of_enough_families():
    """Sixty or more, and one family more than an interval takes, since one is always left out."""
    found = list(variants())
    assert len(found) >= 60 and len({one.name for one in found}) == len(found)
    assert set(Counter(one.family for one in found).values()) == {6}
    assert len(FAMILIES) >= families_needed(0.9) + 1


@pytest.mark.parametrize("family", ["mlp", "lenet"])
def test_a_variant_is_the_same_at_every_call(family):
    one = Variant(family, 0.5)
    for a, b in zip(one.network().state_dict().values(), one.network().state_dict().values(), strict=True):
        assert a.equal(b)
    assert one.inputs(2).equal(one.inputs(2))


def test_a_pruned_variant_is_between_its_neighbours():
    sizes = [
        sum(p.numel() for p in Variant("lenet", *words).network().parameters())
        for words in ((0.5,), (1.0, True), (1.0,))
    ]
    assert sizes[0] < sizes[1] < sizes[2]


def test_a_file_is_timed_by_the_median_of_one_session(tmp_path):
    one = Variant("mlp", 0.5)
    paths = write_files(one.network(), one.inputs(1), None, tmp_path)
    assert {predictor._round_ms(path) > 0 for path in paths.values()} == {True}


@pytest.fixture(scope="module")
def row():
    models = measured(12, sd=0.03, family_sd=0.03)
    named = [
        type(one)(f"{'float' if i % 2 else 'int8'} {one.name}", one.family, one.operators, one.ms)
        for i, one in enumerate(models)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor, "IDEAS", ("sum",))
        found = predictor.judged(named)
    return {
        "times": {one.name: {"ms": one.ms, "rounds": [one.ms, 1.1 * one.ms, 1.2 * one.ms]} for one in named},
        **found,
    }


def test_lines_say_error_coverage_and_goals(row):
    said = predictor.lines({"tflite": row, "onnx": {}})
    assert "LiteRT: 60 files of 12 families" in said[0] and "median round 1.10 of the least" in said[0]
    assert "median error" in said[1] and "90 % interval covers" in said[1]
    assert said[-1] == "  goals: median error 15%, coverage 85%: met"
    assert predictor.lines({}) == ["nothing measured yet"]


def test_every_forecast_is_of_a_predictor_without_the_family(row):
    points = row["points"]
    assert len(points) == 60 and row["refused"] == sum("predicted" not in point for point in points)
    inside = [point["low"] <= point["ms"] <= point["high"] for point in points if "high" in point]
    assert row["coverage"] == pytest.approx(sum(inside) / len(inside))


def test_predictors_of_the_benchmark_are_a_boards_file(row, tmp_path):
    from benchmarks.predict.board import Board

    predictor._board({"tflite": row, "onnx": {}}).save(tmp_path / "board.json")
    assert Board.load(tmp_path / "board.json").ways["litert/1"].measurements == 60


def test_picture_is_drawn_with_a_label_and_the_refused_in_its_caption(row, tmp_path):
    [path] = predictor_picture.write({"tflite": row, "onnx": {}}, RUNTIMES, tmp_path)
    assert path.read_bytes().startswith(b"\x89PNG") and path.name == "predictor-tflite.png"
    made = predictor_picture.picture("p", "LiteRT", row)
    assert f"{row['refused']} were refused" in made.caption and "LiteRT" in made.label
