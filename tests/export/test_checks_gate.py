# SPDX-License-Identifier: Apache-2.0
"""A failed check stands in the way of a bundle; a waiver is in its lineage, and whoever inspects it reads it."""

from dataclasses import replace

import pytest

from compress import report_files
from compress.checks.gate import waivers
from compress.checks.outcome import CheckResult
from edge_contract.errors import CheckError
from export.bundle import builder
from export.tables import check_lines
from strop.cli import main

FAILED = CheckResult("by-site", "slices", False, 60.0, 75.0, "%", "'b': 60.0 %", 50.2, 69.1, is_least=True)
PASSED = CheckResult("gap", "gap", True, 1.0, 5.0, "points", "train 99 %", -0.5, 2.5)


@pytest.fixture(scope="module")
def doubtful(compressed):
    return replace(compressed, report=replace(compressed.report, checks=(PASSED, FAILED)))


@pytest.fixture
def type_in(capsys):
    def typed(*words, code):
        with pytest.raises(SystemExit) as left:
            main(["export", *map(str, words)])
        out, err = capsys.readouterr()
        assert left.value.code == code, err
        return out, err

    return typed


def test_a_failed_check_leaves_no_bundle(doubtful, samples, tmp_path):
    with pytest.raises(
        CheckError, match=r"bars: check 'by-site' failed: 60\.0 % \[50\.2, 69\.1\], asked at least 75 %"
    ):
        builder.build(doubtful, tmp_path / "out", version="1", samples=samples)
    assert not list(tmp_path.iterdir())


def test_a_waiver_is_in_the_lineage_and_is_read_by_inspect(doubtful, samples, tmp_path, type_in):
    waived = waivers(["by-site"], ["site b is closed"])
    built = builder.build(
        doubtful, tmp_path / "out", version="1", samples=samples, waived=waived, targets=["generic-x86"]
    )
    said = builder.verify(tmp_path / "out").lineage["checks"]
    assert said == built.manifest.lineage["checks"]
    assert said["passed"] == ["gap"]
    assert said["waived"] == [
        {
            "name": "by-site",
            "kind": "slices",
            "figure": "60.0 % [50.2, 69.1]",
            "limit": "at least 75 %",
            "words": "'b': 60.0 %",
            "reason": "site b is closed",
        }
    ]
    out, _ = type_in("inspect", tmp_path / "out", code=0)
    assert "checks passed: gap" in out
    assert "check waived: by-site (slices), 60.0 % [50.2, 69.1], asked at least 75 %: site b is closed" in out


def test_a_report_without_checks_leaves_the_lineage_as_it_was(bundle_folder):
    assert "checks" not in builder.verify(bundle_folder).lineage


def test_the_command_refuses_before_it_reads_data(doubtful, tmp_path, type_in):
    report_files.write(doubtful.report, tmp_path / "run")
    words = ("bundle", tmp_path / "run", "--version", "1", "--out", tmp_path / "out")
    _, err = type_in(*words, code=1)
    assert 'or answer for it: --waive by-site --reason "…"' in err
    _, err = type_in(*words, "--waive", "by-site", code=2)
    assert "a waiver without a reason" in err
    _, err = type_in(*words, "--waive", "gap", "--reason", "x", code=2)
    assert "check 'gap' has passed; leave --waive out" in err
    _, err = type_in(*words, "--waive", "by-site", "--reason", "x", code=1)  # the gate is open: the run itself lacks
    assert "is missing; run the recipe again" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("said", [None, 3, {"waived": [3, {}]}, {"passed": []}])
def test_a_lineage_of_other_makers_is_read_with_care(said):
    lines = check_lines({"checks": said})
    assert lines == (["check waived: ? (?), ?, asked ?: ?"] if isinstance(said, dict) and said.get("waived") else [])
