# SPDX-License-Identifier: Apache-2.0
"""All side by sides in one page, from the committed results; and a real client that stands idle at a real broker."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.delta import RESULTS as DELTAS
from benchmarks.live import broker
from benchmarks.machine import describe
from benchmarks.peers import agents, whole
from benchmarks.peers.run import RESULTS
from benchmarks.peers.show import newest
from edge_contract.errors import MeasurementError, MissingDependencyError, UsageError

ROOT = Path(__file__).resolve().parents[2]
needs_mosquitto = pytest.mark.skipif(
    not (shutil.which("mosquitto") or Path("/usr/sbin/mosquitto").exists()), reason="apt-get install mosquitto"
)


def document(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_figure_is_that_of_a_committed_result():
    nets = document(newest(RESULTS))["nets"]
    rows = {(row[0], row[1]): row for row in whole.SECTIONS["quantizers"]().rows}
    kl = nets["mobilenet-v2"]["rows"]["ours"]["files"]["tflite"]["kl"]
    assert rows["mobilenet-v2, tflite", "Strop, default"][4] == f"{kl:.5f}"
    deltas = document(newest(DELTAS))["rows"]
    shown = whole.SECTIONS["deltas"]().rows
    assert [row[3] for row in shown] == [f"{row['bytes'][row['codec']]:,}" for row in deltas]
    exact = {row[1]: row[4] for row in whole.SECTIONS["files"]().rows if row[0] == "mobilenet-v2"}
    assert exact["ours onnx = ours tflite"] == "100.00"
    assert any(not pair.startswith("ours") for pair in exact), "the closest pair of another tool stands beside it"


def test_of_each_other_tool_the_best_row_is_shown():
    """We may pick a default for ourselves, but others get their best."""
    entry = document(newest(RESULTS))["nets"]["mobilenet-v3"]["rows"]
    titles = [row[1] for row in whole.SECTIONS["quantizers"]().rows if row[0] == "mobilenet-v3, onnx"]
    best = min((row["files"]["onnx"]["kl"], name) for name, row in entry.items() if name.startswith("ort"))[1]
    assert whole.ROWS[best].title in titles
    assert titles.count("Strop, default") == 1
    assert len(titles) == len({name.split("-")[0] for name, row in entry.items() if "onnx" in row["files"]})


def test_one_command_prints_all_and_names_what_it_does_not_know():
    words = [sys.executable, "-m", "benchmarks.peers"]
    done = subprocess.run([*words, "--markdown"], capture_output=True, text=True, check=True, cwd=ROOT)
    for title in ("int8 quantizers", "delta updates", "drift detectors", "device clients", "ONNX and TFLite"):
        assert f"### {title}" in done.stdout
    refused = subprocess.run([*words, "speed"], capture_output=True, text=True, cwd=ROOT)
    assert (refused.returncode, refused.stderr.count("\n")) == (UsageError.exit_code, 1)
    assert "unknown table 'speed'" in refused.stderr


@needs_mosquitto
def test_a_real_client_at_a_real_broker(tmp_path):
    with broker(tmp_path) as port:
        found = agents.measure(agents.CLIENTS["bare-paho"], port, agents.Span(0.1, 0.1, 0.3))
    assert found["n"] == 4
    assert 3 < found["pss_mib"] <= found["rss_mib"] < 200
    assert found["ready_s"] > 0
    machine = asdict(describe())
    row = agents.table(
        {"rows": {"x": {"title": "paho", **found}}, "missing": [], "command": "", "machine": machine}
    ).rows[0]
    assert row[0] == "paho"
    assert row[1] == f"{found['pss_mib']:.1f}"


def test_a_client_that_cannot_be_measured_says_why(tmp_path, monkeypatch):
    client = agents.CLIENTS["bare-paho"]
    with pytest.raises(MissingDependencyError, match="mosquitto"):
        agents.measure(client, 0, agents.Span(0, 0.1, 0.1))
    with pytest.raises(MeasurementError, match="instead of being ready"):
        agents.measure(client, 1, agents.Span(0, 0.1, 0.1))  # nobody listens on port 1
    monkeypatch.setattr(agents.environments, "ROOT", tmp_path)
    with pytest.raises(MissingDependencyError, match=r"benchmarks\.peers\.environments agents"):
        agents.measure(agents.CLIENTS["aws"], 1, agents.Span(0, 0.1, 0.1))
