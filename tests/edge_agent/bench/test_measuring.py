# SPDX-License-Identifier: Apache-2.0
"""A measurement as real processes: its limits hold, nothing outlives it, and what it left is gathered."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_agent.bench import child, measuring
from edge_agent.bench.place import Place
from edge_contract.bench_job import BenchJob

RESULT = "import sys, pathlib; (pathlib.Path('out') / 'result.json').write_text('{}')"


def job(**changes):
    limits = {"max_seconds": 30.0, "max_bytes": 10_000_000, **changes}
    return BenchJob("b1-0", "b1", "pi", "", "", (), {}, 0.0, 1e12, **limits)


def run(tmp_path, code, *, why=lambda: "", **changes):
    place, one = Place(tmp_path), job(**changes)
    place.of(one.id).mkdir(parents=True)
    place.fresh(one)
    found = measuring.measure(tmp_path, place.of(one.id), [sys.executable, "-c", code], one, why, time.sleep)
    return found, place.of(one.id)


def test_a_measurement_that_leaves_a_result_is_one(tmp_path):
    found, folder = run(tmp_path, f"{RESULT}; open('out/samples.bin', 'wb').write(b'1')")
    assert found.ok, found.why
    files, left = measuring.collected(folder / "out")
    assert (list(files), left) == (["result.json", "samples.bin"], "")
    assert found.facts["bytes"] > 0


def test_a_failure_is_told_by_its_last_line(tmp_path):
    found, folder = run(tmp_path, "import sys; print('x\\nerror: no model here', file=sys.stderr); sys.exit(1)")
    assert (found.ok, found.why) == (False, "no model here")
    assert child.last_words(folder) == "no model here"


@pytest.mark.parametrize(
    ("code", "words"), [("raise SystemExit(7)", "code 7 and left no result"), ("pass", "code 0 and left no result")]
)
def test_an_end_without_a_word_or_a_result_is_told_by_its_code(tmp_path, code, words):
    assert words in run(tmp_path, code)[0].why


def gone(pid):
    """True once a process has ended, reaped or not."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


ORPHAN = "import subprocess as s, time; p = s.Popen(['sleep', '600']); open('pid', 'w').write(str(p.pid))"


def test_what_takes_too_long_is_killed_with_all_that_it_started(tmp_path):
    found, folder = run(tmp_path, f"{ORPHAN}; time.sleep(600)", max_seconds=1.0)
    assert found.why == "it took longer than 1 s"
    assert gone(int((folder / "pid").read_text()))


def test_what_is_left_of_a_finished_measurement_is_killed_too(tmp_path):
    found, folder = run(tmp_path, f"{ORPHAN}; {RESULT}")
    assert found.ok
    assert gone(int((folder / "pid").read_text()))


def test_a_measurement_ends_when_somebody_says_why(tmp_path):
    found, folder = run(
        tmp_path, f"{ORPHAN}; time.sleep(600)", why=lambda: "the battery is below 20 %" * started(tmp_path)
    )
    assert found.why == "the battery is below 20 %"
    assert gone(int((folder / "pid").read_text()))


def started(tmp_path):
    return next((tmp_path / "bench").rglob("pid"), None) is not None


def test_no_file_grows_beyond_the_limit(tmp_path):
    found, _ = run(tmp_path, "open('out/big', 'wb').write(bytes(2_000_000))", max_bytes=1_000_000)
    assert not found.ok
    assert "File too large" in found.why


def test_the_group_dies_with_the_agent_however_it_went(tmp_path):
    """A stand-in for the agent starts the warden as the agent does, and is killed."""
    agent = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-m', 'edge_agent.bench.warden', '600', '1000000', 'sh', '-c', "
        "'echo $$ > pid; sleep 600; true'], stdin=subprocess.PIPE, start_new_session=True, cwd=sys.argv[1])\n"
        "time.sleep(600)\n"
    )
    root = Path(__file__).resolve().parents[3]
    one = subprocess.Popen([sys.executable, "-c", agent, str(tmp_path)], env={**os.environ, "PYTHONPATH": str(root)})
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.05)
    one.send_signal(signal.SIGKILL)
    one.wait()
    assert gone(int((tmp_path / "pid").read_text()))


def test_only_bounded_plain_files_are_gathered(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "folder").mkdir()
    (tmp_path / "a b.bin").write_bytes(b"1")
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(17_000_000)
    (tmp_path / "link.bin").symlink_to(tmp_path / "result.json")
    files, left = measuring.collected(tmp_path)
    assert list(files) == ["result.json"]
    assert "a b.bin (1 bytes)" in left
    assert "large.bin (17000000 bytes)" in left
    (tmp_path / "result.json").write_text("x" * 1_000_001)
    assert measuring.collected(tmp_path)[0] == {}


def test_without_the_benchmarks_there_is_no_measurement(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "__file__", str(tmp_path / "a" / "b" / "child.py"))
    found, _ = run(tmp_path, "pass")
    assert "the package 'benchmarks' is not installed" in found.why
