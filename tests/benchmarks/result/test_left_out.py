# SPDX-License-Identifier: Apache-2.0
"""Predictions on a page: of each family by a predictor that never saw it, or an error that says what is missing."""

from dataclasses import replace

import pytest

from benchmarks.pictures.left_out import with_predictions
from benchmarks.pictures.make import pictures_of, report
from benchmarks.pictures.shown import shown_of
from benchmarks.predict.files import gather
from benchmarks.predict.learning import left_out
from benchmarks.result import build, save
from benchmarks.result.store import load_all
from benchmarks.training.variants import Variant
from compress.quantize.step import folded
from edge_contract.canonical import digest
from edge_contract.errors import MeasurementError
from export.tflite import float_writer
from tests.benchmarks.predict.test_board import WIDTHS, true_of
from tests.benchmarks.result.made import ARTIFACT, measurement

pytestmark = pytest.mark.long
FAMILIES = ("mlp", "lenet", "plain-cnn")


def timed(path, folder, us):
    """Keep a result of a model file as the board would have measured it."""
    sha = digest(path.read_bytes())
    whole = measurement(3, runs=50, us=us)
    whole = replace(whole, plan=replace(whole.plan, sha256=sha))
    save(build(whole, None, artifact=replace(ARTIFACT, sha256=sha, name=path.stem)), whole, folder)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Twelve models of three families, and their results on a board whose law is known."""
    place = tmp_path_factory.mktemp("lab")
    for family in FAMILIES:
        for width in WIDTHS:
            one = Variant(family, width)
            path = place / "models" / family / f"{one.name}.tflite"
            path.parent.mkdir(parents=True, exist_ok=True)
            float_writer.write(folded(one.network(), one.inputs(1)), path, embedding=False)
            timed(path, place / "results" / family, 1000 * true_of(path))
    return place


def test_each_family_is_predicted_by_the_others(lab):
    found = with_predictions(load_all([lab / "results"])[0], lab / "models")
    ((_, measured),) = gather([lab / "results"], lab / "models")[1].items()
    expected = sorted(1000 * said.ms for _, said in left_out(measured) if said is not None)
    assert sorted(one.prediction.p50_us for _, one in found if one.prediction) == pytest.approx(expected)
    drawn = {one.name: one for one in pictures_of(shown_of(found))}
    assert f"of {len(expected)} within ± 10 %" in drawn["predicted"].caption


def test_the_page_shows_them_and_few_families_are_refused(lab, tmp_path):
    said = report([lab / "results"], models=lab / "models", png=None)
    assert said.count("\n") == 12
    with pytest.raises(MeasurementError, match=r"4 models of 1 families; measure at least 12 models of three"):
        report([lab / "results/mlp"], models=lab / "models")
