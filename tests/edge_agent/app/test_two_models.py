# SPDX-License-Identifier: Apache-2.0
"""A real agent with two models and two runners: one is killed, one takes too much, and the other never notices."""

import os
import shutil
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from edge_contract.manifest import MANIFEST_NAME, Manifest
from tests.support.agent_process import _children, install, until

pytestmark = pytest.mark.broker


def another(bench, folder: Path) -> str:
    """Install the same network as the bundle of another model."""
    copy = folder / "faces"
    shutil.copytree(bench.data / "models" / "compass" / "slots" / bench.bundle, copy)
    manifest = Manifest.from_bytes((copy / MANIFEST_NAME).read_bytes())
    (copy / MANIFEST_NAME).write_bytes(replace(manifest, model="faces").to_bytes())
    return install(bench.data, copy)


def runner_of(agent, model: str) -> int:
    """Process id of a model's runner: it is told its counters file."""

    def find() -> int:
        for pid in _children(agent.child.pid):
            if f"counters-{model}.bin" in Path(f"/proc/{pid}/cmdline").read_text():
                return int(pid)
        return 0

    return int(until(find, f"a runner for {model}"))


def answers(peer, bundle: str) -> list[dict]:
    return [body for body in peer.of("result") if body["bundle"] == bundle]


def test_a_killed_or_greedy_runner_costs_its_own_model_alone(bench, tmp_path) -> None:
    faces = another(bench, tmp_path)
    path = bench.data / "agent.toml"
    tables = '[models.compass]\n[models.faces]\nsource = "second"\n[models.greedy]\nmemory_mb = 1\n'
    path.write_text(path.read_text() + tables)
    bench.broker.start()
    peer, agent = bench.peer(), bench.agent()
    until(lambda: answers(peer, bench.bundle) and answers(peer, faces), "answers of both models")
    compass, killed = runner_of(agent, "compass"), runner_of(agent, "faces")
    assert Path(f"/proc/{killed}/oom_score_adj").read_text().strip() == "500"
    os.kill(killed, signal.SIGKILL)
    until(
        lambda: any(e["kind"] == "runner_exit" and e["model"] == "faces" for e in peer.of("event")), "the exit is told"
    )
    before = len(answers(peer, faces))
    until(lambda: len(answers(peer, faces)) > before + 1, "faces answers again")
    told = until(
        lambda: [e for e in peer.of("event") if e.get("model") == "greedy" and e["kind"] == "log"], "the limit"
    )
    assert "its limit is 1000 kB" in told[0]["reason"]
    assert runner_of(agent, "compass") == compass, "it was never restarted"
    numbers = [(body["first"], len(body["rows"])) for body in answers(peer, bench.bundle)]
    assert all(a + n == b for (a, n), (b, _) in pairwise(numbers)), "and lost no answer"
    assert set(peer.reported.models) == {"compass", "faces", "greedy"}
    assert peer.reported.models["faces"].running == faces
    assert {body["model"] for body in peer.of("metric")} == {"compass", "faces", "greedy"}
    assert agent.stop() == 0
