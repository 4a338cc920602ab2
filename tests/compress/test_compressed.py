# SPDX-License-Identifier: Apache-2.0
"""The compressed model on disk, and its report as JSON and as a page."""

import json
import re
from dataclasses import replace

import pytest
import torch

from compress import compressed, report
from compress.compare import compare
from compress.report_page import page
from edge_contract.errors import DataError


@pytest.fixture
def folder(finished, tmp_path):
    _, made = finished
    made.save(tmp_path / "out")
    return tmp_path / "out"


def test_saved_model_is_read_back_whole(finished, folder):
    read, made = finished
    again = compressed.load(folder)
    assert (again.name, again.labels, again.input_shape) == ("bars", ("row", "column", "slope"), (1, 12, 12))
    assert again.preprocess == read.preprocess
    assert again.plan.digest == made.plan.digest
    assert again.report == made.report
    assert again.recipe_text == read.text
    assert again.recipe_path == read.path.absolute()
    x = torch.rand(7, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    # The exported program runs the same operators; only memory layout may change the order of sums.
    assert torch.allclose(again.model.eval()(x), made.model(x), atol=1e-5)
    assert again.model(x[:1]).shape == (1, 3)


def test_loaded_model_can_be_saved_again(folder, tmp_path):
    first = compressed.load(folder)
    first.save(tmp_path / "copy")
    assert compressed.load(tmp_path / "copy").plan.digest == first.plan.digest


def test_float_model_saves_over_a_quantized_one_and_leaves_no_plan(folder, finished):
    _, made = finished
    replace(made, plan=None).save(folder)
    assert compressed.load(folder).plan is None


DAMAGE = {
    "no report": (lambda f: (f / "report.json").unlink(), r"report\.json: no report; run strop compress run"),
    "no model": (lambda f: (f / "model.pt2").unlink(), r"out: model\.pt2 is missing; run the recipe again"),
    "no plan": (lambda f: (f / "plan.npz").unlink(), r"out: plan\.npz is missing; run the recipe again"),
    "another plan": (
        lambda f: (f / "model.json").write_text((f / "model.json").read_text().replace('"plan": "', '"plan": "0')),
        r"out: plan\.npz belongs to another model",
    ),
    "half a model": (lambda f: (f / "model.pt2").write_bytes(b"PK"), "out: damaged: "),
    "half the facts": (lambda f: (f / "model.json").write_text('{"name": "x"}'), "out: damaged: .*'labels' is missing"),
    "half a report": (lambda f: (f / "report.json").write_text("{"), r"report\.json: not JSON"),
    "another report": (
        lambda f: (f / "report.json").write_text('{"schema": "x/9"}'),
        r"report\.json: schema 'x/9'; give a report of schema strop\.compression/2",
    ),
    "a report without steps": (
        lambda f: (f / "report.json").write_text('{"schema": "strop.compression/1", "name": "x"}'),
        r"report\.json: damaged report: KeyError",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_folder_is_one_line(folder, name):
    spoil, message = DAMAGE[name]
    spoil(folder)
    with pytest.raises(DataError, match=message) as caught:
        compressed.load(folder)
    assert "\n" not in str(caught.value)


def test_interrupted_save_leaves_no_folder_that_looks_whole(finished, folder, monkeypatch):
    _, made = finished

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("compress.compressed.reports.write", full)
    with pytest.raises(DataError, match=r"cannot be written: .*No space left on device"):
        made.save(folder)
    with pytest.raises(DataError, match="no report"):
        compressed.load(folder)


def test_report_survives_json(finished):
    _, made = finished
    text = json.dumps(made.report.to_json())
    assert report.CompressionReport.from_json(json.loads(text)) == made.report


def test_page_asks_for_nothing_from_elsewhere_and_shows_every_step(finished):
    _, made = finished
    text = page(made.report)
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#)", text)
    assert "@import" not in text and "<script" not in text
    for word in (
        "1. distill",
        "2. prune",
        "3. quantize",
        "On the test split",
        "Budget" if made.report.budget else "int8",
    ):
        assert word in text
    assert text.count("<svg") == text.count('role="img" aria-label="') >= 7  # accuracy, three costs, widths, losses, …
    for row in made.report.test:
        assert f"{100 * row.score.accuracy:.1f} %" in text


def test_page_is_the_same_bytes_for_the_same_report(finished):
    _, made = finished
    assert page(made.report) == page(made.report)


def test_page_escapes_what_the_recipe_says(finished):
    _, made = finished
    assert "<b>evil" not in page(replace(made.report, name="<b>evil"))


def test_page_of_a_run_that_only_quantizes_can_be_drawn(finished):
    _, made = finished
    short = replace(made.report, steps=(made.report.steps[2], made.report.steps[3]), test=(), change=None)
    assert "<svg" in page(short)


def test_compare_puts_the_same_models_side_by_side(finished):
    _, made = finished
    rows = compare(made.report, made.report)
    assert [row.name for row in rows] == ["teacher", "float", "int8"]
    assert all(row.change.points == 0 and row.change.low < 0 < row.change.high for row in rows)


def test_reports_on_different_data_are_not_compared(finished):
    _, made = finished
    with pytest.raises(DataError, match="'bars' and 'bars' were measured on different data"):
        compare(made.report, replace(made.report, data_digest="0" * 64))
    with pytest.raises(DataError, match="no model was measured in both reports"):
        compare(made.report, replace(made.report, test=()))
