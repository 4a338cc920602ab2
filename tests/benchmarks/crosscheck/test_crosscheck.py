# SPDX-License-Identifier: Apache-2.0
"""The tools' outputs in the forms of their versions, programs that print them, and the one real tool that pip has."""

import json
from pathlib import Path

import pytest
import typer.testing

from benchmarks.commands.crosscheck_cmd import crosscheck
from benchmarks.crosscheck import TOOLS, check, find
from benchmarks.crosscheck.compare import to_text
from benchmarks.crosscheck.outputs import ToolTime, benchmark_model, litert_benchmark, perf_test, profiler
from edge_contract.errors import MeasurementError, UsageError
from tests.edge_agent.runner import tiny

# Two phases: warm-up and measurement; before 2020 without a prefix, since then with INFO.
OLD_MODEL = """STARTING!
Num threads: [1]
Loaded model m.tflite
resolved reporter
Initialized session in 9.933ms
Running benchmark for at least 4 iterations and at least 0.5 seconds
count=7 first=127425 curr=66709 min=66709 max=127425 avg=76605.9 std=20944

Running benchmark for at least 10 iterations and at least 1 seconds
count=15 first=66753 curr=66800 min=66699 max=66838 avg=66767.6 std=39

Average inference timings in us: Warmup: 76605.9, Init: 9933, no stats: 66767.6
"""
MODEL = """INFO: STARTING!
INFO: Graph: [m.tflite]
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: Initialized session in 12.75ms.
INFO: count=37 first=14744 curr=15520 min=13164 max=18295 avg=13764.3 std=967

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=74 first=14850 curr=13315 min=13105 max=15765 avg=13520.2 std=470

INFO: Inference timings in us: Init: 12750, First inference: 14744, Warmup (avg): 13764.3, Inference (avg): 13520.2
INFO: Memory footprint delta from the start of the tool (MB): init=2.5 overall=3.2
"""
NEW_MODEL = MODEL.replace("std=470", "std=470 p5=13110 median=13488 p95=14012")
OLD_PERF = """Setting intra_op_num_threads to 1
Session creation time cost: 0.06094 s
Total inference time cost: 0.843236 s
Total inference requests: 10
Average inference time cost: 84.3236 ms
Total inference run time: 0.84356 s
Avg CPU usage: 68 %
Peak working set size: 158171136 bytes
"""
IS_PERF = """Total time cost: 58.8053
Total iterations: 1000
Average time cost: 58.8053 ms
Total run time: 58.8102 s
Min Latency is 0.0559777 sec
Max Latency is 0.0623472 sec
P50 Latency is 0.0587108 sec
P90 Latency is 0.0599845 sec
P999 Latency is 0.0623472 sec
"""
PERF = """Session creation time cost: 0.0123 s
First inference time cost: 5 ms
Total inference time cost: 1.234 s
Total inference requests: 1000
Average inference time cost: 1.234 ms
Number of inferences per second: 810.1
Avg CPU usage:99 %
Runs:1000
Min Latency: 0.00101 s
Max Latency: 2.1e-03 s
P50 Latency: 9.8765e-04 s
P90 Latency: 0.00130 s
"""

WHEEL = """Inference (avg):       0.07 ms (99 runs)
Inference (median):    0.05 ms
"""


@pytest.mark.parametrize(
    ("read", "text", "time"),
    [
        (benchmark_model, OLD_MODEL, ToolTime(66767.6, "average", 1.0, 15)),
        (benchmark_model, MODEL, ToolTime(13520.2, "average", 1.0, 74)),
        (benchmark_model, NEW_MODEL, ToolTime(13488.0, "median", 1.0, 74)),
        (perf_test, OLD_PERF, ToolTime(84323.6, "average", 0.01, 10)),
        (perf_test, IS_PERF, ToolTime(58710.8, "median", 0.01, 1000)),
        (perf_test, PERF, ToolTime(987.65, "median", 0.01, 1000)),
        (litert_benchmark, WHEEL, ToolTime(50.0, "median", 10.0, 99)),
        (profiler, json.dumps({"sum_us": 71.5, "runs": 60}), ToolTime(71.5, "median", 1.0, 60)),
    ],
)  # fmt: skip
def test_outputs_of_all_versions(read, text, time) -> None:
    assert read(text) == time


@pytest.mark.parametrize("read", [benchmark_model, perf_test, litert_benchmark, profiler])
def test_what_cannot_be_read_shows_its_last_line(read) -> None:
    with pytest.raises(MeasurementError, match="last line: Segmentation fault"):
        read("STARTING\nSegmentation fault\n")
    with pytest.raises(MeasurementError, match="nothing"):
        read("")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, net = tmp_path_factory.mktemp("cross"), tiny.make()
    tiny.write_tflite(net, folder / "model.tflite")
    tiny.write_onnx(net, folder / "model.onnx")
    return folder


