# SPDX-License-Identifier: Apache-2.0
"""Commands: answered, handed to the rim, refused; and a message that does harm is put aside after the second time."""

from dataclasses import replace

import pytest

from edge_agent.core import effects as ef
from edge_agent.core import events as ev
from edge_agent.core.commands import MAX_CRASHES, Desktop, key_of
from edge_contract import canonical
from tests.support.device_sim import Device, job


class Commanded(Device):
    """A device whose rim can carry out ``logs``; a command may kill the process."""

    deadly = False

    def boot(self) -> None:
        self.handed: list[ef.RunCommand] = []
        super().boot()
        self.state = replace(self.state, me=replace(self.state.me, commands=("logs",)))

    def _on_RunCommand(self, effect: ef.RunCommand) -> None:
        self.handed.append(effect)
        if self.deadly:
            self.later.clear()

    def ask(self, channel: str, body: bytes = b'{"v":1}') -> None:
        self.later.append(ev.Message(self.now(), channel, body))
        self.run(1)

    def answers(self, channel: str) -> list[dict]:
        return [canonical.loads(data) for name, data in self.server.said if name == f"{channel}/result"]


def device() -> Commanded:
    made = Commanded()
    made.run(2)
    return made


def test_a_ping_comes_back_with_its_echo_and_both_clocks() -> None:
    pi = device()
    pi.ask("cmd/ping/7", b'{"v":1,"echo":"hello"}')
    (answer,) = pi.answers("cmd/ping/7")
    assert (answer["ok"], answer["echo"]) == (True, "hello")
    assert canonical.as_float(answer["time"]) == pytest.approx(pi.wall, abs=2)


REFUSED = {
    "unknown": ("cmd/dance/1", b'{"v":1}', "unknown command 'dance'; this agent knows logs, ping"),
    "no json": ("cmd/ping/1", b"hello", "not JSON"),
    "another version": ("cmd/ping/1", b'{"v":9}', "protocol version 9"),
    "a novel": ("cmd/ping/1", b'{"v":1,"echo":"' + b"x" * 2000 + b'"}', "at most 1000 letters"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_command_that_does_not_fit_is_answered_with_the_reason(name: str) -> None:
    channel, body, reason = REFUSED[name]
    pi = device()
    pi.ask(channel, body)
    (answer,) = pi.answers(channel)
    assert answer["ok"] is False
    assert reason in answer["error"]


def test_an_empty_ping_is_fine() -> None:
    pi = device()
    pi.ask("cmd/ping/1", b"")
    assert pi.answers("cmd/ping/1")[0]["ok"] is True


def test_a_heavy_command_is_in_the_journal_while_the_rim_has_it() -> None:
    pi = device()
    pi.ask("cmd/logs/1", b'{"v":1,"lines":5}')
    assert [(one.kind, one.body) for one in pi.handed] == [("logs", {"lines": 5})]
    assert canonical.loads(pi.disk.journal)["commands"]["running"] == ["cmd/logs/1"]
    pi.ask("cmd/logs/1")
    assert len(pi.handed) == 1, "asked twice, carried out once"
    pi._feed(ev.CommandDone(pi.now(), "cmd/logs/1", ok=True, body={"bytes": 9}))
    assert pi.answers("cmd/logs/1") == [{"v": 1, "ok": True, "bytes": 9}]
    assert canonical.loads(pi.disk.journal)["commands"]["running"] == []


def test_a_command_that_kills_the_process_twice_is_put_aside_and_reported() -> None:
    pi = device()
    for _ in range(MAX_CRASHES):
        pi.ask("cmd/logs/1")
        assert len(pi.handed) == 1
        pi.power_cycle()
        pi.run(3)
    pi.ask("cmd/logs/1")
    assert pi.handed == []
    pi.ask("cmd/logs/2")
    assert len(pi.handed) == 1, "the next one is innocent"
    (alarm,) = pi.server.bodies("alarm")
    assert (alarm["kind"], alarm["message"]) == ("poison_message", "cmd/logs/1")
    pi.power_cycle()
    pi.run(3)
    pi.ask("cmd/logs/1")
    assert pi.handed == [], "it is remembered"


def test_a_retained_message_that_crashes_its_reader_is_read_no_third_time() -> None:
    """The rim tells of each crash; the core never had the state of the crash."""
    pi = device()
    pi.order(job())
    payload = pi.retained["job/next"]
    pi.later.clear()
    for _ in range(MAX_CRASHES):
        pi._feed(ev.HandlerFailed(pi.now(), key_of("job/next", payload), "KeyError: 'x'"))
    pi.say("job/next", payload)
    pi.run(3)
    assert pi.checks == 0
    assert pi.server.bodies("alarm")[0]["reason"] == "KeyError: 'x'"
    pi.order(job("j2"))
    pi.run(20)
    assert pi.status("j2") == "SUCCEEDED"


def test_what_is_remembered_of_crashes_is_bounded() -> None:
    desk = Desktop()
    for i in range(300):
        desk = desk.blamed(f"cmd/x/{i}")
    assert len(desk.crashes) == 64
    assert "cmd/x/299" in desk.crashes
