# SPDX-License-Identifier: Apache-2.0
"""Runners pause while the bare model is measured, one that starts meanwhile too, and all of them go on after it."""

import sys
import threading
import time

import pytest

from edge_agent.adapters.runner_process import RunnerProcess
from edge_agent.bench.quiet import Quiet

ECHO = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"


@pytest.fixture
def runner(tmp_path):
    """A real child that sends every command back."""
    heard = []
    made = RunnerProcess(
        [sys.executable, "-c", ECHO], tmp_path / "log", heard.append, lambda code: None, library=tmp_path
    )
    made.heard = heard
    made.start()
    yield made
    made.stop(0.0)
    made.wait(5.0)


def commands(runner, count):
    deadline = time.monotonic() + 30
    while len(runner.heard) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    return [one["cmd"] for one in runner.heard]


def test_a_runner_hears_each_word_once(runner):
    quiet = Quiet()
    quiet.tend([runner])
    quiet.is_wanted = True
    for _ in range(3):
        quiet.tend([runner])
    quiet.is_wanted = False
    for _ in range(3):
        quiet.tend([runner])
    assert commands(runner, 2) == ["pause", "resume"]


def test_a_runner_that_is_started_meanwhile_pauses_too_and_a_new_one_is_not_told_to_go_on(runner):
    quiet = Quiet()
    quiet.is_wanted = True
    quiet.tend([runner])
    commands(runner, 1)
    runner.stop(0.0)
    runner.wait(5.0)
    runner.start()
    quiet.tend([runner])
    assert commands(runner, 3).count("pause") == 2
    runner.stop(0.0)
    runner.wait(5.0)
    runner.start()
    quiet.is_wanted = False
    quiet.tend([runner])
    runner.send({"cmd": "last"})
    while "last" not in commands(runner, 1):
        time.sleep(0.01)
    assert "resume" not in commands(runner, 1)


def test_whoever_asks_waits_until_the_loop_has_passed_it_on(runner):
    quiet = Quiet()
    loop = threading.Timer(0.1, quiet.tend, ([runner],))
    loop.start()
    quiet.begin(30.0)
    assert quiet.is_wanted
    assert commands(runner, 1) == ["pause"]
    loop.join()
