# SPDX-License-Identifier: Apache-2.0
"""The launcher: what it chooses, what it counts, and real processes of releases that die, hang or are not whole."""

import fcntl
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent import launcher
from edge_agent.launcher import Choice, choose
from edge_agent.software import launch
from edge_agent.software.launch import PROVEN_STARTS, TRIAL_STARTS, Launch

NEW, OLD = "b" * 64, "a" * 64
HOME = Path(__file__).resolve().parents[3]
SAYS = "import json, os, sys\nfrom pathlib import Path\ndata = Path(sys.argv[sys.argv.index('--data') + 1])\n"
"""How each program of a test begins."""


def release(data: Path, name: str, program: str = "") -> None:
    """Make an environment whose agent is a few lines, without pip."""
    venv = launch.venv_of(data, name)
    (venv / "bin").mkdir(parents=True)
    runs = f'#!/bin/sh\nexec {sys.executable} -I -S {venv}/program.py "$@"\n'
    launch.python_of(data, name).write_text(runs)
    launch.python_of(data, name).chmod(0o755)
    (venv / "program.py").write_text(SAYS + program)
    (venv / launch.MARK).write_text("{}")


def point(data: Path, pointer: str, name: str) -> None:
    folder = data / "software" / "strop-agent"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / pointer).unlink(missing_ok=True)
    (folder / pointer).symlink_to(f"slots/{name}")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A device that runs OLD, proven, and is about to try NEW."""
    for name in (OLD, NEW):
        release(tmp_path, name, f"(data / 'ran').open('a').write({name[0]!r})\nos._exit(7)\n")
    point(tmp_path, "active", NEW)
    point(tmp_path, "standby", OLD)
    launch.write(tmp_path, Launch(proven=(OLD,)))
    return tmp_path


def run(data: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Start the launcher once; the factory agent has no agent.toml here, and says so."""
    words = [sys.executable, "-P", "-m", "edge_agent.launcher", "--data", str(data)]
    told = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(HOME), **environ}
    return subprocess.run(words, env=told, capture_output=True, text=True, timeout=60, check=False)


def test_a_release_on_trial_has_three_starts_a_proven_one_ten_and_the_factory_any(data: Path) -> None:
    chosen = [choose(data).release for _ in range(TRIAL_STARTS + PROVEN_STARTS + 3)]
    assert chosen == [NEW] * TRIAL_STARTS + [OLD] * PROVEN_STARTS + [""] * 3
    record = launch.read(data)
    assert record.failed == {
        NEW: "3 starts without a sign of health",
        OLD: "10 starts without a sign of health",
    }
    assert choose(data) == Choice("", record.failed)


def test_a_sign_of_health_forgives_and_an_order_asks_anew(data: Path) -> None:
    for _ in range(2):
        assert choose(data) == Choice(NEW, {}, is_proven=False)
    launch.write(data, launch.read(data).committed(NEW))
    assert choose(data) == Choice(NEW, {}, is_proven=True)
    assert launch.read(data).starts == {NEW: 1}
    launch.write(data, launch.read(data).blamed(NEW, "x"))
    assert choose(data).release == OLD
    launch.write(data, launch.read(data).forgiven(NEW))
    assert choose(data).release == NEW


@pytest.mark.parametrize("what", ["no mark", "no interpreter", "a pointer to nothing"])
def test_what_is_not_whole_is_not_started(data: Path, what: str) -> None:
    if what == "no mark":
        (launch.venv_of(data, NEW) / launch.MARK).unlink()
    elif what == "no interpreter":
        launch.python_of(data, NEW).unlink()
    else:
        point(data, "active", "c" * 64)
    found = choose(data)
    assert (found.release, list(found.failed.values())) == (OLD, ["its environment is not whole"])


def test_a_start_that_cannot_be_counted_is_no_start_on_trial(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(launch, "write", full)
    found = choose(data)
    assert found.release == OLD  # it is proven, and may run uncounted
    assert "cannot be counted" in found.failed[NEW]


@pytest.mark.parametrize("bad", [b"", b"{", b"[]", b'{"starts": 3}', b'{"starts": {"a": "x"}}', b"\xff"])
def test_a_damaged_record_is_an_empty_one(data: Path, bad: bytes) -> None:
    (data / "software" / "launch.json").write_bytes(bad)
    assert launch.read(data) == Launch()
    assert choose(data).release == NEW


def test_words_of_a_later_launcher_do_no_harm(data: Path) -> None:
    later = {"v": 2, "starts": {NEW: 1}, "failed": {}, "proven": [OLD], "colour": "red"}
    (data / "software" / "launch.json").write_text(json.dumps(later))
    assert launch.read(data) == Launch({NEW: 1}, {}, (OLD,))


def test_real_processes_that_die_end_in_the_factory_agent(data: Path) -> None:
    assert [run(data).returncode for _ in range(TRIAL_STARTS + 1)] == [7] * (TRIAL_STARTS + 1)
    assert (data / "ran").read_text() == "b" * TRIAL_STARTS + "a"
    record = launch.read(data)
    for _ in range(PROVEN_STARTS - 1):
        record = record.counted(OLD)
    launch.write(data, record)
    ended = run(data)
    assert ended.returncode == 2
    assert "there is no agent.toml" in ended.stderr  # the installed agent itself speaks


def test_a_release_that_hangs_on_trial_is_ended_by_the_kernel(data: Path) -> None:
    (launch.venv_of(data, NEW) / "program.py").write_text("import time\ntime.sleep(60)\n")
    assert run(data, STROP_TRIAL_ALARM_S="1").returncode == -signal.SIGALRM
    assert launch.read(data).starts == {NEW: 1}


def test_an_interpreter_that_cannot_be_started_is_blamed_at_once(data: Path) -> None:
    launch.python_of(data, NEW).write_bytes(b"\x7fELF of another machine")
    assert run(data).returncode == 7
    assert (data / "ran").read_text() == "a"
    assert "cannot be started" in launch.read(data).failed[NEW]


def test_an_agent_that_runs_is_left_alone_and_nothing_is_counted(data: Path) -> None:
    with (data / "agent.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = run(data)
    assert ended.returncode == 1
    assert "another agent runs here" in ended.stderr
    assert launch.read(data).starts == {}


def test_the_release_is_told_and_finds_no_foreign_packages(data: Path) -> None:
    program = "(data / 'env').write_text(json.dumps(dict(os.environ)))\n"
    (launch.venv_of(data, NEW) / "program.py").write_text(SAYS + program)
    run(data, VIRTUAL_ENV="/x", LANG="C")
    told = json.loads((data / "env").read_text())
    assert told["STROP_RELEASE"] == NEW
    assert told["STROP_LAUNCHER"] == sys.executable
    assert told["STROP_ON_TRIAL"] == "180"
    assert not {"PYTHONPATH", "VIRTUAL_ENV"} & set(told)


def test_a_wrong_call_says_how() -> None:
    assert launcher.main(["--quiet"]) == 2
