# SPDX-License-Identifier: Apache-2.0
"""Plans and records: what goes together, what is refused, and that JSON gives back the same."""

import json
import shutil

import pytest

from benchmarks.plan import PROFILES, BenchPlan, plan_for
from benchmarks.record import ColdStart, Launch, Measurement, Preflight, Reading, RuntimeFacts
from edge_contract.errors import BundleError, ManifestError, MeasurementError, StropError, UsageError

SHA = "ab" * 32


def plan(**chosen):
    return BenchPlan("m.tflite", SHA, "tflite", **chosen)


def launch(**changes):
    facts = RuntimeFacts("litert", "2.3.0", ("XNNPACK", "CPU"), 0.9, 4, (0, 1), {"operators": 31})
    fields = {
        "number": 1, "label": "A", "started": "2026-11-21T02:00:00Z", "cold": ColdStart(40.5, 200.0, 12.25, 0.5),
        "warmup": 23, "steady": True, "stages_ns": {"invoke": (5, 6), "total": (7, 9)}, "starts_ns": (100, 200),
        "missed": 1, "dropped": 2, "readings": (Reading(99, 45.5, (1500000,), 0x50000, 3.5, 7), Reading(150)),
        "faults": {"major": 0, "minor": 3}, "memory": {"rss_peak_kb": 50000}, "runtime": facts, "timer_ns": 110.5,
        "golden": "same", "samples": 64, "batch": 2, "every": 3,
    }  # fmt: skip
    return Launch(**{**fields, **changes})


def test_a_bundle_names_its_file_its_digest_and_its_runtime(bundle):
    found = plan_for(bundle)
    assert (found.runtime, found.format, found.input, found.mode) == ("litert", "tflite", "real", "bare")
    assert found.bundle == str(bundle) and len(found.bundle_digest) == 64
    assert plan_for(f"{bundle}@onnxruntime").artefact.endswith("model.onnx")
    assert plan_for(bundle, runtime="onnxruntime").format == "onnx"


def test_a_bare_file_is_measured_on_random_input_unless_data_are_given(bundle):
    found = plan_for(bundle / "model.onnx")
    assert (found.runtime, found.input, found.bundle) == ("onnxruntime", "random", "")


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_gives_the_numbers_that_were_not_chosen(bundle, profile):
    found = plan_for(bundle, profile=profile, runs=77)
    assert found.launches == PROFILES[profile]["launches"] and found.runs == 77


def test_fifteen_minutes_at_full_load_are_one_launch(bundle):
    found = plan_for(bundle, scenario="sustained")
    assert (found.launches, found.seconds) == (1, 900.0)
    assert plan_for(bundle, scenario="sustained", seconds=60.0).seconds == 60.0


def test_json_gives_the_same_plan(bundle):
    found = plan_for(bundle, affinity=(0, 2), scenario="paced", fps=30, deadline_ms=10)
    assert BenchPlan.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"runtime": "onnxruntime"}, "onnxruntime runs no tflite file"),
        ({"runtime": "caffe"}, "unknown runtime 'caffe'"),
        ({"scenario": "server"}, "unknown scenario 'server'"),
        ({"scenario": "paced"}, "paced without a rate; add --fps 30"),
        ({"fps": 30.0}, "30 fps in scenario 'single'"),
        ({"batch": 8}, "batch 8 in 'single'"),
        ({"mode": "realistic"}, "a bare file has no preprocessing"),
        ({"mode": "realistic", "bundle": "b", "input": "random"}, "random input in mode 'realistic'"),
        ({"mode": "realistic", "bundle": "b", "scenario": "offline", "batch": 4}, "one input at a time"),
        ({"delegate": "openvino"}, "litert takes no delegate 'openvino'"),
        ({"runs": 0}, "runs of 0; give 1 or more"),
        ({"seconds": -1.0}, "seconds of -1.0"),
        ({"seconds": float("nan")}, "seconds of nan"),
        ({"profile": "mlperf"}, "unknown profile 'mlperf'"),
    ],
)
def test_what_does_not_go_together_is_refused(chosen, words):
    with pytest.raises(UsageError, match=words.replace("(", r"\(")):
        plan(**chosen)


