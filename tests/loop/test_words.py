# SPDX-License-Identifier: Apache-2.0
"""The loop's file of settings, its journal, its patience with a server, and what it tells a person."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_contract.errors import RegistryError, StropError, UsageError
from strop.cli import GROUPS, load
from strop.loop import journal, starting
from strop.loop.cli import app
from strop.loop.config import Limits, LoopConfig, read_config
from strop.loop.journal import STEPS, LaterError, Run, runs_in
from strop.loop.server import Server

WHOLE = """
server = "http://127.0.0.1:1"
token_file = "token"
keys = "keys"
runs = "my-runs"
ask = ["train"]
[limits]
minimum_inputs = 50
capture_s = 60
[capture]
random = 1
drifted = true
[rollout]
shadow = ""
production = ["10%", "rest"]
soak_s = 5
[rollout.probation]
inferences = 20
[model.digits]
recipe = "out/digits"
targets = ["rpi4"]
[model.digits.healing]
epochs = 3
"""


@pytest.fixture
def write(tmp_path):
    def write_(text):
        path = tmp_path / "loop.toml"
        path.write_text(text)
        return path

    return write_


def test_a_whole_file_is_read_and_its_paths_are_taken_from_where_it_lies(write, tmp_path):
    config = read_config(write(WHOLE))
    assert (config.runs, config.keys, config.token_file) == (
        tmp_path / "my-runs",
        tmp_path / "keys",
        tmp_path / "token",
    )
    assert (config.limits.minimum_inputs, config.limits.capture_s, config.limits.wanted_inputs) == (50, 60.0, 500)
    assert isinstance(config.limits.capture_s, float)
    assert (config.capture.random, config.capture.drifted) == (1.0, True)
    assert config.rollout.production == ("10%", "rest")
    assert config.rollout.plan == {"soak_s": 5, "probation": {"inferences": 20}}
    assert config.model("digits").recipe == tmp_path / "out/digits"
    assert config.model("digits").healing == {"epochs": 3}
    with pytest.raises(UsageError, match=r"no recipe for model 'faces'; write \[model.faces\]"):
        config.model("faces")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('runs = "my-runs"', 'run = "x"', "unknown key 'run'"),
        ('ask = ["train"]', 'ask = ["verify"]', "unknown step 'verify'"),
        ('server = "http://127.0.0.1:1"', "", "which server"),
        ("token_file", 'data = "x"\ntoken_file', "which server"),
        ("minimum_inputs = 50", "minimum_inputs = 0.5", "limits.minimum_inputs: 0.5 is not a whole number"),
        ("capture_s = 60", "capture_s = -1", "capture_s: -1 is not a number from 0 on"),
        ("drifted = true", "drifted = 1", "1 is not true or false"),
        ("soak_s = 5", "soaks = 5", "rollout: unknown key 'soaks'"),
        ('recipe = "out/digits"', "", "no recipe"),
        ("epochs = 3", "epoch = 3", "model.digits.healing: unknown key 'epoch'"),
        ('targets = ["rpi4"]', 'targets = "rpi4"', "expected a list of texts"),
        ("[model.digits]", "model = 3\n[other]", "unknown key 'other'|expected a table"),
        ("[limits]", "[limits", "no TOML"),
    ],
)
def test_a_slip_names_file_and_key(write, old, new, words):
    assert old in WHOLE
    with pytest.raises(UsageError, match=words) as caught:
        read_config(write(WHOLE.replace(old, new, 1)))
    assert "loop.toml" in str(caught.value)


def test_a_file_without_a_model_or_none_at_all_is_refused(write, tmp_path):
    with pytest.raises(UsageError, match="no model"):
        read_config(write('data = "server"'))
    with pytest.raises(UsageError, match="cannot be read"):
        read_config(tmp_path / "none.toml")


def test_gates_of_the_command_line_stand_beside_those_of_the_file(write):
    config = read_config(write(WHOLE))
    assert starting.asking(config, "rollout, train").ask == ("train", "rollout")
    with pytest.raises(UsageError, match="unknown gate 'healing'"):
        starting.asking(config, "healing")


SIGNAL = {"number": 7, "signal": {"model": "digits", "bundle": "ab" * 32, "devices": ["pi"]}}


def test_runs_of_one_signal_have_folders_of_their_own_and_hold_what_they_began_with(tmp_path):
    first, second = (Run.create(tmp_path / "runs", SIGNAL, "# settings") for _ in range(2))
    assert [first.folder.name, second.folder.name] == ["signal-7", "signal-7-2"]
    assert first.id != second.id
    assert (first.folder / "loop.toml").read_text() == "# settings"
    assert first.lineage == {"parent": "ab" * 32, "signal": 7}
    assert [one["name"] for one in first.document["steps"]] == list(STEPS)
    (tmp_path / "runs" / "signal-8").mkdir()  # of a process that died before its first write
    assert [run.folder.name for run in runs_in(tmp_path / "runs")] == ["signal-7", "signal-7-2"]
    with pytest.raises(UsageError, match="no run of the loop"):
        Run(tmp_path)
    (tmp_path / "runs" / "signal-8" / "run.json").write_text('{"schema": "strop.loop/9"}')
    with pytest.raises(UsageError, match="schema"):
        Run(tmp_path / "runs" / "signal-8")


def test_a_full_disk_leaves_the_run_as_it_was(tmp_path, monkeypatch):
    run = Run.create(tmp_path, SIGNAL, "")
    before = (run.folder / "run.json").read_bytes()

    def full(*_words, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal.durable, "write", full)
    with pytest.raises(LaterError, match=r"run.json: cannot be written: No space.*--resume"):
        run.note("capture", campaign="c1")
    assert (run.folder / "run.json").read_bytes() == before


def test_an_answer_is_given_once_by_somebody_and_status_shows_where_a_run_stands(tmp_path, write):
    path = write(WHOLE)
    run = Run.create(tmp_path / "my-runs", SIGNAL, "")
    run.step("train").update(state="asking")
    run.save(state="asking")
    shell = CliRunner()
    assert "strop loop approve" in shell.invoke(app, ["status", str(run.folder)]).output
    table = shell.invoke(app, ["status", "--config", str(path)]).output
    assert "asking at train" in table
    (listed,) = json.loads(shell.invoke(app, ["status", "--config", str(path), "--json"]).output)
    assert (listed["signal"], listed["state"]) == (7, "asking")
    done = shell.invoke(app, ["approve", str(run.folder), "train", "--by", "ada"])
    assert "approved by ada" in done.output
    assert run.answer("train")["word"] == "approve"
    for step, words in (("train", "ada has said approve"), ("trains", "unknown step")):
        with pytest.raises(UsageError, match=words):
            run.say(step, "deny", "bob", "")
    run.step("capture").update(state="done")
    run.save()
    with pytest.raises(UsageError, match="there is nothing to answer: it is done"):
        run.say("capture", "approve", "bob", "")


def test_a_run_that_failed_says_step_folder_and_fix(tmp_path):
    run = Run.create(tmp_path, SIGNAL, "")
    run.step("train").update(state="failed")
    run.save(state="failed", reason="it forgets")
    with pytest.raises(StropError) as caught:
        starting.outcome(run)
    assert str(caught.value) == (
        f"{run.folder}, step train: it forgets; signal 7 stays open; after the cause is away: strop loop run --signal 7"
    )
    with pytest.raises(UsageError, match="no run was interrupted"):
        starting.resumed(LoopConfig(tmp_path, tmp_path, tmp_path), 0)


class Moody(BaseHTTPRequestHandler):
    """Fails twice in its own way, then answers."""

    fails: list[int]

    def do_GET(self):
        code = self.fails.pop(0) if self.fails else 200
        body = b'{"error": "it is dismissed", "kind": "RegistryError"}' if code == 409 else b'{"ok": 1}'
        self.send_response(code)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words):
        """Say nothing."""


@pytest.fixture
def moody():
    Moody.fails = []
    server = HTTPServer(("127.0.0.1", 0), Moody)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class Clock:
    def __init__(self):
        self.now, self.slept = 0.0, []

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def monotonic(self):
        return self.now


def asked(port, clock, **limits):
    said = []
    here = Path("loop.toml")
    config = LoopConfig(here, here, here, server=f"http://127.0.0.1:{port}", limits=Limits(**limits))
    return Server(config, said.append, sleep=clock.sleep, monotonic=clock.monotonic), said


def test_a_server_that_is_away_or_broken_is_asked_again_with_longer_waits(moody):
    clock, Moody.fails = Clock(), [502, 500, 503]
    server, said = asked(moody.server_port, clock)
    assert server.call("GET", "/x") == {"ok": 1}
    assert clock.slept == [0.5, 1.0, 2.0]
    assert len(said) == 3
    Moody.fails = [409]
    with pytest.raises(RegistryError, match="it is dismissed"):
        server.call("GET", "/x")
    assert len(clock.slept) == 3  # a refusal is an answer


def test_after_its_patience_the_loop_ends_and_says_how_to_go_on(tmp_path):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    clock = Clock()
    server, said = asked(port, clock, server_s=100.0)
    with pytest.raises(LaterError, match=r"was away for 100 s: .*strop loop run --resume"):
        server.call("GET", "/x")
    assert sum(clock.slept) <= 100.0
    assert clock.slept[-1] == max(clock.slept)
    data = tmp_path / "server"
    data.mkdir()
    config = LoopConfig(tmp_path, tmp_path, tmp_path, data=data, limits=Limits(server_s=3.0))
    (data / "operator.token").write_text("t")
    with pytest.raises(LaterError, match="no fleet server runs"):
        Server(config, said.append, sleep=clock.sleep, monotonic=clock.monotonic).call("GET", "/x")


def test_strop_knows_the_group():
    assert "loop" in GROUPS
    assert load("loop") is app
    output = CliRunner().invoke(app, ["run", "--watch", "--resume"]).exception
    assert "--watch takes every signal" in str(output)