def program(folder: Path, name: str, text: str, code: int = 0) -> str:
    """Write a program that keeps its words and prints a text."""
    path = folder / name
    path.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > '{path}.words'\ncat <<'X'\n{text}\nX\nexit {code}\n")
    path.chmod(0o755)
    return str(path)


def steady(model: Path, threads: int, runs: int) -> list[int]:
    """Our side: 13.5 ms each, with one run that is far out."""
    return [13_500_000] * (runs - 1) + [90_000_000]


@pytest.mark.parametrize(
    ("text", "state", "words"),
    [
        (NEW_MODEL, "agrees", "median 1.349e+04 µs, 0 % below ours"),
        (NEW_MODEL.replace("median=13488", "median=15100"), "differs", "12 % above ours"),
        (NEW_MODEL.replace("median=13488", "median=2700"), "differs", "same build, delegate and threads"),
        (MODEL, "agrees", "average"),
        ("usage: benchmark_model", "failed", "there is no 'count=… avg=…'"),
    ],
)
def test_benchmark_model_beside_us(files, tmp_path, text, state, words) -> None:
    path = program(tmp_path, "benchmark_model", text)
    found = check(
        files / "model.tflite", given={"benchmark_model": path}, threads=2, rounds=3, runs=100, launcher=steady
    )
    (one,) = found
    assert one.state == state and words in one.words, one
    asked = Path(f"{path}.words").read_text().split()
    assert {"--num_threads=2", "--num_runs=100", "--use_xnnpack=true"} <= set(asked)
    assert f"--graph={files / 'model.tflite'}" in asked
    assert to_text(found).startswith("benchmark_model  ")


def test_perf_test_is_asked_for_generated_inputs_and_our_threads(files, tmp_path) -> None:
    path = program(tmp_path, "onnxruntime_perf_test", PERF)
    millisecond = lambda *_: [1_000_000] * 50  # noqa: E731
    (one,) = check(files / "model.onnx", given={"onnxruntime_perf_test": path}, rounds=1, runs=50, launcher=millisecond)
    assert one.state == "agrees" and one.ratio == pytest.approx(0.98765) and one.rounds == 1
    asked = Path(f"{path}.words").read_text().split()
    assert asked == ["-m", "times", "-r", "50", "-x", "1", "-y", "1", "-e", "cpu", "-I", str(files / "model.onnx")]
    bad = program(tmp_path, "onnxruntime_perf_test", "cannot open", 1)
    (one,) = check(files / "model.onnx", given={"onnxruntime_perf_test": bad}, rounds=1, runs=50, launcher=millisecond)
    assert one.state == "failed" and "ended with 1: cannot open" in one.words


def test_a_tool_that_is_nowhere_says_where_it_comes_from(files, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (one,) = check(files / "model.onnx", rounds=1, runs=10, launcher=steady)
    assert (one.tool, one.state) == ("onnxruntime_perf_test", "absent") and "--tool" in one.words
    program(tmp_path, "onnxruntime_perf_test", PERF)
    assert find("onnxruntime_perf_test", {}) == str(tmp_path / "onnxruntime_perf_test")


def test_wrong_words(files, tmp_path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    for words, match in (
        ({"tools": ["stopwatch"]}, "one of benchmark_model"),
        ({"tools": ["onnxruntime_perf_test"]}, "runs .onnx files"),
        ({"given": {"benchmark_model": str(plain)}}, "no program"),
    ):
        with pytest.raises(UsageError, match=match):
            check(files / "model.tflite", rounds=1, runs=10, launcher=steady, **words)
    with pytest.raises(UsageError, match=r"no \.onnx or \.tflite"):
        check(tmp_path / "no.tflite")
    assert [tool.name for tool in TOOLS if not tool.is_default] == ["profiler"]


def test_the_tool_of_the_wheel_really_runs_beside_the_real_harness(files) -> None:
    app = typer.Typer()
    app.command()(crosscheck)
    words = [str(files / "model.tflite"), "--tool=litert-benchmark", "--rounds=1", "--runs=30", "--json"]
    done = typer.testing.CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    (one,) = json.loads(done.stdout)["tools"]
    # A model of a few microseconds: its two digits of a millisecond say little, so only that both sides ran.
    assert one["state"] in ("agrees", "differs") and one["ours_us"] > 0 and one["rounds"] == 1
