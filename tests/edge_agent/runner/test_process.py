# SPDX-License-Identifier: Apache-2.0
"""The runner as the process that it is: real pipes, real signals, real runtimes."""

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edge_agent.counters import CounterFile
from tests.edge_agent.runner import bundles, tiny

ROOT = Path(__file__).resolve().parents[3]
DEADLINE_S = 30.0


class Runner:
    """A runner process; its events are read by a thread, so that each wait can have a deadline."""

    def __init__(self, counters, runtime="litert", python=sys.executable):
        command = [python, "-m", "edge_agent.runner.process", "--runtime", runtime, "--counters", str(counters)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.child = subprocess.Popen(command, cwd=ROOT, **pipes)
        self.events, self.heard, self.words = queue.Queue(), [], []
        self.threads = [threading.Thread(target=self._hear), threading.Thread(target=self._log)]
        for thread in self.threads:
            thread.start()

    def _hear(self):
        for line in self.child.stdout:
            self.events.put(json.loads(line))
        self.events.put(None)

    def _log(self):
        self.words.extend(line.decode() for line in self.child.stderr)

    def tell(self, *commands):
        for command in commands:
            line = command if isinstance(command, bytes) else json.dumps(command).encode()
            self.child.stdin.write(line + b"\n")
        self.child.stdin.flush()

    def until(self, kind, **words):
        """Return the next event of a kind, with these words; others on the way are kept in ``heard``."""
        end = time.monotonic() + DEADLINE_S
        while (event := self.events.get(timeout=max(0.0, end - time.monotonic()))) is not None:
            self.heard.append(event)
            if event["event"] == kind and all(event.get(key) == value for key, value in words.items()):
                return event
        raise AssertionError(f"ended without {kind}: {self.heard}, {self.words}")

    def rest(self):
        """Return what comes until the process has closed its output."""
        found = []
        while (event := self.events.get(timeout=DEADLINE_S)) is not None:
            found.append(event)
        self.heard.extend(found)
        return found

    def code(self):
        return self.child.wait(DEADLINE_S)

    def rows(self):
        return [row for event in self.heard if event["event"] == "results" for row in event["rows"]]

    def close(self):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait(DEADLINE_S)
        for thread in self.threads:
            thread.join(DEADLINE_S)
        for pipe in (self.child.stdin, self.child.stdout, self.child.stderr):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@pytest.fixture
def start(tmp_path):
    runners = []

    def begin(**words):
        runners.append(Runner(tmp_path / "counters.bin", **words))
        return runners[-1]

    yield begin
    for runner in runners:
        runner.close()


@pytest.fixture
def belt(tmp_path):
    path = tmp_path / "belt.npy"
    np.save(path, tiny.images(30, seed=11))
    spec = {"kind": "replay", "path": str(path), "rate_hz": 100, "loop": True}
    return {"cmd": "source", "name": "belt", "spec": spec}


def load(folder, role="active"):
    return {"cmd": "load", "role": role, "folder": str(folder)}


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime", "tflite-runtime"])
def test_whole_life_in_every_runtime(runtime, start, belt, built, tmp_path, request):
    python = request.getfixturevalue("legacy") if runtime == "tflite-runtime" else sys.executable
    runner = start(runtime=runtime, python=python)
    ready = runner.until("ready")
    assert (ready["runtime"], ready["pid"]) == (runtime, runner.child.pid)
    runner.tell(load(built), load(built, "shadow"), belt)
    active = runner.until("loaded", role="active")
    # The bundle's golden file was recorded on the workstation, where there is no tflite-runtime.
    assert active["golden"] == ("steps" if runtime == "tflite-runtime" else "exact")
    runner.until("loaded", role="shadow")
    runner.until("source", name="belt")
    shadow = runner.until("shadow")
    assert 0 < shadow["n"] == shadow["agree"]
    while len(runner.rows()) < 60:
        runner.until("results")
    runner.tell({"cmd": "stop"})
    runner.rest()
    assert runner.code() == 0
    assert [row[0] for row in runner.rows()] == [f"belt:{i % 30}" for i in range(len(runner.rows()))]
    reading = CounterFile(tmp_path / "counters.bin").read()
    assert reading.bundle == active["bundle"] == bundles.manifest_of(built).bundle_id
    assert reading.counters.n_infer == len(runner.rows())


def test_bad_bundles_and_sources_and_lines_leave_it_answering(start, belt, built, bundle, tmp_path):
    runner = start()
    runner.tell(load(built), belt)
    runner.until("results")
    spoiled = bytearray((bundle / "model.tflite").read_bytes())
    spoiled[300] ^= 255
    (bundle / "model.tflite").write_bytes(spoiled)
    runner.tell(load(bundle), load(tmp_path / "nowhere"), b"{nonsense", b'{"cmd":"dance"}')
    missing = {**belt, "name": "gone", "spec": {**belt["spec"], "path": str(tmp_path / "gone.npy")}}
    runner.tell(missing)
    assert "file changed" in runner.until("load_failed", bundle="bundle")["reason"]
    assert "no readable manifest.json" in runner.until("load_failed", bundle="nowhere")["reason"]
    assert "not JSON" in runner.until("command_failed")["reason"]
    assert "use one of load" in runner.until("command_failed")["reason"]
    assert "No such file or directory" in runner.until("source_failed", name="gone")["reason"]
    results = runner.until("results")
    assert results["bundle"] == bundles.manifest_of(built).bundle_id
    assert results["rows"][-1][0].startswith("belt:")


def test_swap_changes_the_bundle_and_never_the_numbering(start, belt, built, tmp_path):
    other = bundles.build(tmp_path / "v2", seed=7, version="2.0.0")
    runner = start()
    runner.tell(load(built), belt)
    runner.until("results")
    runner.tell(load(other))
    bundle = runner.until("loaded", version="2.0.0")["bundle"]
    runner.until("results", bundle=bundle)
    runner.tell({"cmd": "stop"})
    runner.rest()
    results = [event for event in runner.heard if event["event"] == "results"]
    firsts, sizes = [event["first"] for event in results], [len(event["rows"]) for event in results]
    assert firsts == [sum(sizes[:i]) for i in range(len(sizes))]
    assert [row[0] for row in runner.rows()] == [f"belt:{i % 30}" for i in range(sum(sizes))]


ENDS = {
    "stdin closes": lambda runner: runner.child.stdin.close(),
    "SIGTERM": lambda runner: runner.child.send_signal(signal.SIGTERM),
    "SIGINT": lambda runner: runner.child.send_signal(signal.SIGINT),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("is_busy", [True, False], ids=["busy", "idle"])
def test_end_is_clean_and_sends_what_is_left(end, is_busy, start, belt, built, tmp_path):
    runner = start()
    runner.until("ready")
    if is_busy:
        runner.tell(load(built), belt)
        runner.until("results")
    ENDS[end](runner)
    runner.rest()
    assert runner.code() == 0
    assert not [line for line in runner.words if "Traceback" in line or "Fatal" in line]
    if is_busy:
        assert CounterFile(tmp_path / "counters.bin").read().counters.n_infer == len(runner.rows())


@pytest.mark.parametrize("is_busy", [True, False], ids=["busy", "idle"])
def test_it_ends_when_nobody_reads_its_events(is_busy, belt, built, tmp_path):
    read, write = os.pipe()
    command = [sys.executable, "-m", "edge_agent.runner.process", "--runtime", "litert", "--counters"]
    command.append(str(tmp_path / "c.bin"))
    child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    with os.fdopen(read, "rb", buffering=0) as events, child:
        lines = iter(events.readline, b"")
        assert json.loads(next(lines))["event"] == "ready"
        if is_busy:
            for command in (load(built), belt):
                child.stdin.write(json.dumps(command).encode() + b"\n")
            child.stdin.flush()
            while json.loads(next(lines))["event"] != "results":
                pass
        events.close()
        assert child.wait(DEADLINE_S) in (0, 1)  # stdin is still open
        assert b"Traceback" not in child.stderr.read()


def test_what_a_library_prints_goes_to_stderr():
    code = """
import os
from edge_agent.runner.process import Events
events = Events()
os.write(1, b"chatter of a native library")
print("chatter of Python", flush=True)
events.emit({"event": "ready"})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == '{"event":"ready"}\n'
    assert "native library" in done.stderr
    assert "Python" in done.stderr


def test_nothing_but_events_reaches_stdout(start, built):
    runner = start()
    runner.tell(load(built), {"cmd": "stop"})
    assert [event["event"] for event in runner.rest()] == ["ready", "loaded"]
    runner.code()
    runner.threads[1].join(DEADLINE_S)
    assert any("XNNPACK" in line for line in runner.words)  # LiteRT's word is on stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--runtime", "tflite-runtime", "--counters", "c.bin"], 1, "pip install 'strop[agent-tflite]'"),
        (["--runtime", "abacus", "--counters", "c.bin"], 2, "invalid choice: 'abacus'"),
        (["--runtime", "litert"], 2, "the following arguments are required: --counters"),
    ],
)
def test_start_that_cannot_work_is_one_line_and_its_exit_code(arguments, code, words, tmp_path):
    command = [sys.executable, "-m", "edge_agent.runner.process", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_help_says_what_it_speaks():
    command = [sys.executable, "-m", "edge_agent.runner.process", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("--runtime", "--counters", "--threads", "JSON lines", "Example"))


EVENTS = ("engine.py", "answering.py", "proving.py", "guard.py", "process.py", "results.py")


def test_documentation_lists_exactly_the_events_and_commands():
    text = (ROOT / "docs/runner.md").read_text()
    commands, events = (part.split("\n## ")[0] for part in (text.split("## Commands")[1], text.split("## Events")[1]))
    code = "".join((ROOT / "edge_agent/runner" / name).read_text() for name in EVENTS)
    assert set(re.findall(r"^\| `(\w+)`", events, re.MULTILINE)) == set(re.findall(r'"event": "(\w+)"', code))
    named = {
        word for row in re.findall(r"^\| (`[^|]*`) \|", commands, re.MULTILINE) for word in re.findall(r"\w+", row)
    }
    assert named == {"load", "unload", "source", "pause", "resume", "stop"}
