# SPDX-License-Identifier: Apache-2.0
"""Real processes: one launch each in LiteRT and ONNX Runtime, and what happens when one goes wrong."""

import json
import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.harness import launch
from benchmarks.harness.board import Board
from benchmarks.harness.launching import probe
from benchmarks.harness.store import read_launch, write_launch
from benchmarks.plan import plan_for
from edge_contract.errors import MeasurementError
from tests.benchmarks.harness.boards import pi5


def test_a_launch_leaves_everything_that_the_protocol_asks_for(short, tmp_path):
    before, phases = time.monotonic_ns(), []
    found = launch(short(), 3, "A", board=Board(pi5(tmp_path)), power=lambda: 1234.5, tell=phases.append)
    after = time.monotonic_ns()
    assert (found.number, found.label, found.golden, found.samples) == (3, "A", "same", 12)
    assert set(found.stages_ns) == {"preprocess", "invoke", "postprocess", "total"}
    assert found.runs >= 30 and found.warmup >= 1 and found.every == 1
    assert before < found.starts_ns[0] < found.starts_ns[-1] < after
    parts = (found.stages_ns[stage] for stage in ("preprocess", "invoke", "postprocess"))
    assert [sum(times) for times in zip(*parts, strict=True)] == list(found.stages_ns["total"])
    cold = found.cold
    assert min(cold.process_ms, cold.import_ms, cold.load_ms, cold.first_ms) > 0
    assert cold.total_ms < (after - before) / 1e6
    assert found.runtime.name == "litert" and found.runtime.providers[0] == "XNNPACK"
    assert 0 < found.timer_ns < 1e6
    assert set(found.faults) == {"major", "minor", "swap_kb", "switches"}
    first = found.readings[0]
    assert (first.clock_khz, first.temp_c, first.throttled, first.power_mw) == ((2400024,), 52.35, 0, 1234.5)
    assert all(before < one.at_ns < after for one in found.readings)
    assert phases == ["warm-up", "measure", "done"]


def test_the_agents_path_shows_what_it_adds(short):
    found = launch(short(mode="realistic", runtime="onnxruntime"))
    assert list(found.stages_ns) == ["capture", "preprocess", "invoke", "postprocess", "total"]
    assert found.golden == "same" and found.runtime.flags == {"path": "agent"}
    assert min(found.stages_ns["preprocess"]) > 0 and min(found.stages_ns["postprocess"]) > 0


def test_a_paced_launch_counts_from_the_intended_starts(short):
    found = launch(short(scenario="paced", fps=200.0, runs=20, deadline_ms=1000.0))
    gaps = {b - a for a, b in zip(found.starts_ns, found.starts_ns[1:], strict=False)}
    assert all(gap % 5_000_000 == 0 for gap in gaps)  # a multiple of the period, whatever was dropped
    assert found.missed == 0
    assert all(
        total >= invoke for total, invoke in zip(found.stages_ns["total"], found.stages_ns["invoke"], strict=True)
    )


def test_more_frames_than_the_machine_does_are_dropped_and_late(short):
    found = launch(short(scenario="paced", fps=1e6, runs=200))
    assert found.dropped > 0
    assert found.missed > 0


def test_a_batch_in_a_file_of_fixed_size_is_said(short):
    found = launch(short(runtime="onnxruntime", scenario="offline", batch=4, runs=5))
    assert found.batch == 4
    assert found.runtime.flags["batching"] == "one by one"


def test_memory_and_providers_come_from_a_process_that_nobody_times(short):
    found = probe(short())
    assert found["memory"]["rss_peak_kb"] > 10_000 and found["memory"]["arena_kb"] >= 1
    assert found["shares"] == {"XNNPACK": 1.0}


