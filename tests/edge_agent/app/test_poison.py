# SPDX-License-Identifier: Apache-2.0
"""A message that crashes the core costs itself: it is answered, counted, and after the second time put aside."""

from pathlib import Path

import pytest

from edge_agent.adapters.log import LogFile
from edge_agent.app import App
from edge_agent.config import load
from edge_agent.core import commands
from edge_agent.core import events as ev
from edge_agent.core.effects import RunCommand
from edge_contract.errors import UsageError
from tests.support.agent_process import until

NOW = ev.Instant(1.8e9, 10.0)


@pytest.fixture
def app(tmp_path: Path) -> App:
    """An agent whose loop does not run: events are fed by hand."""
    (tmp_path / "agent.toml").write_text('device = "pi"\n')
    return App(tmp_path, load(tmp_path), LogFile(tmp_path / "log", is_quiet=True))


def told(app: App, cls: str) -> list[dict]:
    return [row.body for row in app.outbox.batch(app.boot, cls, 0, max_bytes=90_000)]


def test_a_command_that_crashes_the_core_twice_is_not_read_again(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def crash(_body, event) -> dict:
        read.append(event.channel)
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setitem(commands._LIGHT, "boom", crash)  # type: ignore[index]
    for _ in range(4):
        app.feed(ev.Message(NOW, "cmd/boom/1", b""))
    assert read == ["cmd/boom/1"] * commands.MAX_CRASHES
    app.feed(ev.Message(NOW, "cmd/boom/2", b""))
    assert len(read) == 3, "another one is another one"
    (alarm,) = told(app, "alarm")
    assert alarm["kind"] == "poison_message"
    assert "ZeroDivisionError: a fault of ours" in alarm["reason"]
    assert app.journal.read()["commands"]["crashes"] == {"cmd/boom/1": 2, "cmd/boom/2": 1}
    app.outbox.close(10.0)


def test_a_heavy_command_is_carried_out_beside_the_loop_and_its_faults_are_its_own(app: App) -> None:
    def refuse(_body) -> dict:
        raise UsageError("not today")

    app.commands.update(good=lambda body: {"n": body["n"] + 1}, refused=refuse, broken=lambda body: {"n": body["x"]})
    for kind in app.commands:
        app._performer.perform(RunCommand(f"cmd/{kind}/1", kind, {"n": 1}))
    until(lambda: app.inbox.qsize() == 3, "three ends")
    good, refused, broken = (app.inbox.get() for _ in range(3))
    assert (good.ok, good.body) == (True, {"n": 2})
    assert (refused.ok, refused.body) == (False, {"error": "not today"})
    assert isinstance(broken, ev.HandlerFailed)
    assert broken.reason == "KeyError: 'x'"
    app._performer.close()
    app.outbox.close(10.0)
