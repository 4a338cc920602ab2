# SPDX-License-Identifier: Apache-2.0
"""The report as JSON: everything survives, the schema before it is read, damage is one line."""

import copy
import json

import numpy as np
import pytest

from compress import report_files
from compress.report import CompressionReport, without_times
from compress.report_parts import Rung, pack, unpack
from edge_contract.errors import DataError
from tests.support.reports import full_report, hits, retrained


def test_everything_survives_json_and_disk(tmp_path, monkeypatch):
    report = full_report()
    assert CompressionReport.from_json(json.loads(json.dumps(report.to_json(), allow_nan=False))) == report
    monkeypatch.setattr(report_files, "page", lambda _: "drawn elsewhere")
    report_files.write(report, tmp_path / "out")
    assert report_files.read(tmp_path / "out") == report


def test_the_last_step_that_measured_speaks_for_the_run():
    report = full_report()
    last = report.steps[-1]
    assert (report.ladder, report.fidelity, report.sensitivity) == (last.ladder, last.fidelity, last.sensitivity)
    assert retrained().fidelity is None


OF_SCHEMA_1 = {
    "steps": ("peak_kb", "zipped_kb", "latency_ms", "hits", "ladder", "fidelity", "sensitivity"),
    "test": ("hits",),
}


def test_reports_of_the_schema_before_are_read():
    document = full_report().to_json()
    document["schema"] = "strop.compression/1"
    for part, keys in OF_SCHEMA_1.items():
        for row in document[part]:
            for key in keys:
                del row[key]
    del document["trials"]
    old = CompressionReport.from_json(document)
    assert old.steps[-1].hits == "" and old.ladder == () and old.trials == ()
    assert [step.score for step in old.steps] == [step.score for step in full_report().steps]
    assert old.steps[1].memory_kb == 8.0  # 2 000 values of the largest layer in float32
    assert old.steps[3].memory_kb == 2.0  # and in int8


DAMAGE = {
    "hits of another number": lambda d: d["steps"][0].update(hits=pack(hits(3, 9))),
    "hits that are no base64": lambda d: d["test"][0].update(hits="?"),
    "a rung without drop": lambda d: d["steps"][3]["ladder"][0].pop("drop"),
    "a layer without a name": lambda d: d["steps"][3]["fidelity"]["layers"][0].pop("layer"),
    "an effect without a size": lambda d: d["steps"][3]["sensitivity"]["layers"][0]["effects"]["8"].pop("size_bytes"),
    "a trial that is a number": lambda d: d.update(trials=[1]),
    "a test that is a word": lambda d: d.update(test="x"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_line(name):
    document = copy.deepcopy(full_report().to_json())
    DAMAGE[name](document)
    with pytest.raises(DataError, match=r"report\.json: damaged report: ") as caught:
        CompressionReport.from_json(document)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("samples", [1, 7, 8, 9, 1000])
def test_hits_are_packed_bit_by_bit(samples):
    found = hits(samples // 2, samples)
    text = pack(found)
    assert len(text) <= samples / 6 + 4
    assert np.array_equal(unpack(text, samples), found)
    assert unpack("", samples) is None


def test_a_rung_judged_with_numpy_is_written_too():
    rung = Rung("start", "", np.float64(0.5), np.float64(0.1), 1.0, is_kept=np.bool_(True))
    assert json.loads(json.dumps(rung.to_json()))["is_kept"] is True


def test_times_are_all_that_two_runs_may_differ_in():
    bare = without_times(full_report())
    assert bare.seconds == 0 and all(step.seconds == 0 for step in bare.steps)
    assert all(rung.seconds == 0 for rung in bare.ladder)
    assert bare.steps[-1].latency_ms is None
    assert [step.hits for step in bare.steps] == [step.hits for step in full_report().steps]
