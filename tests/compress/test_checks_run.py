# SPDX-License-Identifier: Apache-2.0
"""Checks of a whole run: on the shipped integers, in the report and its page, once more by command, and at the gate."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compress import pipeline, recipe, report_files
from compress.checks import runs
from compress.checks.examine import examine
from compress.checks.gate import Waiver, gate, waivers
from compress.checks.outcome import CheckResult, Row
from compress.quantize import integer
from compress.report import CompressionReport
from compress.report_page import page
from edge_contract.errors import CheckError, DataError, RecipeError, UsageError
from strop.cli import main
from tests.compress.conftest import RECIPE, TASK
from tests.support.reports import full_report

MORE = """
[[check]]
kind = "slices"
name = "by-class"
min  = 60.0
max_drop = 30.0
[[check]]
kind = "slices"
name = "original"
max_drop = 30.0
against = "float"
[[check]]
kind = "invariance"
name = "noisy"
perturbation = "noise"
amount = 0.02
max_changed = 30.0
[[check]]
kind = "balance"
[[check]]
kind = "leakage"
coarse = true
"""


@pytest.fixture(scope="module")
def folder(finished, tmp_path_factory):
    """The saved run, beside its task."""
    read, made = finished
    place = tmp_path_factory.mktemp("checked")
    (place / "strop_tiny_task.py").write_text(TASK)
    shutil.copy(read.path.parent / "teacher.pt", place / "teacher.pt")
    (place / "bars.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_files, "page", lambda _: "drawn elsewhere")  # drawing is the slow part of saving
        replace(made, recipe_path=place / "bars.toml").save(place / "out")
    return place


@pytest.fixture
def type_in(capsys, folder, monkeypatch):
    def typed(*words, code):
        monkeypatch.chdir(folder)
        with pytest.raises(SystemExit) as left:
            main(["compress", "check", *map(str, words)])
        out, err = capsys.readouterr()
        assert left.value.code == code, err
        return out, err

    return typed


def test_a_run_without_tables_is_examined_for_ranges_and_leaks(finished):
    _, made = finished
    assert [(one.name, one.passed) for one in made.report.checks] == [("schema", True), ("leakage", True)]
    leakage = made.report.checks[1]
    assert leakage.words == "0 inputs stand in two splits after preprocessing, allowed 0"
    assert [row.samples for row in leakage.rows if row.name.endswith("test")] == [150, 150, 150]
    assert made.report.checks[0].facts["shape"] == [12, 12]


def test_what_a_check_names_is_looked_up_before_the_first_epoch(finished, tmp_path):
    read, _ = finished
    text = RECIPE + '[[check]]\nkind = "slices"\nby = "site"\nmin = 1\n'
    with pytest.raises(RecipeError, match="the data have no metadata 'site'"):
        pipeline.run(recipe.parse(text, read.path), tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_slices_are_of_the_integers(finished, folder):
    """Accuracy by class, from the integer evaluation of the plan itself."""
    read, made = finished
    read = replace(recipe.parse(RECIPE + MORE, folder / "bars.toml"))
    one = runs.finished(made, read)
    said = {found.name: found for found in examine(one)}
    x, y = one.validation
    right = integer.predict(made.plan, x).argmax(1) == y.numpy()
    for label, row in enumerate(said["by-class"].rows):
        assert row.figure == pytest.approx(100 * right[y.numpy() == label].mean())
    assert [row.name for row in said["by-class"].rows] == ["row", "column", "slope"]
    assert said["leakage"].words == "0 inputs stand in two splits as the integers see them, allowed 0"
    assert all(found.passed for found in said.values()), [found.words for found in said.values()]


def test_checks_run_again_by_command_and_the_report_keeps_them(type_in, folder, monkeypatch):
    monkeypatch.setattr(report_files, "page", lambda _: "drawn elsewhere")
    before = report_files.read(folder / "out")
    out, _ = type_in("out", "--json", code=0)
    assert [one["name"] for one in json.loads(out)] == ["schema", "leakage"]
    assert report_files.read(folder / "out") == before


def test_other_checks_are_tried_and_not_recorded(type_in, folder):
    hard = '[[check]]\nkind = "balance"\nname = "hard"\nmin_calibration = 23\n'
    (folder / "hard.toml").write_text(RECIPE + hard)
    before = (folder / "out" / "report.json").read_bytes()
    out, err = type_in("out", "--recipe", "hard.toml", code=1)
    assert "row: 80 training and 22 calibration samples, 23 asked" in out
    assert "error: out: 1 of 3 checks failed: hard; mend the model or the data" in err
    assert (folder / "out" / "report.json").read_bytes() == before


def test_data_that_changed_since_the_run_are_refused(finished, folder):
    read, made = finished
    other = replace(made, report=replace(made.report, data_digest="e" * 64))
    with pytest.raises(DataError, match=r"the data changed since the run \([0-9a-f]{12}, not eeeeeeeeeeee\)"):
        runs.finished(other, read)
    strange = replace(made, report=replace(made.report, teacher_digest="e" * 64))
    text = RECIPE + MORE
    with pytest.raises(DataError, match="the teacher changed since the run"):
        examine(runs.finished(strange, recipe.parse(text, folder / "bars.toml")))


def test_a_comparison_with_a_teacher_that_is_none_is_refused(finished):
    read, made = finished
    model = replace(read.model, teacher="", teacher_weights="")
    with pytest.raises(RecipeError, match="a check compares with the teacher, and there is none"):
        runs.finished(made, replace(read, model=model)).reference("teacher")


# --- report ---

FAILED = CheckResult(
    "by-site", "slices", False, 60.0, 75.0, "%", "1 of 2 slices by site failed; '<b>': 60.0 %", 50.2, 69.1,
    is_least=True, rows=(Row("a", 95.0, 88.8, 97.8, 100), Row("<b>", 60.0, 50.2, 69.1, 100, "failed", "60.0 %")),
)  # fmt: skip
PASSED = CheckResult("gap", "gap", True, 1.0, 5.0, "points", "train 99 %, validation 98 %", -0.5, 2.5)


def test_reports_keep_checks_and_old_ones_have_none():
    report = replace(full_report(), checks=(FAILED, PASSED))
    assert CompressionReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert report.failed_checks == (FAILED,)
    old = report.to_json()
    del old["checks"]
    assert CompressionReport.from_json(old).checks == ()
    with pytest.raises(DataError, match="damaged report"):
        CompressionReport.from_json({**report.to_json(), "checks": [{"name": "x"}]})


def test_the_page_shows_verdicts_and_draws_slices():
    bare = replace(full_report(), steps=(), test=())
    text = page(replace(bare, checks=(FAILED, PASSED)))
    assert '<p class="missed">1 of 2 checks failed: no bundle is made of this model' in text
    assert '<td class="missed">failed</td>' in text and '<td class="kept">passed</td>' in text
    assert "60.0 % [50.2, 69.1]" in text and "at least 75 %" in text
    assert 'aria-label="check by-site, slice by slice"' in text
    assert "&lt;b&gt;" in text and "'<b>'" not in text
    assert "All 1 checks passed." in page(replace(bare, checks=(PASSED,)))
    assert "<h2>Checks</h2>" not in page(bare)


# --- gate ---


def test_a_failed_check_names_figure_limit_and_the_way_out():
    with pytest.raises(CheckError) as refused:
        gate((PASSED, FAILED), (), "out")
    assert str(refused.value) == (
        "out: check 'by-site' failed: 60.0 % [50.2, 69.1], asked at least 75 %; 1 of 2 slices by site failed; '<b>': "
        '60.0 %; mend the model or the data and run again, or answer for it: --waive by-site --reason "…"'
    )
    assert refused.value.exit_code == 1


def test_several_failed_checks_are_all_named():
    other = replace(FAILED, name="by-camera")
    with pytest.raises(CheckError, match=r"\(and 1 more: by-camera\).* --waive by-site --waive by-camera --reason"):
        gate((FAILED, other), (), "out")
    with pytest.raises(CheckError, match="check 'by-camera' failed"):
        gate((FAILED, other), (Waiver("by-site", "known"),), "out")


def test_a_waiver_is_written_down_with_its_figures():
    said = gate((PASSED, FAILED), waivers(["by-site"], ["  b is\nclosed "]), "out")
    assert said["passed"] == ["gap"]
    (waived,) = said["waived"]
    assert waived["reason"] == "b is closed"
    assert (waived["name"], waived["figure"], waived["limit"]) == ("by-site", "60.0 % [50.2, 69.1]", "at least 75 %")
    assert gate((), (), "out") == {}


WRONG = {
    "passed": ((PASSED, FAILED), ["by-site", "gap"], "check 'gap' has passed; leave --waive out"),
    "unknown": ((PASSED, FAILED), ["by-sites"], "there is no check 'by-sites'; write 'by-site'"),
    "none failed": ((PASSED,), ["x"], "there is no check 'x'; leave --waive out"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_waiver_of_nothing_is_refused(case):
    checks, names, words = WRONG[case]
    with pytest.raises(UsageError, match=words):
        gate(checks, waivers(names, ["why"]), "out")


@pytest.mark.parametrize("reasons", [[], [" "], ["a", "b", "c"]])
def test_waivers_need_reasons_that_fit(reasons):
    with pytest.raises(UsageError, match="reason"):
        waivers(["one", "two"], reasons)
    assert waivers([], []) == ()


def test_the_examples_ask_for_what_their_data_have():
    """Every example recipe can be read, and the watch knows its wearer."""
    root = Path(__file__).parents[2] / "examples"
    asked = {path.stem: recipe.load(path).checks for path in sorted(root.glob("*/*.toml"))}
    assert len(asked["digits"]) == len(asked["digits-v2"]) == 9
    assert len(asked["lite0"]) == 2
    columns = {one.by for one in asked["watch"] if one.kind == "slices"}
    from examples.watch.data import load

    known = load().validation.metadata
    assert columns - {"class"} <= known.keys()
    assert np.unique(known["side"]).tolist() == [0, 1]
