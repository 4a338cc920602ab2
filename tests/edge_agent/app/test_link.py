# SPDX-License-Identifier: Apache-2.0
"""A real agent, a real runner and a real mosquitto: without a network nothing stops and nothing is lost."""

import os
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.support.agent_process import rows_on_disk, until

pytestmark = pytest.mark.broker


def _is_whole(rows) -> bool:
    """Result numbers follow each other without a gap within each start of the runner."""
    follows = 0
    for body in rows:
        if body["first"] not in (follows, 0):
            return False
        follows = body["first"] + len(body["rows"])
    return follows > 0


def test_rows_wait_offline_and_leave_only_when_the_server_has_committed_them(bench) -> None:
    agent = bench.agent()
    until(lambda: len(rows_on_disk(bench.data, "result")) >= 3, "results on disk without a broker")
    bench.broker.start()
    peer = bench.peer()
    peer.acks = False
    until(lambda: len(peer.of("result")) >= 3, "results at the server")
    kept = rows_on_disk(bench.data, "result")
    assert kept[0] == (1, 1), "nothing may leave on a PUBACK"
    bench.broker.kill()  # what is in flight is lost, with its acks
    bench.broker.start()
    peer = _again(bench, peer)
    until(lambda: not rows_on_disk(bench.data, "result"), "the outbox is empty after the acks")
    bench.broker.kill()
    before = len(peer.of("result"))
    until(lambda: len(rows_on_disk(bench.data, "result")) >= 2, "inference goes on")
    bench.broker.start()
    peer = _again(bench, peer)
    until(lambda: len(peer.of("result")) >= before + 3, "the rest arrives")
    assert agent.stop() == 0
    _complete(bench, peer)


def _again(bench, old):
    """A server that remembers what it has committed, after its broker came back."""
    old.close()
    fresh = bench.peer()
    fresh.rows, fresh.acked = old.rows, old.acked
    return fresh


def _complete(bench, peer) -> None:
    """What the server has and what still waits are together 1, 2, 3, … without a gap."""
    (boot,) = {boot for boot, _ in peer.rows}
    for cls in ("result", "metric", "drift", "event"):
        at_server = set(peer.rows[boot, cls])
        waiting = {seq for _, seq in rows_on_disk(bench.data, cls)}
        assert at_server | waiting == set(range(1, max(at_server | waiting) + 1)), cls
    assert _is_whole(peer.of("result"))


def test_a_killed_agent_leaves_its_rows_to_the_next_start_and_its_runner_ends(bench) -> None:
    agent = bench.agent()
    until(lambda: len(rows_on_disk(bench.data, "result")) >= 2, "results on disk")
    runner = agent.runner_pid()
    agent.kill()
    until(lambda: not Path(f"/proc/{runner}/exe").exists(), "the runner ends when its parent is gone")
    left = len(rows_on_disk(bench.data, "result"))
    bench.broker.start()
    peer = bench.peer()
    bench.agent()
    until(lambda: len({boot for boot, cls in peer.rows if cls == "result"}) == 2, "rows of both starts")
    first = next(boot for boot, cls in peer.rows if cls == "result" and boot != peer.births[-1].boot)
    until(lambda: len(peer.rows[first, "result"]) >= left, "all rows of the first start")
    assert sorted(peer.rows[first, "result"])[:left] == list(range(1, left + 1))


def _running(peer) -> str:
    (model,) = peer.reported.models.values()
    return model.running


def test_the_link_says_birth_death_and_truth(bench) -> None:
    bench.broker.start()
    peer = bench.peer()
    agent = bench.agent()
    until(lambda: peer.births, "birth")
    until(lambda: peer.reported and _running(peer) == bench.bundle, "the running bundle")
    birth = peer.births[-1]
    assert (birth.device, birth.session, birth.runtime) == ("pi", 1, "litert")
    os.kill(agent.child.pid, signal.SIGKILL)
    until(lambda: peer.deaths, "the will")


def test_a_clean_stop_says_goodbye_itself(bench) -> None:
    bench.broker.start()
    peer = bench.peer()
    agent = bench.agent()
    until(lambda: peer.reported, "a report")
    assert agent.stop() == 0
    until(lambda: peer.deaths, "death")
    assert "stopped" in agent.log


def test_a_setting_from_the_server_survives_a_restart_without_network(bench) -> None:
    bench.broker.start()
    peer = bench.peer()
    agent = bench.agent()
    until(lambda: peer.births, "birth")
    peer.want(3, source="second", heartbeat_s=0.5, colour="red")
    until(lambda: peer.reported and peer.reported.config["source"] == "second", "the setting in force")
    assert peer.reported.desired_version == 3
    assert peer.reported.config["ignored"] == {"colour": "unknown setting"}
    until(lambda: any(b["rows"][0][0].startswith("second:") for b in peer.of("result")), "answers from it")
    assert agent.stop() == 0
    bench.broker.kill()
    count = len(rows_on_disk(bench.data, "result"))
    bench.agent()
    until(lambda: len(rows_on_disk(bench.data, "result")) > count + 1, "results after the restart")
    db = sqlite3.connect(bench.data / "outbox.db")
    (body,) = db.execute("SELECT body FROM rows WHERE cls='result' ORDER BY boot DESC, seq DESC LIMIT 1").fetchone()
    db.close()
    assert b'"second:' in body


def test_a_killed_runner_is_started_again_and_counted(bench) -> None:
    bench.broker.start()
    peer = bench.peer()
    agent = bench.agent()
    until(lambda: peer.of("result"), "answers")
    os.kill(agent.runner_pid(), signal.SIGKILL)
    until(lambda: [b for b in peer.of("event") if b["kind"] == "runner_exit"], "the exit is told")
    count = len(peer.of("result"))
    until(lambda: len(peer.of("result")) > count + 1, "answers go on")
    assert agent.child.poll() is None
