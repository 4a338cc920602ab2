# SPDX-License-Identifier: Apache-2.0
"""What embedding adds: measured for real, and read with the goals. No test asserts how fast this machine is."""

import json
import time

import pytest
from typer.testing import CliRunner

import edge_agent
from benchmarks import overhead, overhead_table
from benchmarks.cli import app
from edge_contract.errors import MeasurementError
from tests.edge_agent.runner import bundles


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return bundles.build(tmp_path_factory.mktemp("overhead") / "b", profile=True)


def test_a_known_delay_is_found_and_named(bundle, monkeypatch):
    """A millisecond more in every answer stands in the median, in our own code, and in none of the bare runtime."""
    made = edge_agent.Inference.__init__

    def slow(answer, *words):
        time.sleep(0.001)
        made(answer, *words)

    monkeypatch.setattr(overhead, "WARMUP", 5)
    before = overhead.measure(bundle, "litert", pairs=60)
    monkeypatch.setattr(edge_agent.Inference, "__init__", slow)
    after = overhead.measure(bundle, "litert", pairs=60)
    for way in ("plain", "counted"):
        old, new = getattr(before, way), getattr(after, way)
        assert new.median_us - old.median_us >= 900
        assert new.own_p50_us - old.own_p50_us >= 900
        assert new.low_us <= new.median_us <= new.high_us
        assert new.own_p50_us <= new.own_p99_us
    assert after.bare_us < after.plain.median_us
    assert (after.runtime, after.model, after.input) == ("litert", "compass 1.0.0", "uint8 8×8")


def test_the_command_measures_each_runtime_in_its_interpreter_and_says_what_is_missing(bundle):
    words = ["overhead", str(bundle), "--runtime", "onnxruntime", "--runtime", "edgetpu", "--pairs", "60", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [result["runtime"] for result in found["results"]] == ["onnxruntime"]
    assert set(found["missing"]) == {"edgetpu"}
    text = overhead_table.to_text(found["results"], found["missing"])
    assert "goal ≤ 20 µs or 2.5%: " in text
    assert "edgetpu: not measured" in text


def test_nothing_measured_is_an_error(bundle):
    with pytest.raises(MeasurementError, match="no runtime could be measured: litert:"):
        overhead_table.collect(bundle, {"litert": "/nowhere/python"}, 60)