def test_the_deadline_of_a_paced_run_is_a_period_unless_it_is_said():
    assert plan().deadline_ns == 0
    assert plan(scenario="paced", fps=25.0).deadline_ns == 40_000_000
    assert plan(scenario="paced", fps=25.0, deadline_ms=10.0).deadline_ns == 10_000_000


def test_configurations_differ_by_name():
    made = [
        plan(), plan(threads=2), plan(scenario="paced", fps=15.0), plan(scenario="offline", batch=8),
        plan(input="random"), plan(mode="realistic", bundle="b"), plan(runtime="edgetpu", delegate="/lib/x.so?a=1"),
    ]  # fmt: skip
    names = [one.configuration for one in made]
    assert len(set(names)) == len(names)
    assert not any(set(name) & set(" /?") for name in names)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("nowhere.tflite", MeasurementError, "cannot be read"),
        ("model.pt", UsageError, "give a bundle's folder, a .tflite or a .onnx file"),
        (".", UsageError, "no readable manifest.json"),
    ],
)
def test_other_files_are_refused(tmp_path, monkeypatch, name, error, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(error, match=words):
        plan_for(name)


def test_a_changed_or_broken_bundle_is_refused(bundle, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / "b")
    with (folder / "model.tflite").open("ab") as file:
        file.write(b"x")
    with pytest.raises(MeasurementError, match="the manifest lists"):
        plan_for(folder)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises((BundleError, ManifestError)):
        plan_for(folder)


def test_a_runtime_is_named_once(bundle):
    with pytest.raises(UsageError, match="say it once"):
        plan_for(f"{bundle}@litert", runtime="onnxruntime")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sha256": "short"}, "not a SHA-256"),
        ({"runs": "many"}, "expected an integer"),
        ({"affinity": 3}, "expected a list"),
        ({"colour": "red"}, "unknown field 'colour'; update Strop on this machine"),
        ({"fps": 1e400}, "fps"),
        ({"mode": "fast"}, "unknown mode 'fast'"),
    ],
)
def test_a_job_that_is_no_plan_names_the_field(change, words):
    with pytest.raises(StropError, match=words):
        BenchPlan.from_json({**plan().to_json(), **change})


def test_a_record_comes_back_from_json():
    board = Preflight(
        "Pi", "bcm2711", "aarch64", 64, 1, 2, "Debian", "6.12", "3.13.1", "ondemand", {"cpu0": (1, 2, 3)}, (0, 1), 45.5,
        0, 0.5, (("x", 0.25),), "mains", ({"kind": "edgetpu", "bus": "usb3"},), "3", "abc",
    )  # fmt: skip
    found = Measurement(plan(), board, (launch(), launch(number=2)), ("a note",), 1, {"method": "ina226"})
    assert Measurement.from_json(json.loads(json.dumps(found.to_json()))).to_json() == found.to_json()
    assert Measurement.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    "stages",
    [{"invoke": (1,), "total": (1, 2)}, {"total": (1, 2)}, {"invoke": (1, 2)}, {"invoke": (1,), "total": (1,)}],
)
def test_columns_of_a_launch_have_one_length_and_the_two_that_count(stages):
    with pytest.raises(MeasurementError, match="launch 1: stages"):
        launch(stages_ns=stages)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("golden",), "maybe", "unknown value 'maybe'"),
        (("stages_ns", "invoke"), [1, "x"], r"stages_ns.invoke\[1\]"),
        (("runtime", "threads"), 0, "0 is below 1"),
        (("readings",), [{"at_ns": "now"}], r"readings\[0\].at_ns"),
        (("cold", "load_ms"), None, "load_ms"),
    ],
)
def test_a_launch_that_is_none_names_the_field(path, value, words):
    document = launch().to_json()
    holder = document
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    with pytest.raises(MeasurementError, match=words):
        Launch.from_json(document)
