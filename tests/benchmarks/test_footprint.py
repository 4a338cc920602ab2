# SPDX-License-Identifier: Apache-2.0
"""The footprint: the kernel's own figures of real processes, and the arithmetic on looks with known answers."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.footprint import Sample, family, report, sample, share_of, to_text, watch
from edge_contract.errors import MeasurementError, UsageError
from tests.edge_agent.runner import bundles

_HOG = "import sys\nheld = bytearray(b'x' * 40_000_000)\nprint('held', flush=True)\nsys.stdin.read()"
_BUSY = "import sys, time\nwhile time.process_time() < 0.4: pass\nprint('done', flush=True)\nsys.stdin.read()"


def test_memory_is_what_the_kernel_says_and_grows_by_what_is_held() -> None:
    with subprocess.Popen([sys.executable, "-c", _HOG], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = sample("control", child.pid, 0.0)
        status = Path(f"/proc/{child.pid}/status").read_text()
        child.communicate()
    assert found is not None
    assert found.rss_kb == pytest.approx(int(re.findall(r"VmRSS:\s+(\d+)", status)[0]), rel=0.02)
    assert 39_000 < found.pss_kb <= found.rss_kb
    assert sample("control", child.pid, 0.0) is None, "it is gone"


def test_processor_time_is_what_was_burnt_and_a_child_is_found_by_its_command() -> None:
    words = [sys.executable, "-c", _BUSY, "-m edge_agent.runner.process"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert family(os.getpid())[child.pid] == "runner"
        looks = watch(child.pid, every_s=0.1, total_s=0.3)
        child.communicate()
    assert len(looks) == 4
    assert 0.38 <= looks[0].cpu_s < 1.0, "and the start of an interpreter"
    assert report(looks)["control"]["cpu_percent"] < 50, "it waits now"
    with pytest.raises(MeasurementError, match="ended while"):
        watch(child.pid, every_s=0.1, total_s=0.1)


def test_figures_of_known_looks() -> None:
    looks = [Sample("control", 7, float(t), 1024 * t, 2048 * t, 0.01 * t, 500 * t) for t in range(1, 21)]
    again = [Sample("control", 8, t, 1024, 2048, 0.0, 0) for t in (21.0, 22.0)]  # it was restarted: begins at nought
    found = report([*looks, *again])["control"]
    assert (found["n"], found["pss_p95_mib"], found["rss_p95_mib"]) == (22, 19.0, 38.0)
    assert found["cpu_percent"] == pytest.approx(100 * 0.19 / 20)
    assert found["written_mb_per_day"] == pytest.approx(19 * 500 / 20 * 86400 / 1e6, abs=1e-3)
    assert report(looks[:1])["control"]["cpu_percent"] is None
    assert share_of(range(1, 101), 0.95) == 95


def test_a_real_agent_is_measured_and_the_goals_are_named(tmp_path: Path) -> None:
    bundle = bundles.build(tmp_path / "v1")
    words = [str(bundle), "--minutes", "0.02", "--every", "0.4", "--warmup", "0.01", "--rate", "5"]
    found = json.loads(CliRunner().invoke(app, ["footprint", *words, "--json"], catch_exceptions=False).stdout)
    processes = found["processes"]
    assert set(processes) == {"control", "runner", "helper"}
    assert processes["control"]["n"] == 4
    assert 5 < processes["control"]["pss_mib"] <= processes["control"]["rss_mib"] < processes["runner"]["rss_mib"]
    assert found["ready_s"] > 0
    assert found["command"].startswith(f"strop bench footprint {bundle} --minutes=0.02")
    assert {"python", "paho-mqtt"} <= set(found["versions"])
    text = to_text(found)
    assert re.search(r"^rss_mib: [\d.]+, goal ≤ 30: (held|missed)$", text, re.MULTILINE)
    assert len(re.findall("goal ≤", text)) == 4


REFUSED = {"nothing": ([], "what is to be measured"), "no agent": (["--data", "{tmp}"], "no agent has run here")}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_measured_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    words, message = REFUSED[name]
    with pytest.raises(UsageError, match=message):
        CliRunner().invoke(app, ["footprint", *(w.format(tmp=tmp_path) for w in words)], catch_exceptions=False)
