# SPDX-License-Identifier: Apache-2.0
"""Inference does not wait for the journal: a start on a disk that refuses to write it, with a real runner."""

import errno
import json
import queue
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from edge_agent import alone
from edge_agent.adapters.log import LogFile
from edge_agent.app import App
from edge_agent.config import load
from edge_agent.counters import CounterFile
from edge_contract import durable
from edge_contract.errors import StoreError
from tests.support.agent_process import until


class Disk:
    """Refuses the journal while it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = True
        self._write = durable.write
        monkeypatch.setattr(durable, "write", self.write)
        monkeypatch.setattr(alone, "PERSIST_PAUSE_S", 0.2)
        monkeypatch.setattr(alone, "PERSIST_TRIES", 1500)  # as many minutes as ever, however slow the runner starts

    def write(self, path: Path, data: bytes, *, mode: int = 0o644) -> None:
        if self.is_full and path.name == "journal.json":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        self._write(path, data, mode=mode)


class Life:
    """One agent in a thread of its own, without a broker, on a disk that refuses."""

    def __init__(self, data: Path, disk: Disk) -> None:
        self.disk, self.error = disk, ""
        self._made: queue.SimpleQueue[App] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, args=(data,))
        self.thread.start()
        self.app = self._made.get(timeout=60)

    def _run(self, data: Path) -> None:
        app = App(data, load(data), LogFile(data / "logs" / "agent.log"))
        self._made.put(app)
        try:
            app.begin()
            app.loop()
        except StoreError as error:
            self.error = str(error)
        finally:
            app.end()

    def end(self) -> None:
        self.app.stop()
        self.thread.join(60)


@pytest.fixture
def life(bench, monkeypatch: pytest.MonkeyPatch):
    text = (bench.data / "agent.toml").read_text()
    (bench.data / "agent.toml").write_text("\n".join(line for line in text.splitlines() if "broker" not in line))
    found = Life(bench.data, Disk(monkeypatch))
    yield found
    found.end()


def inferences(app: App) -> int:
    found = CounterFile(app.data / "counters.bin").read()
    return found.counters.n_infer if found else 0


def test_the_model_answers_meanwhile_and_no_result_is_lost_or_told_before_its_time(life) -> None:
    app, disk = life.app, life.disk
    until(lambda: inferences(app) > 40, "inferences before the journal")
    assert not (app.data / "journal.json").exists()
    assert app.state.booted_at == 0.0, "the core has begun nothing"
    before = inferences(app)
    disk.is_full = False
    until(lambda: (app.data / "journal.json").exists(), "the journal")
    until(lambda: inferences(app) > before + 40, "inferences after it")
    assert app.state.first.runner.active == app.state.first.slots.active != ""
    life.end()
    with closing(sqlite3.connect(app.data / "outbox.db")) as db:
        bodies = [json.loads(body) for (body,) in db.execute("SELECT body FROM rows WHERE cls='result' ORDER BY seq")]
        events = [json.loads(body) for (body,) in db.execute("SELECT body FROM rows WHERE cls='event'")]
    places = [body["first"] + i for body in bodies for i in range(len(body["rows"]))]
    assert places == list(range(len(places))), "each answer once, from the first one on"
    assert len(places) > before
    assert [event["kind"] for event in events].count("loaded") == 1, "the model was opened once"


def test_a_runner_that_ends_meanwhile_is_started_again(life) -> None:
    app, disk = life.app, life.disk
    until(lambda: inferences(app) > 5, "inferences")
    epoch = CounterFile(app.data / "counters.bin").read().epoch
    (lane,) = app.lanes.values()
    lane.runner._child.kill()
    until(lambda: CounterFile(app.data / "counters.bin").read().epoch != epoch and inferences(app) > 5, "anew")
    disk.is_full = False
    until(lambda: app.state.first.runner.active, "the core knows of the second runner")


def test_a_disk_that_never_takes_it_ends_the_process(life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "PERSIST_TRIES", 2)
    life.thread.join(60)
    assert "cannot write the journal" in life.error
