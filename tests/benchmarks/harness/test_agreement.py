# SPDX-License-Identifier: Apache-2.0
"""Our loop beside others: a difference that was put in is found; how fast anything is, is not asserted."""

import json

import pytest

from benchmarks.harness import agreement
from benchmarks.harness.agreement import Agreement, main


def test_two_equal_loops_agree_and_a_slower_one_is_found():
    def block(scale):
        return lambda runs: [scale * (1000.0 + k % 7) for k in range(runs)]

    same = agreement._compared("same", block(1.0), block(1.0), 10, 20)
    assert (same.ratio, same.low, same.high, same.is_within) == (1.0, 1.0, 1.0, True)
    slow = agreement._compared("slow", block(1.2), block(1.0), 10, 20)
    assert slow.ratio == 1.2 and not slow.is_within


def test_an_interval_that_leaves_the_goal_is_not_within():
    assert not Agreement("x", 1.0, 0.94, 1.04, 1.0, 1.0, 10, 10).is_within
    assert Agreement("x", 1.0, 0.95, 1.05, 1.0, 1.0, 10, 10).is_within


@pytest.mark.parametrize(
    ("file", "others"),
    [
        ("model.tflite", ["benchmark_model style"]),
        ("model.onnx", ["onnxruntime_perf_test style", "ONNX Runtime's profiler"]),
    ],
)
def test_the_command_compares_with_every_loop_of_the_runtime(bundle, capsys, file, others):
    assert main([str(bundle / file), "--rounds", "2", "--runs", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["other"] for one in found["others"]][: len(others)] == others
    assert all(one["ours_us"] > 0 and one["low"] <= one["ratio"] <= one["high"] for one in found["others"])
    assert found["timer_ns"] > 0


def test_what_cannot_be_opened_is_one_line(capsys, tmp_path):
    assert main([str(tmp_path / "x.onnx")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
