# SPDX-License-Identifier: Apache-2.0
"""Benchmarks end to end: a real server, its broker and a real agent; the harness is a stand-in that takes its time."""

import hashlib
import json
from pathlib import Path

import pytest

from fleet.cli import app
from tests.fleet.bench.conftest import Device, until

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def slow(fleet, tmp_path_factory):
    """A real agent whose harness waits until a test lets it go on."""
    made = Device(fleet, tmp_path_factory.mktemp("agents"), "slow-1", slow=True).online()
    yield made
    made.close()


@pytest.fixture
def strop(fleet, capsys):
    """Run ``strop fleet`` and return what it prints."""

    def run(*words):
        capsys.readouterr()
        app([*map(str, words), "--data", str(fleet.data)], standalone_mode=False)
        return capsys.readouterr().out

    return run


def alive(pid):
    """True while a process runs; one that waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def uploaded(fleet, path):
    """Upload a file as a search does; return it as a request names it."""
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    fleet.call("PUT", f"/blobs/{sha256}", content=data)
    return {"name": path.name, "sha256": sha256, "size": len(data)}


def test_a_withdrawn_benchmark_stops_and_the_next_one_gets_its_turn(fleet, slow, strop, ended, tmp_path):
    model = tmp_path / "candidate.tflite"
    model.write_bytes(b"no model at all")
    document = {"model": {"files": [uploaded(fleet, model)]}, "query": "device:slow-1", "plan": {"runs": 5}}
    first, second = (fleet.call("POST", "/benchmarks", document)["id"] for _ in range(2))
    pids = slow.begun()
    assert (slow.data / "bench" / f"{first}-0" / "files" / "candidate.tflite").read_bytes() == model.read_bytes()
    assert fleet.call("GET", f"/benchmarks/{second}")["jobs"][0]["state"] == "queued"
    assert "1 devices are told to stop" in strop("bench", "cancel", first)
    assert ended(first)["jobs"][0]["state"] == "cancelled"
    assert not any(map(alive, pids))
    slow.begun()
    slow.release()
    assert ended(second)["jobs"][0]["state"] == "done"
    actions = [one["action"] for one in fleet.call("GET", "/audit")["entries"]]
    assert {"bench.start", "bench.cancel"} <= set(actions)


def test_an_agent_that_is_killed_in_the_middle_comes_back_and_says_so(fleet, slow, ended):
    run = fleet.call("POST", "/benchmarks", {"model": {"name": "compass"}, "query": "device:slow-1"})["id"]
    pids = slow.begun()
    until(lambda: fleet.call("GET", f"/benchmarks/{run}")["jobs"][0]["state"] == "measuring", "its word")
    slow.agent.kill()
    until(lambda: not any(map(alive, pids)), "the end of its processes")
    slow.again()
    found = ended(run)["jobs"][0]
    assert (found["state"], found["files"]) == ("failed", [])
    assert found["why"] == "the agent ended while it measured; nothing is known of the result"
    until(lambda: [path.name for path in (slow.data / "bench").iterdir()] == ["seen.json"], "an empty scratch folder")


def test_a_device_whose_owner_did_not_allow_it_refuses(fleet, closed, ended):
    run = fleet.call("POST", "/benchmarks", {"model": {"name": "compass"}, "query": "device:closed"})["id"]
    found = ended(run)["jobs"][0]
    assert found["state"] == "refused"
    assert "not allowed on this device" in found["why"]


def test_an_order_waits_while_a_benchmark_measures_and_its_result_comes_back(fleet, slow, strop, ended, tmp_path):
    run = json.loads(strop("bench", "start", "compass:1.0.0", "--on", "device:slow-1", "--json"))["id"]
    pids = slow.begun()
    until(lambda: fleet.call("GET", f"/benchmarks/{run}")["jobs"][0]["state"] == "measuring", "its word")
    order = json.loads(strop("rollout", "start", "compass", "1.0.0", "--wave", "slow-1", "--json"))["id"]
    words = f"benchmark {run}-0 measures, and nothing may disturb it"
    until(lambda: words in fleet.send("GET", f"/api/v1/rollouts/{order}").text, "the order's wait")
    job = json.loads((slow.data / "bench" / f"{run}-0" / "job.json").read_text())
    assert job["bundle_digest"] == fleet.version["bundle"]
    assert (job["runtime"], Path(job["artefact"]).name) == ("litert", "model.tflite")
    slow.release()
    found = ended(run)["jobs"][0]
    assert (found["state"], found["files"]) == ("done", ["result.json", "samples.bin"])
    assert found["facts"]["summary"]["p50_ms"] == 2.5
    assert not any(map(alive, pids))
    until(lambda: words not in fleet.send("GET", f"/api/v1/rollouts/{order}").text, "the end of its wait")
    assert "2.4 to 2.6" in strop("bench", "show", run)
    assert run in strop("bench", "list")
    strop("bench", "results", run, "--out", tmp_path / "out")
    assert (tmp_path / "out" / "slow-1" / "samples.bin").read_bytes() == b"1234" * 100
    until(lambda: [path.name for path in (slow.data / "bench").iterdir()] == ["seen.json"], "an empty scratch folder")
    page = fleet.send("GET", "/devices/slow-1").text
    assert "stand-in" in page
