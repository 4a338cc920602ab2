# SPDX-License-Identifier: Apache-2.0
"""Logs and diagnostics on request, over a real broker and without secrets; and a link that is built anew."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.adapters.reporter import commands
from edge_agent.core.echo import LONGEST_S, Echo
from edge_agent.diagnostics import redact, tail
from edge_contract import canonical
from edge_contract.errors import BrokerError, MessageError
from edge_contract.log_chunks import join, split
from edge_contract.topics import parse
from tests.support.agent_process import Peer, until

PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----"


class Listener(Peer):
    """Hears results of commands and what comes on ``log/<id>``, too."""

    def __init__(self, port: int) -> None:
        self.results: dict[str, dict[str, Any]] = {}
        self.pieces: dict[str, list[bytes]] = {}
        super().__init__(port)

    def _hear(self, _client: Any, _user: Any, message: Any) -> None:
        parts = parse(message.topic).parts
        if parts[0] == "cmd":
            self.results[parts[2]] = canonical.loads(message.payload)
        elif parts[0] == "log":
            self.pieces.setdefault(parts[1], []).append(message.payload)
        else:
            super()._hear(_client, _user, message)


@pytest.fixture
def listener(bench) -> Iterator[Listener]:
    bench.broker.start()
    found = Listener(bench.broker.port)
    yield found
    found.close()


@pytest.mark.broker
def test_logs_and_diagnostics_come_on_request_and_keep_secrets(bench, listener: Listener) -> None:
    toml = bench.data / "agent.toml"
    toml.write_text(toml.read_text() + '[sources.door]\nkind = "camera"\nurl = "rtsp://me:hunter2@cam/1"\n')
    agent = bench.agent()
    until(lambda: listener.births and "loaded" in agent.log, "a birth")
    with (bench.data / "logs" / "agent.log").open("a") as file:
        file.write(f"token=hunter2 {PEM}\n")
    listener.say("cmd/logs/01A", b'{"v":1,"kb":8}')
    listener.say("cmd/diagnostics/01B", b'{"v":1}')
    listener.say("cmd/logs/01C", b'{"v":1,"kb":0}')
    until(lambda: len(listener.results) == 3, "three answers")
    assert "kb = 0 is not a count from 1" in listener.results["01C"]["error"]
    texts = {}
    for one in ("01A", "01B"):
        assert listener.results[one]["ok"], listener.results[one]
        until(lambda one=one: len(listener.pieces.get(one, [])) == listener.results[one]["parts"], "all pieces")
        texts[one] = join(listener.pieces[one]).decode()
        assert "hunter2" not in texts[one]
        assert "MIIE" not in texts[one]
        assert "ready device=pi" in texts[one]
    document = json.JSONDecoder().raw_decode(texts["01B"])[0]
    assert document["status"]["slots"]["active"]["bundle"] == bench.bundle
    assert {"python", "paho-mqtt"} <= set(document["versions"])
    assert "rtsp://[redacted]@cam/1" in document["agent.toml"]
    assert any(one["name"] == "runner" and one["is_ok"] for one in document["doctor"])
    assert "outbox.db" in document["files"]


REDACTED = {
    PEM: "[redacted]",
    PEM[:40]: "[redacted]",
    "Authorization: Bearer abcdefgh.ijk": "Authorization: Bearer [redacted]",
    'wifi_psk = "a b\\"c" # x': "wifi_psk = [redacted] # x",
    '{"api-key": "k", "n": 1}': '{"api-key": [redacted], "n": 1}',
    "enrol?token=abc&x=1": "enrol?token=[redacted]&x=1",
    "https://fleet:8443/x": "https://fleet:8443/x",
    "order j1: bundle 12ab is loaded": "order j1: bundle 12ab is loaded",
}


@pytest.mark.parametrize("text", REDACTED)
def test_secrets_are_taken_out_and_nothing_else(text: str) -> None:
    assert redact(text) == REDACTED[text]


def test_the_end_of_a_log_begins_with_a_whole_line(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("first line\nsecond\nthird\n")
    assert tail(tmp_path / "log", 10) == "third\n"
    assert tail(tmp_path / "log", 999).startswith("first")
    assert tail(tmp_path / "none", 10) == ""


def test_a_text_goes_in_pieces_below_100_kb_and_lies_are_refused() -> None:
    text = random.Random(1).randbytes(300_000)
    pieces = split("logs", text)
    assert len(pieces) == 5
    assert max(map(len, pieces)) <= 100_000
    assert join(pieces[::-1]) == text
    for wrong in (pieces[:-1], [*pieces, pieces[0]], [*pieces[:-1], pieces[0]], [b"{}"]):
        with pytest.raises(MessageError):
            join(wrong)
    bomb = split("logs", b"0" * 3_999_999)
    assert len(join(bomb)) == 3_999_999
    swapped = canonical.dumps({**canonical.loads(pieces[0]), "of": 1})
    with pytest.raises(MessageError, match="cut off"):
        join([swapped])


def test_a_lost_connection_is_the_answer(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="before everything was sent"):
        commands(tmp_path, lambda _channel, _payload: False)["logs"]({"id": "1"})


_IMPATIENT = """
import sys, pathlib, edge_agent.app as app, edge_agent.process as process
Echo = app.Echo
app.Echo = lambda: Echo(0.4)
process.run(pathlib.Path(sys.argv[1]), is_quiet=True)
"""


@pytest.mark.broker
def test_a_link_on_which_nothing_comes_back_is_built_anew(bench) -> None:
    """The broker is there and takes what we say; no acknowledgement ever comes."""
    bench.broker.start()
    peer = bench.peer()
    peer.acks = False
    child = subprocess.Popen([sys.executable, "-c", _IMPATIENT, str(bench.data)])
    try:
        until(lambda: {birth.session for birth in peer.births} >= {1, 2}, "a second session")
        peer.acks = True
        until(lambda: peer.acked, "rows arrive over a new link")
    finally:
        child.terminate()
        assert child.wait(60) == 0
    assert "offline: nothing came back from the server" in (bench.data / "logs" / "agent.log").read_text()


def test_patience_doubles_up_to_an_hour_and_falls_back_when_something_is_heard() -> None:
    echo, now, pauses = Echo(100.0), 0.0, []
    for _ in range(8):
        began = now
        while not echo.is_dead(now, waits=True, share=0.0):
            now += 1.0
        pauses.append(now - began)
    assert pauses == [100, 200, 400, 800, 1600, 3200, LONGEST_S, LONGEST_S]
    echo.heard(now)
    assert echo.is_dead(now + 100, waits=True, share=0.0)
    assert not echo.is_dead(now + 9000, waits=False, share=0.0), "nothing waits: silence is peace"
    assert not echo.is_dead(now + 9050, waits=True, share=0.0)
