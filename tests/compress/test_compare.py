# SPDX-License-Identifier: Apache-2.0
"""Two reports side by side: paired where the samples are known, step by step, layer by layer, as tables and a page."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from compress import report_files, tables
from compress.compare import compare, compare_layers, compare_steps, unpaired_difference
from compress.evaluate import paired_difference
from compress.report_page import comparison_page
from edge_contract.errors import DataError
from tests.support.reports import full_report, hits, retrained


def without_hits(report):
    return replace(report, test=tuple(replace(row, hits="") for row in report.test))


def test_models_are_compared_sample_by_sample():
    rows = compare(full_report(), retrained())
    assert [row.name for row in rows] == ["float", "int8"]
    assert rows[0].is_paired
    assert rows[0].change == paired_difference(hits(284, 300, 5), hits(291, 300, 9))
    assert rows[0].to_json()["paired"] is True


def test_old_reports_are_compared_as_independent_samples():
    first, second = full_report(), without_hits(retrained())
    row = compare(first, second)[0]
    assert not row.is_paired
    assert row.change == unpaired_difference(first.row("float").score, second.row("float").score)


def test_a_paired_interval_of_like_models_is_narrower():
    report = full_report()
    paired, unpaired = compare(report, report)[0].change, compare(report, without_hits(report))[0].change
    assert paired.high - paired.low < 0.3 * (unpaired.high - unpaired.low)


def test_steps_meet_their_like():
    rows = compare_steps(full_report(), retrained())
    assert [(row.kind, row.second is not None) for row in rows] == [
        ("enter", True), ("train", True), ("prune", False), ("quantize", True),
    ]  # fmt: skip
    assert rows[3].change == paired_difference(hits(185, seed=4), hits(192, seed=4))
    assert rows[1].change.points == 0 and rows[2].change is None
    assert rows[2].to_json() == {"kind": "prune", "first": 2, "second": None, "change": None, "paired": False}
    assert compare_steps(retrained(), full_report())[-1].kind == "prune"


def test_layers_meet_their_name():
    rows = {row.name: row for row in compare_layers(full_report(), retrained())}
    assert list(rows) == ["stem", "head"]
    assert rows["stem"].channels == (8, 12)
    assert rows["stem"].sqnr_db == (31.0, None)
    assert rows["head"].to_json()["macs"] == [80, 120]
    assert compare_layers(replace(full_report(), steps=()), full_report())[0].channels == (None, 8)


def test_other_data_are_refused_everywhere():
    first, other = full_report(), replace(retrained(), data_digest="0" * 64)
    for function in (compare, compare_steps):
        with pytest.raises(DataError, match="'bars' and 'bars-2' were measured on different data"):
            function(first, other)


def printed(table):
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    return console.file.getvalue()


def test_tables_say_what_changed():
    first, second = full_report(), retrained()
    assert "+2.33 [" in printed(tables.compared_table("a", "b", compare(first, second)))
    assert "not paired" in printed(tables.compared_table("a", "b", compare(first, without_hits(second))))
    steps = printed(tables.compared_steps_table(compare_steps(first, second)))
    assert "92.5 → 96.0" in steps and "93.0 → –" in steps
    layers = printed(tables.compared_layers_table(compare_layers(first, second)))
    assert "8 → 12" in layers and "31.0 → –" in layers


def test_tables_of_one_report():
    report = full_report()
    assert "2.2" in printed(tables.step_table(report))  # zipped
    assert "adaptive rounding" in printed(tables.ladder_table(report.ladder))
    lines = printed(tables.sensitivity_table(report.sensitivity)).splitlines()
    names = [line for line in lines if "stem" in line or "head" in line]
    assert "stem" in names[0] and "3.0e-03" in names[0]  # the most sensitive first


def test_page_has_both_runs_and_asks_for_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(report_files, "page", lambda _: "drawn elsewhere")
    for name, report in (("a", full_report()), ("b", retrained())):
        report_files.write(report, tmp_path / name)
    report_files.write_comparison(tmp_path / "a", tmp_path / "b", tmp_path / "c" / "compare.html")
    text = (tmp_path / "c" / "compare.html").read_text(encoding="utf-8")
    for words in ("counted sample by sample;", "8 → 12", "92.50 %", "96.00 %", "+3.50 ["):
        assert words in text
    assert "<script" not in text and "src=" not in text
    report_files.write_comparison(tmp_path / "a", tmp_path / "b", tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == text


def test_page_says_where_pairs_are_missing():
    text = comparison_page(full_report(), without_hits(retrained()), ("<a>", "b"))
    assert "sample by sample in 0 of 2 rows" in text and ", not paired" in text
    assert "&lt;a&gt;" in text and "<a>" not in text
    same = comparison_page(full_report(), full_report(), ("a", "b"))
    assert "No layer differs in width or cost." in same
