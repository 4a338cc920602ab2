# SPDX-License-Identifier: Apache-2.0
"""``edgebench/1``: written and read without loss, faults that name file and key, and a page that says what it is."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.result import build, from_json, load, same_bytes, save, to_json
from benchmarks.result.codec import short
from benchmarks.result.page import PAGE, with_tables
from benchmarks.result.store import SMALL, file_name, load_all, pretty, samples_of
from edge_contract.errors import ContractError, MeasurementError
from tests.benchmarks.result.made import ARTIFACT, QUALITY, SHA, measurement

MEASURED = measurement()
RESULT = build(MEASURED, QUALITY, artifact=ARTIFACT)


@pytest.fixture
def document():
    return to_json(RESULT)


def test_a_result_survives_json_and_the_second_time_changes_nothing(document):
    again = from_json(json.loads(json.dumps(document)), "a.json")
    assert to_json(again) == document
    assert again.reasons == RESULT.reasons
    assert again.latency_us["invoke"].p50 == short(RESULT.latency_us["invoke"].p50)


def test_keys_of_a_newer_version_are_kept_where_they_stood(document):
    document["weather"] = {"outside_c": 3.5}
    document["device"]["case"] = "fan"
    document["latency_us"]["invoke"]["p999"] = 900.0
    kept = to_json(from_json(document, "a.json"))
    assert kept["weather"] == {"outside_c": 3.5}
    assert kept["device"]["case"] == "fan"
    assert kept["latency_us"]["invoke"]["p999"] == 900.0


FAULTS = {
    "another schema": (["schema"], "edgebench/9", "a.json: schema: schema 'edgebench/9' is not known"),
    "a status": (["status"], "fine", "a.json: status: unknown value 'fine'"),
    "text for a number": (
        ["latency_us", "invoke", "p50"], "fast", "a.json: latency_us.invoke.p50: expected a number, found 'fast'",
    ),
    "a number for text": (["artifact", "format"], 3, "a.json: artifact.format: expected text, found 3"),
    "true for a count": (["counts", "measured"], True, "a.json: counts.measured: expected an integer, found True"),
    "half an interval": (
        ["latency_us", "total", "p50_ci95"], [1.0], "a.json: latency_us.total.p50_ci95: expected 2 values, found 1",
    ),
    "no object": (["device"], [], "a.json: device: expected an object, found []"),
    "no list": (["reasons"], "none", "a.json: reasons: expected a list, found 'none'"),
    "no number in a list": (["runtime", "affinity"], ["x"], "a.json: runtime.affinity[0]: expected an integer"),
    "quality of other bytes": (["quality", "sha256"], "0" * 64, "a.json: quality.sha256: of artefact 000000000000"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_names_file_and_key(document, name):
    path, value, words = FAULTS[name]
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ContractError) as caught:
        from_json(document, "a.json")
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize("key", ["artifact", "status", "counts", "record"])
def test_a_missing_key_is_named(document, key):
    del document[key]
    with pytest.raises(ContractError, match=f"a.json: key '{key}' is missing"):
        from_json(document, "a.json")


def test_what_is_no_object_is_no_result(tmp_path):
    with pytest.raises(ContractError, match="expected an object, found list"):
        from_json([], "a.json")
    with pytest.raises(MeasurementError, match=r"none.json: cannot be read \(No such file or directory\)"):
        load(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"schema":')
    with pytest.raises(ContractError, match=r"half.json: not JSON"):
        load(tmp_path / "half.json")


def test_a_file_lies_under_its_board_and_its_name_tells_the_configuration(tmp_path):
    path = save(RESULT, MEASURED, tmp_path)
    assert path.relative_to(tmp_path).as_posix() == (
        f"raspberry-pi-5-model-b-rev-1-0-aarch64/{SHA[:12]}-litert-t1-single-bare.json"
    )
    assert path.name == file_name(RESULT)
    assert {one.name for one in path.parent.iterdir()} == {path.name, f"{path.stem}.bin"}
    found = load(path)
    assert to_json(replace(found, raw=None)) == to_json(replace(RESULT, raw=None))
    assert len(samples_of(path, found)) == 4 * sum(column.count for column in found.raw.columns)


def test_a_file_has_short_lines_in_the_order_of_the_schema(tmp_path):
    text = save(RESULT, MEASURED, tmp_path).read_text("utf-8")
    assert json.loads(text)
    assert max(len(line) for line in text.splitlines()) < 130
    assert list(json.loads(text))[:5] == ["schema", "id", "started", "status", "reasons"]
    assert save(RESULT, MEASURED, tmp_path).read_text("utf-8") == text


def test_paths_of_the_machine_do_not_leave_it(tmp_path):
    text = save(RESULT, MEASURED, tmp_path).read_text("utf-8")
    assert "/somewhere" not in text
    assert "/data/x" not in text
    assert json.loads(text)["record"]["plan"]["data"] == "samples.npz"


def test_large_raw_samples_have_a_name_that_git_leaves_out(tmp_path):
    many = measurement(3, runs=SMALL // (4 * 5 * 3) + 10)
    path = save(build(many, QUALITY, artifact=ARTIFACT), many, tmp_path)
    assert load(path).raw.file.endswith(".large.bin")
    ignored = (Path(__file__).parents[3] / "benchmarks/results/.gitignore").read_text("utf-8").split()
    assert "*.large.bin" in ignored


def test_a_folder_of_results_is_read_past_other_files(tmp_path):
    save(RESULT, MEASURED, tmp_path)
    (tmp_path / "floor.json").write_text('{"schema": "strop.noise-floor/1"}')
    (tmp_path / "ops.json").write_text('{"schema": "strop.ops/1", "ops": []}')
    results, profiles = load_all([tmp_path])
    assert len(results) == 1
    assert profiles == [{"schema": "strop.ops/1", "ops": []}]
    with pytest.raises(ContractError, match=r"schema 'strop\.noise-floor/1' is not known"):
        load_all([tmp_path / "floor.json"])


def test_a_name_that_leaves_the_folder_is_refused(tmp_path):
    path = save(RESULT, MEASURED, tmp_path)
    found = load(path)
    with pytest.raises(ContractError, match="leaves the folder"):
        samples_of(path, replace(found, raw=replace(found.raw, file="../x.bin")))


def test_results_of_different_bytes_are_not_compared():
    other = replace(RESULT, artifact=replace(ARTIFACT, sha256="1" * 64, name="digits float"))
    same_bytes(RESULT, RESULT)
    words = f"different artefacts: digits int8 {SHA[:12]} and digits float 111111111111"
    with pytest.raises(MeasurementError, match=words):
        same_bytes(RESULT, other)


@pytest.mark.parametrize("value", [{}, [], {"a": list(range(60)), "b": {"c": "é" * 90}}, [[1, 2], {"k": None}]])
def test_pretty_json_says_the_same(value):
    assert json.loads(pretty(value)) == value


def test_the_page_has_an_example_that_is_one_and_the_tables_of_today():
    text = PAGE.read_text("utf-8")
    (example,) = re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert to_json(from_json(json.loads(example), "example")) == json.loads(example)
    assert with_tables(text) == text, "run: python -m benchmarks.result.page"


def test_python_of_the_page_reads_a_result(tmp_path, capsys, monkeypatch):
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    save(RESULT, MEASURED, tmp_path, name="result.json")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/edgebench.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1", "2", "3"]
    assert all(150_000 < float(line.split()[1]) < 220_000 for line in lines)
