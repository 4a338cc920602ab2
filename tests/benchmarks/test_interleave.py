# SPDX-License-Identifier: Apache-2.0
"""The interleaved timer, against a clock that we turn by hand, and once against real commands."""

import json
import re
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.interleave import interleave, loops_for
from benchmarks.machine import describe
from benchmarks.operands import resolve
from edge_contract.errors import MeasurementError, UsageError


class Bench:
    """Two jobs whose duration we choose, and the clock that they move."""

    def __init__(self, a_ns, b_ns, disturbance=lambda now: 1.0):
        self.now, self.order = 0, []
        self.disturbance = disturbance
        self.durations = {"A": a_ns, "B": b_ns}

    def job(self, name):
        def call():
            self.order.append(name)
            self.now += int(self.durations[name] * self.disturbance(self.now))

        return call

    def compare(self, **options):
        return interleave(self.job("A"), self.job("B"), clock=lambda: self.now, **options)


def test_jobs_take_turns():
    bench = Bench(2_000_000, 3_000_000)
    found = bench.compare(pairs=5, warmup=2)
    timed = bench.order[-10:]
    assert timed == ["A", "B"] * 5
    assert all(first != second for first, second in pairwise(timed))
    assert (found.a.median_ns, found.b.median_ns, found.ratio.n) == (2_000_000, 3_000_000, 5)


@given(st.integers(1_000_000, 9_000_000), st.integers(1_000_000, 9_000_000), st.integers(1, 12))
def test_without_noise_the_ratio_is_exact(a_ns, b_ns, pairs):
    found = Bench(a_ns, b_ns).compare(pairs=pairs, warmup=0)
    assert found.ratio.point == found.ratio.low == found.ratio.high == b_ns / a_ns
    assert len(found.a.times_ns) == len(found.b.times_ns) == pairs


def test_company_on_the_machine_falls_on_both():
    """A disturbance that doubles all times for a while would ruin blocks; in turns, it hardly moves the ratio."""
    bench = Bench(1_000_000, 1_500_000, lambda now: 2.0 if 20_000_000 < now < 60_000_000 else 1.0)
    found = bench.compare(pairs=40)
    assert found.ratio.point == pytest.approx(1.5)
    assert max(found.a.times_ns) == 2_000_000
    assert found.verdict == "B is slower: 1.50× (at least 1.50×)"


def test_short_calls_are_timed_in_blocks():
    bench = Bench(1_000, 70_000)
    found = bench.compare(pairs=6)
    assert (found.a.loops, found.b.loops) == (1024, 16)
    assert (found.a.median_ns, found.b.median_ns) == (1_000, 70_000)


def test_a_job_that_takes_no_time_ends_the_search_for_a_block():
    assert loops_for(lambda: None, lambda: 0) == 1 << 20


@pytest.mark.parametrize(
    ("a_ns", "b_ns", "pairs", "verdict"),
    [
        (4e6, 2e6, 10, "B is faster: 2.00× (at least 2.00×)"),
        (2e6, 2e6, 10, "no difference was seen"),
        (2e6, 9e6, 3, "too few pairs to tell"),
    ],
)
def test_the_verdict_says_no_more_than_the_interval(a_ns, b_ns, pairs, verdict):
    assert Bench(a_ns, b_ns).compare(pairs=pairs).verdict == verdict


def test_no_pair_is_no_measurement():
    with pytest.raises(UsageError, match="0 pairs"):
        Bench(1, 1).compare(pairs=0)


def test_the_report_holds_counts_machine_and_command():
    found = Bench(2_000_000, 2_000_000).compare(pairs=6, names=("old", "new"), command="strop bench compare old new")
    text, document = found.to_text(), found.to_json()
    assert "6 pairs in turns" in text
    assert "command: strop bench compare old new" in text
    assert str(describe().cores) + " cores" in text
    assert document["schema"] == "strop.compare/1"
    assert document["a"]["times_ns"] == (2_000_000.0,) * 6
    json.dumps(document)


def run(*words):
    return subprocess.run(
        [sys.executable, "-m", "strop", "bench", "compare", *words], capture_output=True, text=True, check=False
    )


def test_two_real_commands_are_told_apart():
    """One does a hundred times the other's work beyond the interpreter's start, so even a busy machine sees it."""
    python = sys.executable
    quick, slow = f"{python} -S -E -c pass", f"{python} -S -E -c 'sum(range(20_000_000))'"
    done = run(quick, slow, "--pairs", "6", "--warmup", "1", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["ratio"]["low"] > 1.0
    assert document["verdict"].startswith("B is slower")
    assert document["command"].endswith("--pairs=6 --warmup=1 --threads=1")


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("false", 1, "error: false: left with exit code 1, saying nothing; run it by hand"),
        ("/no/such/program", 1, "error: /no/such/program: cannot be started: No such file or directory"),
        ("", 2, "error: strop bench: an empty command"),
    ],
)
def test_a_command_that_fails_is_one_line(command, code, words):
    done = run("true", command, "--pairs", "2")
    assert (done.returncode, done.stderr.strip(), done.stdout) == (code, words, "")


def test_the_words_of_a_failing_command_are_quoted():
    call = resolve(f"{sys.executable} -S -c 'raise SystemExit(\"no data\")'")
    with pytest.raises(MeasurementError, match=re.escape("left with exit code 1: no data")):
        call()


def test_a_bundle_without_a_runtime_says_which_there_are(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    for text in (str(tmp_path), f"{tmp_path}@tpu"):
        with pytest.raises(UsageError, match=r"unknown runtime '.*'; write .*@ and one of onnxruntime, litert, "):
            resolve(text)


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_model_files_are_raced_as_they_are(suffix, tmp_path):
    """A dense layer of 400 × 400 against one of 40 × 40: the larger one takes longer in either runtime."""
    import torch
    from torch import nn

    from compress.quantize.step import folded
    from export.onnx import float_writer as float_onnx_writer
    from export.tflite import float_writer as float_tflite_writer

    write = (float_onnx_writer if suffix == ".onnx" else float_tflite_writer).write
    for name, width in (("small", 40), ("large", 400)):
        net = nn.Sequential(nn.Flatten(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)).eval()
        write(folded(net, torch.rand(1, width, 1, 1)), tmp_path / f"{name}{suffix}")
    done = run(str(tmp_path / f"small{suffix}"), str(tmp_path / f"large{suffix}"), "--pairs", "60", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ratio"]["median"] > 1.0


def test_model_file_that_cannot_run_is_one_line(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"no model")
    with pytest.raises(MeasurementError, match=r"net\.onnx: cannot be run: ") as caught:
        resolve(str(tmp_path / "net.onnx"))
    assert "\n" not in str(caught.value)
