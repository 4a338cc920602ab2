# SPDX-License-Identifier: Apache-2.0
"""Commands to devices without a network: answers in any order, strangers, replays, silence, bounds."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_contract import canonical, log_chunks
from edge_contract.errors import MessageError, UsageError
from fleet.adapters import device_commands
from fleet.core.commands import MAX_PIECES, NUDGE, read_answer


def ask(bureau, device="pi", kind="logs", **document):
    return bureau.operations.commands.ask(device, kind, document, "op")


def answer(bureau, command, device="pi", *, kind="", **body):
    payload = canonical.dumps({"v": 1, "ok": True, **body})
    bureau.hear(device, f"cmd/{kind or command.kind}/{command.id}/result", payload)


def show(bureau, command):
    return bureau.operations.commands.show(command.device, command.id)


def test_pieces_and_answer_may_come_in_any_order_and_twice(bureau):
    bureau.enrolled("pi")
    text = "\n".join(str(i) for i in range(60_000)).encode()
    pieces = log_chunks.split("logs", text)
    assert len(pieces) > 1
    command = ask(bureau, lines=50)
    assert bureau.messages(f"cmd/logs/{command.id}") == [b'{"kb":8,"v":1}']
    assert not next(m for m in bureau.sent if "/cmd/" in m.topic).retain
    bureau.hear("pi", f"log/{command.id}", pieces[-1])
    answer(bureau, command, parts=len(pieces), bytes=len(text))
    assert (show(bureau, command)["state"], show(bureau, command)["complete"]) == ("done", False)
    for piece in [*pieces[:-1], *pieces]:
        bureau.hear("pi", f"log/{command.id}", piece)
    found = show(bureau, command)
    assert (found["complete"], found["size"]) == (True, sum(map(len, pieces)))
    assert bureau.operations.commands.text("pi", command.id) == text.decode()
    assert bureau.dead_letters() == []
    assert bureau.audited("device.command") == [("pi", {"id": command.id, "kind": "logs"})]


def test_a_ping_tells_the_round_trip_and_the_clock(desk):
    desk.enrolled("pi")
    command = ask(desk, kind="ping")
    desk.now += 0.25
    answer(desk, command, echo=command.id, time=desk.now + 10)
    found = show(desk, command)
    assert found["round_trip_s"] == pytest.approx(0.25, abs=1e-6)
    assert found["clock_ahead_s"] == pytest.approx(10.125, abs=1e-6)
    first = found["answered_at"]
    desk.now += 5
    answer(desk, command, echo="late", time=0)  # a replay changes nothing
    assert show(desk, command)["answered_at"] == first


def test_silence_is_told_in_words(desk):
    desk.enrolled("pi")
    command = ask(desk, kind="ping")
    assert "never been heard of" in show(desk, command)["why"]
    desk.birth("pi")
    desk.report("pi")
    desk.now += 20
    found = show(desk, command)
    assert found["state"] == "timed out"
    assert "gave no answer within 20 s, though it is online" in found["why"]
    desk.now += 100
    assert "it is offline, last heard of 120 s ago" in show(desk, command)["why"]
    answer(desk, command)
    assert show(desk, command)["state"] == "done"  # late is better than never


def test_a_refusal_is_the_devices_own_word(desk):
    desk.enrolled("pi")
    command = ask(desk)
    answer(desk, command, ok=False, error="unknown command 'logs'; this agent knows ping")
    found = show(desk, command)
    assert (found["state"], found["why"]) == ("failed", "unknown command 'logs'; this agent knows ping")
    with pytest.raises(UsageError, match="brought no text"):
        desk.operations.commands.text("pi", command.id)


HOSTILE = {
    "nobody asked": ("log/k0", log_chunks.split("logs", b"x")[0], "nobody asked 'k0' of this device"),
    "no answer": ("cmd/logs/k0/result", b'{"v":1}', "does not say whether it is ok"),
    "an answer to nothing": ("cmd/logs/k0/result", b'{"v":1,"ok":true}', "nobody asked"),
    "no JSON": ("cmd/logs/k0/result", b"\xff", "not JSON"),
    "a novel": ("cmd/logs/k0/result", b'{"v":1,"ok":true,"x":"' + b"x" * 30_000 + b'"}', "bytes of answer"),
    "no piece": ("log/k0", b'{"v":1}', "log"),
    "beyond the end": ("log/k0", canonical.dumps({"v": 1, "part": 3, "of": 2, "data": "eA=="}), "piece 3 of 2"),
    "endless": ("log/k0", canonical.dumps({"v": 1, "part": 1, "of": MAX_PIECES + 1, "data": "eA=="}), "too much"),
    "SQL": ("log/x", canonical.dumps({"v": 1, "part": 1, "of": 1, "data": "'); DROP TABLE commands; --"}), "nobody"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_nobody_asked_for_is_a_dead_letter(desk, case):
    channel, payload, what = HOSTILE[case]
    desk.enrolled("pi")
    desk.hear("pi", channel, payload)
    (reason,) = desk.dead_letters()
    assert what in reason
    assert desk.operations.commands.listed("pi") == []


def test_a_device_answers_for_itself_only_and_to_what_it_was_asked(desk):
    desk.enrolled("pi", "spy")
    command = ask(desk)
    answer(desk, command, "spy", parts=1)
    desk.hear("spy", f"log/{command.id}", log_chunks.split("logs", b"forged")[0])
    answer(desk, command, kind="diagnostics")
    assert show(desk, command)["state"] == "waiting"
    assert len(desk.dead_letters()) == 3
    with pytest.raises(UsageError, match="was not asked"):
        desk.operations.commands.show("spy", command.id)
    before = len(desk.dead_letters())
    desk.ingest.handle(f"strop/v1/foreign/pi/cmd/logs/{command.id}/result", b'{"v":1,"ok":true}').exception()
    assert desk.dead_letters()[before:] == [f"strop/v1/foreign/pi/cmd/logs/{command.id}/result: is of another tenant"]
    assert show(desk, command)["state"] == "waiting"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PIECES = st.fixed_dictionaries({}, optional=dict.fromkeys(("v", "ok", "part", "of", "data", "kind", "parts"), JSON))


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=60), PIECES.map(lambda one: json.dumps(one).encode())))
def test_any_bytes_are_an_answer_or_a_message_error(payload):
    for read in (read_answer, log_chunks.place):
        with contextlib.suppress(MessageError):
            read(payload)
    with contextlib.suppress(MessageError):
        log_chunks.join([payload])


def test_a_piece_that_is_no_base64_is_a_message_error():
    payload = canonical.dumps({"v": 1, "part": 1, "of": 1, "data": "ä"})
    with pytest.raises(MessageError, match="base64"):
        log_chunks.join([payload])


def test_a_text_whose_pieces_lie_is_not_given_out(desk):
    desk.enrolled("pi")
    command = ask(desk)
    bomb = canonical.dumps({"v": 1, "kind": "logs", "part": 1, "of": 1, "data": "AAAA", "form": "zlib"})
    desk.hear("pi", f"log/{command.id}", bomb)
    with pytest.raises(Exception, match="cannot be unpacked"):
        desk.operations.commands.text("pi", command.id)


def test_what_waits_is_said_again_when_the_device_connects(desk):
    desk.enrolled("pi")
    waits, done, old = ask(desk), ask(desk, kind="ping"), ask(desk, kind="ping")
    answer(desk, done, time=desk.now)
    desk.now += 100
    desk.birth("pi")
    assert len(desk.messages(f"cmd/logs/{waits.id}")) == 2
    assert len(desk.messages(f"cmd/ping/{done.id}")) == len(desk.messages(f"cmd/ping/{old.id}")) == 1


def test_the_oldest_commands_make_room(desk, monkeypatch):
    desk.enrolled("pi", "other")
    commands = [ask(desk, kind="ping") for _ in range(device_commands.KEPT_OF_A_DEVICE + 3) if not advance(desk)]
    kept = {one["id"] for one in desk.operations.commands.listed("pi")}
    assert kept == {one.id for one in commands[-device_commands.KEPT_OF_A_DEVICE :]}
    monkeypatch.setattr(device_commands, "KEPT_BYTES", 10)
    last = ask(desk, "other")
    desk.hear("other", f"log/{last.id}", log_chunks.split("logs", b"x" * 100)[0])
    monkeypatch.setattr(device_commands, "KEPT", 10)
    ask(desk, "other", kind="ping")
    assert len(desk.operations.commands.listed("pi")) < len(kept)


def advance(desk):
    desk.now += 0.01


def test_unknown_kinds_and_devices_are_refused(desk):
    desk.enrolled("pi")
    with pytest.raises(UsageError, match="unknown command 'reboot'"):
        ask(desk, kind="reboot")
    with pytest.raises(UsageError, match="not enrolled"):
        ask(desk, "nobody")
    for lines in (0, -1, "x", True, 1.5):
        with pytest.raises(UsageError, match="lines"):
            ask(desk, lines=lines)


def test_devices_of_a_campaign_are_told_at_once_and_when_they_connect(desk):
    desk.enrolled("pi", "other")
    document = {"devices": ["pi"], "policy": {"random": 1.0}, "hours": 1}
    campaign = desk.operations.captures.start(document, "op")
    channel = f"cmd/{NUDGE}/{campaign.id}"
    assert len(desk.messages(channel, "pi")) == 1
    assert desk.messages(channel, "other") == []
    desk.birth("pi")
    desk.birth("other")
    assert len(desk.messages(channel, "pi")) == 2
    # An agent of the version before does not know the command: harmless, and no dead letter.
    desk.hear("pi", f"{channel}/result", b'{"v":1,"ok":false,"error":"unknown command"}')
    assert desk.dead_letters() == []
    desk.operations.captures.stop(campaign.id, "op")
    assert len(desk.messages(channel, "pi")) == 3
    desk.birth("pi")
    assert len(desk.messages(channel, "pi")) == 3
