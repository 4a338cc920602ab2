# SPDX-License-Identifier: Apache-2.0
"""The demo's claims, asserted on the real processes: one run of the whole story, then one test a claim."""

import json
import os
import uuid
from pathlib import Path

import pytest
from rich.console import Console

from edge_contract.errors import BrokerError
from examples.digits import demo
from examples.digits.chapters import CANARY, STRAY, claims
from fleet.adapters.broker import find_mosquitto

LEGACY = Path(__file__).resolve().parents[2] / ".venv-tflite" / "bin" / "python"

MARK = f"STROP_STORY={uuid.uuid4().hex}"


def has_mosquitto():
    try:
        return bool(find_mosquitto())
    except BrokerError:
        return False


pytestmark = [
    pytest.mark.story,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not has_mosquitto(), reason="no mosquitto: apt-get install mosquitto"),
    pytest.mark.skipif(not LEGACY.exists(), reason="no tflite-runtime: make venv"),
]


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    work = tmp_path_factory.mktemp("story")
    name, value = MARK.split("=")
    os.environ[name] = value  # every process of the story inherits it
    facts = demo.tell(work, Console(stderr=True))
    del os.environ[name]
    facts["work"] = work
    return facts


def row(story, name):
    return next(row for row in story["models"] if row["name"] == name)


def test_teacher_is_good_enough(story):
    assert row(story, "teacher")["accuracy"] >= 0.965


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_int8_is_within_a_point_and_a_half_of_its_float_student(story, version):
    assert row(story, f"int8 {version}")["accuracy"] >= row(story, f"student {version}")["accuracy"] - 0.015


def test_distilled_student_is_not_worse_than_the_undistilled_one(story):
    plain = row(story, "student without distillation")
    assert row(story, "student v2")["accuracy"] >= plain["accuracy"]
    assert row(story, "student v2")["parameters"] <= 7_500


def test_int8_file_is_a_fraction_of_the_teacher(story):
    assert row(story, "int8 v2")["size_kb"] < row(story, "teacher")["size_kb"] / 8


def test_accuracy_was_read_on_a_thousand_held_out_digits_with_an_interval(story):
    for entry in story["models"]:
        assert entry["samples"] == 1000
        assert entry["low"] < entry["accuracy"] < entry["high"]


def test_both_artefacts_agree_in_every_runtime(story):
    for version, report in story["parity"].items():
        pairs = {(p["first"], p["second"]): p for p in report["pairs"]}
        assert {name for pair in pairs for name in pair} >= {"onnxruntime", "litert", "tflite-runtime"}, version
        for pair in report["pairs"]:
            assert pair["values"] > 0
            assert pair["max_steps"] <= 2, (version, pair)
            assert pair["same_class"] >= 0.99, (version, pair)
        # The plan's promise (DESIGN §4): the current runtimes agree to the bit.
        assert pairs["onnxruntime", "litert"]["differing"] == 0, version


def test_both_good_versions_reached_all_three_devices(story):
    for key, version in (("rollout_v1", "1.0.0"), ("rollout_v2", "2.0.0")):
        rollout = story[key]
        assert rollout["state"] == "COMPLETED"
        assert rollout["waves"] == ["PASSED", "PASSED"]
        assert rollout["first_wave"] == [CANARY]
        assert set(rollout["statuses"].values()) == {"SUCCEEDED"}
        assert set(rollout["statuses"]) == set(story["devices"]), version
    assert set(story["running_before_v3"].values()) == {story["bundles"]["2.0.0"]}


def test_offline_results_arrive_complete_and_once(story):
    offline = story["offline"]
    assert offline["inferences_in_the_dark"] >= 50
    assert offline["arrived_after"] >= offline["arrived_before"] + offline["inferences_in_the_dark"]
    assert offline["missing"] == 0
    assert offline["twice"] == 0


def test_alarm_on_the_drifted_device_and_none_on_the_other_two(story):
    assert {name: view["level"] for name, view in story["drift_before"].items() if view["level"] == "ALARM"} == {}
    levels = {name: view["level"] for name, view in story["drift"].items()}
    assert levels.pop(STRAY) == "ALARM"
    assert "ALARM" not in levels.values()
    assert all(view["windows"] >= 3 for view in story["drift"].values())
    assert all(view["alarms"] == 0 for name, view in story["drift"].items() if name != STRAY)


def test_estimated_accuracy_stands_beside_the_true_one(story):
    stray = story["drift"][STRAY]
    assert stray["true_accuracy"] < 0.8
    assert stray["estimated_accuracy"] < stray["reference_accuracy"]
    # A strong shift must not pass for a valid estimate (drift_and_benchmarks: estimates are optimistic there).
    assert not stray["valid"] or stray["low"] <= stray["true_accuracy"] <= stray["high"]
    assert abs(stray["estimated_accuracy"] - stray["true_accuracy"]) < 0.4


def test_bad_bundle_is_rolled_back_by_the_canary_and_touches_nothing_else(story):
    rollout = story["rollout_v3"]
    assert rollout["state"] == "ABORTED"
    assert rollout["waves"] == ["FAILED", "SKIPPED"]
    assert rollout["statuses"] == {CANARY: "FAILED"}
    assert rollout["phases"] == {CANARY: "rolled_back"}
    assert "agree" in rollout["reason"]
    assert story["devices_that_tried_v3"] == [CANARY]
    assert story["running_after_v3"] == story["running_before_v3"]


def test_story_is_written_for_machines_and_people(story):
    work = story["work"]
    assert json.loads((work / "summary.json").read_text())["bundles"] == story["bundles"]
    page = (work / "report.html").read_text()
    assert page.count("<svg") >= 3
    assert "http://" not in page.replace("http://www.w3.org", "").replace(story["page"], "")


def test_readme_shows_the_claims_that_the_demo_prints(story):
    readme = (LEGACY.parents[2] / "README.md").read_text()
    block = readme.split("<!-- demo output")[1].split("<!-- /demo output -->")[0]
    shown = [line.split("│")[1].strip() for line in block.splitlines() if line.startswith("│")]
    assert [label for label in shown if label] == [claim for claim, _ in claims(story)]


def test_nothing_of_the_story_is_left_running(story):
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if MARK.encode() in (process / "environ").read_bytes().split(b"\0"):
                left.append((process / "cmdline").read_bytes())
        except OSError:  # it ended, or is another user's
            continue
    # multiprocessing's tracker belongs to this very process, and ends with it.
    assert [words for words in left if b"resource_tracker" not in words] == []
