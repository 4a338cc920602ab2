# SPDX-License-Identifier: Apache-2.0
"""The child process, with programs that misbehave as no real runner does on demand."""

import queue
import sys
from pathlib import Path

import pytest

from edge_agent.adapters import runner_process
from edge_agent.adapters.runner_process import RunnerProcess, lend_library

ECHO = """
import json, sys
print(json.dumps({"event": "ready"}), flush=True)
for line in sys.stdin:
    words = json.loads(line)
    if words["cmd"] == "stop":
        sys.exit(3)
    print(json.dumps({"event": "heard", **words}), flush=True)
sys.exit(4)
"""
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("{}", flush=True)
while True:
    time.sleep(60)
"""
NOISY = """
import sys
print("not json", flush=True)
print('{"event": "results", "rows": [["a", 1, NaN]]}', flush=True)
print("[1]", flush=True)
print("[" * 300000, flush=True)
sys.stderr.write("x" * 100000)
"""


class Heard:
    """What a runner said, in order, and how it ended."""

    def __init__(self, folder: Path, program: str) -> None:
        self.said: queue.Queue[dict] = queue.Queue()
        self.ended: queue.Queue[int] = queue.Queue()
        command = [sys.executable, "-c", program]
        library = lend_library(folder / "lib")
        log = folder / "logs" / "runner.log"
        self.process = RunnerProcess(command, log, self.said.put, self.ended.put, library=library)
        self.process.start()


def test_lines_go_both_ways_and_the_end_is_noticed(tmp_path: Path) -> None:
    heard = Heard(tmp_path, ECHO)
    assert heard.said.get(timeout=30) == {"event": "ready"}
    heard.process.send({"cmd": "load", "role": "active"})
    assert heard.said.get(timeout=30) == {"event": "heard", "cmd": "load", "role": "active"}
    assert heard.process.pid is not None
    heard.process.stop(0.0)
    assert heard.ended.get(timeout=30) == 3
    assert heard.process.pid is None
    heard.process.send({"cmd": "load"})  # nobody is there, and nothing happens


def test_a_runner_that_does_not_listen_is_ended_by_force(tmp_path: Path) -> None:
    heard = Heard(tmp_path, DEAF)
    heard.said.get(timeout=30)
    heard.process.stop(100.0)
    heard.process.watch(100.0 + runner_process.GRACE_S - 0.1)
    assert heard.ended.empty()
    heard.process.watch(100.0 + runner_process.GRACE_S)
    assert heard.ended.get(timeout=30) == -9


def test_nonsense_becomes_a_remark_and_the_log_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_process, "MAX_LOG", 50_000)
    heard = Heard(tmp_path, NOISY)
    assert heard.ended.get(timeout=30) == 0
    words = [heard.said.get() for _ in range(heard.said.qsize())]
    assert [w["event"] for w in words] == ["log"] * 3, "neither plain text, nor NaN, nor endless nesting is an event"
    log = tmp_path / "logs" / "runner.log"
    assert log.stat().st_size == 100_000
    heard.process.watch(0.0)
    assert log.stat().st_size == 0


def test_a_program_that_cannot_be_started_counts_as_one_that_ended(tmp_path: Path) -> None:
    said: list[dict] = []
    ended: list[int] = []
    RunnerProcess(["/no/such/python"], tmp_path / "log", said.append, ended.append, library=tmp_path).start()
    assert ended == [127]
    assert "cannot start /no/such/python" in said[0]["reason"]


def test_the_lent_library_holds_our_packages_and_nothing_else(tmp_path: Path) -> None:
    folder = lend_library(tmp_path / "lib")
    assert sorted(path.name for path in folder.iterdir()) == ["edge_agent", "edge_contract"]
    (folder / "edge_agent").unlink()
    (folder / "edge_agent").symlink_to("/elsewhere")
    lend_library(tmp_path / "lib")
    assert (folder / "edge_agent" / "counters.py").exists()
