# SPDX-License-Identifier: Apache-2.0
"""From results and files to a board's predictor, on the command line: what counts, what is refused, what is said."""

import hashlib
import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from benchmarks.predict.board import Board, named
from benchmarks.predict.files import gather, operators_of
from benchmarks.result.build import build
from benchmarks.result.store import save
from benchmarks.training.variants import Variant
from compress.quantize.step import folded
from edge_contract.errors import MeasurementError
from export.tflite import float_writer
from strop.cli import app
from tests.benchmarks.predict.boards import true_ms
from tests.benchmarks.result.made import ARTIFACT, BOARD, measurement

WIDTHS = (0.5, 1.0, 1.5, 2.0)


def timed(path, folder, *, us, board=BOARD, threads=1, **more):
    """Keep a result of a model file as the board would have measured it."""
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    whole = measurement(3, runs=50, us=us)
    launches = tuple(replace(one, runtime=replace(one.runtime, threads=threads)) for one in whole.launches)
    whole = replace(
        whole, plan=replace(whole.plan, sha256=sha, threads=threads, **more), preflight=board, launches=launches
    )
    return save(build(whole, None, artifact=replace(ARTIFACT, sha256=sha, name=path.stem)), whole, folder)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Twelve models of three families, and their results on one board whose law is known."""
    place = tmp_path_factory.mktemp("lab")
    for family in ("mlp", "lenet", "plain-cnn"):
        for width in WIDTHS:
            one = Variant(family, width)
            path = place / "models" / family / f"{one.name}.tflite"
            path.parent.mkdir(parents=True, exist_ok=True)
            float_writer.write(folded(one.network(), one.inputs(1)), path, embedding=False)
            timed(path, place / "results", us=1000 * true_of(path))
    return place


def true_of(path):
    return true_ms([replace(op, kind="conv") if op.kind not in ("conv", "dense") else op for op in operators_of(path)])


def strop(*words):
    return CliRunner().invoke(app, ["bench", "predict", *map(str, words)])


@pytest.fixture(scope="module")
def learned(lab):
    out = lab / "board.json"
    done = strop("learn", lab / "results", "--models", lab / "models", "--out", out)
    assert done.exit_code == 0, done.output
    return done.output, out


def test_learning_says_what_it_learned_and_how_far_off_it_is(learned):
    text, out = learned
    assert "litert/1: 12 models of 3 families" in text and "families left out: median error" in text
    assert "that takes 10 of them" in text
    shown = strop("show", out)
    assert shown.exit_code == 0 and shown.output == text
    document = json.loads(strop("show", out, "--json").output)
    way = document["ways"]["litert/1"]
    assert way["families"] == ["lenet", "mlp", "plain-cnn"] and "float32 dense" in way["operators"]
    assert way["cross_validated"]["median"] == Board.load(out).ways["litert/1"].judged.median


def test_asking_gives_a_prediction_that_calls_itself_one(lab, learned):
    path = lab / "models" / "plain-cnn" / "plain-cnn-1.5.tflite"
    said = strop("ask", path, "--board", learned[1], "--family", "plain-cnn")
    assert said.exit_code == 0 and "predicted, not measured" in said.output and "[" in said.output
    answer = json.loads(strop("ask", path, "--board", learned[1], "--family", "plain-cnn", "--json").output)
    assert answer["measured"] is False and answer["low"] <= answer["ms"] <= answer["high"]
    assert answer["ms"] == pytest.approx(true_of(path), rel=0.25)
    assert json.loads(strop("ask", path, "--board", learned[1], "--json").output)["high"] is None


def test_a_stranger_is_refused(tmp_path, learned):
    one = Variant("series", 1.0)
    path = tmp_path / "series.tflite"
    float_writer.write(folded(one.network(), one.inputs(1)), path, embedding=False)
    said = strop("ask", path, "--board", learned[1])
    assert isinstance(said.exception, MeasurementError) and "learn again" in str(said.exception)
    wrong = strop("ask", path, "--board", learned[1], "--threads", 4)
    assert "'litert/4' was not measured" in str(wrong.exception) and "known: litert/1" in str(wrong.exception)


def test_results_that_do_not_count_and_mixed_boards(lab, tmp_path):
    path = lab / "models" / "mlp" / "mlp-1.tflite"
    timed(path, tmp_path / "r", us=50.0)
    timed(path, tmp_path / "r", us=5000.0, scenario="sustained", seconds=1.0, launches=1)
    timed(path, tmp_path / "r", us=70.0, threads=4)
    key, ways = gather([tmp_path / "r"], lab / "models")
    assert {way: len(found) for way, found in ways.items()} == {"litert/1": 1, "litert/4": 1}
    [one] = ways[named("litert", 1)]
    assert one.family == "mlp" and one.ms == pytest.approx(0.05, rel=0.1) and key
    timed(path, tmp_path / "r", us=50.0, board=replace(BOARD, board="Raspberry Pi 4 Model B Rev 1.4", soc="bcm2711"))
    with pytest.raises(MeasurementError, match="results of 2 boards"):
        gather([tmp_path / "r"], lab / "models")
    with pytest.raises(MeasurementError, match="no result that counts"):
        gather([], lab / "models")
    with pytest.raises(MeasurementError, match="is not there; name the folder"):
        gather([lab / "results"], tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "strop.latency-predictor/1", "ways": [], "board": "x"}'])
def test_files_that_hold_no_predictor(tmp_path, text):
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(MeasurementError, match=r"b\.json"):
        Board.load(tmp_path / "b.json")
    with pytest.raises(MeasurementError, match="cannot be read"):
        Board.load(tmp_path / "none.json")