def test_a_file_that_changed_is_refused_by_its_hash(bundle, short, tmp_path):
    path = shutil.copy(bundle / "model.tflite", tmp_path / "m.tflite")
    plan = short(path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(MeasurementError, match=r"the file changed: SHA-256 .* planned"):
        launch(plan)


def test_a_file_that_changes_while_it_is_measured_is_refused(bundle, short, tmp_path):
    path = shutil.copy(bundle / "model.tflite", tmp_path / "m.tflite")

    def tamper(phase):
        if phase == "measure":
            path.write_bytes(path.read_bytes() + b"\0")

    with pytest.raises(MeasurementError, match="the file changed"):
        launch(short(path), tell=tamper)


def test_golden_answers_that_differ_are_told(bundle, tmp_path):
    """Another network's file under the first one's golden answers, with a manifest that lists it."""
    from tests.edge_agent.runner import bundles

    other = bundles.build(tmp_path / "o", seed=3)
    folder = shutil.copytree(bundle, tmp_path / "b")
    shutil.copy(other / "model.tflite", folder / "model.tflite")
    shutil.copy(other / "manifest.json", folder / "manifest.json")
    for name in ("golden/golden.json", "golden/logits.npy", "golden/inputs.npy"):
        shutil.copy(bundle / name, folder / name)
    (folder / "model.tflite.profile.json").unlink(), (folder / "model.onnx.profile.json").unlink()
    bundles.reseal(folder)
    found = launch(plan_for(folder, runs=5, seconds=0.0, warmup_s=0.0, warmup_cap_s=0.2))
    assert found.golden == "differs"


def test_a_model_that_the_runtime_refuses_says_why(tmp_path, short):
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(MeasurementError, match=r"onnxruntime .* refuses the file: .*try another --runtime"):
        launch(short(path))


def test_a_runtime_that_is_not_installed_says_how_to_get_it(bundle, short):
    with pytest.raises(MeasurementError, match=r"tflite-runtime cannot be imported .*pip install"):
        launch(short(bundle / "model.tflite", runtime="tflite-runtime"))


def test_a_child_that_crashes_is_named_by_its_signal(short, bundle, wrong_runtime):
    wrong_runtime("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(MeasurementError, match=r"model.tflite in litert: crashed with SIGSEGV"):
        launch(short(bundle / "model.tflite"))


def test_a_child_that_hangs_is_ended_and_named(short, bundle, wrong_runtime):
    wrong_runtime("import time; time.sleep(600)")
    with pytest.raises(MeasurementError, match=r"hung: nothing came back for 1 s"):
        launch(replace(short(bundle / "model.tflite"), timeout_s=1.0))


def test_a_child_that_ends_itself_is_named(short, bundle, wrong_runtime):
    wrong_runtime("import os; os._exit(75)")
    with pytest.raises(MeasurementError, match=r"left with exit code 75"):
        launch(short(bundle / "model.tflite"))


def test_an_exception_of_a_runtime_is_one_line(short, bundle, wrong_runtime):
    wrong_runtime(r"raise LookupError('two\nlines')")
    with pytest.raises(MeasurementError, match="LookupError: two lines"):
        launch(short(bundle / "model.tflite"))


def test_a_launch_on_disk_comes_back_and_a_broken_one_is_refused(short, tmp_path):
    from tests.benchmarks.harness.test_plan import launch as made

    path = tmp_path / "000.json"
    write_launch(made(), path)
    assert read_launch(path) == made()
    (tmp_path / "000.bin").write_bytes(b"\0" * 9)
    with pytest.raises(MeasurementError, match="9 bytes for 3 columns of 2 runs; measure again"):
        read_launch(path)
    path.write_text(json.dumps([1]))
    with pytest.raises(MeasurementError):
        read_launch(path)
    path.write_text("{")
    with pytest.raises(MeasurementError, match="no launch that can be read"):
        read_launch(path)


def test_a_launch_is_pinned_and_a_core_that_is_not_there_is_refused(short):
    core = min(os.sched_getaffinity(0))
    assert launch(short(affinity=(core,), runs=5)).runtime.affinity == (core,)
    with pytest.raises(MeasurementError, match=r"affinity: cores \[4095\] cannot be had .*choose among"):
        launch(short(affinity=(4095,)))


GCC = shutil.which("gcc")


@pytest.fixture(scope="module")
def delegate(tmp_path_factory):
    """The library of a delegate that takes over the file and answers nothing, or hangs, as its mode says."""
    path = tmp_path_factory.mktemp("trap") / "libtrap.so.1"
    source = Path(__file__).parents[2] / "edge_agent/runner/trap_delegate.c"
    subprocess.run([GCC, "-shared", "-fPIC", "-O1", "-o", path, source], check=True, timeout=60)
    return path


@pytest.mark.skipif(GCC is None, reason="apt-get install gcc")
def test_an_accelerator_that_took_the_file_is_named_and_one_that_hangs_is_ended(bundle, short, delegate):
    chosen = {"runtime": "edgetpu", "runs": 5}
    found = launch(short(bundle / "model.tflite", delegate=f"{delegate}?mode=none", **chosen))
    assert found.runtime.providers[0] == "EdgeTPU" and found.runtime.delegated > 0
    with pytest.raises(MeasurementError, match="hung: nothing came back for 1 s"):
        launch(short(bundle / "model.tflite", delegate=f"{delegate}?mode=hang", timeout_s=1.0, **chosen))
