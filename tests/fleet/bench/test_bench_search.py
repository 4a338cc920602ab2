# SPDX-License-Identifier: Apache-2.0
"""``strop compress search --measure-on``: the slowest board counts, and what was measured is not measured again."""

import json
import os
import subprocess
import sys

import pytest

from strop.boards import KEPT

pytestmark = pytest.mark.broker
TRAIN = '[[step]]\nkind = "train"\nepochs = 2\nbatch = 32\nlearning_rate = 0.02\n'
SEARCH = """
[search]
trials = 2
sampler = "grid"
objectives = ["accuracy", "latency_ms"]
[[search.choice]]
key = "step.2.target.macs"
values = [0.9, 0.6]
"""


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_search_meets_its_budget_on_the_boards_and_goes_on_without_measuring_again(fleet, device, tmp_path):
    from tests.compress import conftest as tiny_task  # torch: only where the test runs

    device("pc-1")
    device("pc-2")
    (tmp_path / "strop_tiny_task.py").write_text(tiny_task.TASK)
    before, _, after = tiny_task.RECIPE.partition('[[step]]\nkind   = "distill"')
    alone = "\n".join(line for line in before.splitlines() if "teacher" not in line)
    (tmp_path / "r.toml").write_text(f"{alone}\n{TRAIN}[[step]]{after.partition('[[step]]')[2]}{SEARCH}")
    out = tmp_path / "study"

    def search():
        words = ["compress", "search", str(tmp_path / "r.toml"), "--out", str(out), "--jobs", "1", "--json"]
        words += ["--measure-on", "device:pc-*", "--fleet-data", str(fleet.data)]
        command = [sys.executable, "-c", "from strop.cli import main; main()", *words]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    found = search()
    assert [trial["result"]["state"] for trial in found["trials"]] == ["complete", "complete"]
    for trial in found["trials"]:
        measured = trial["result"]["measured"]
        assert sorted(one["device"] for one in measured) == ["pc-1", "pc-2"]
        assert trial["result"]["values"]["latency_ms"] == max(one["median_ms"] for one in measured)
        assert all(one["low_ms"] <= one["median_ms"] <= one["high_ms"] and one["board"] for one in measured)
    lines = (out / KEPT).read_text()
    runs = len(fleet.call("GET", "/benchmarks"))
    assert search()["winner"] == found["winner"]
    assert (out / KEPT).read_text() == lines
    assert len(fleet.call("GET", "/benchmarks")) == runs
