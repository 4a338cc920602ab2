# SPDX-License-Identifier: Apache-2.0
"""A real server with its broker, a registered bundle, and real agents; a test may give one a slow harness."""

import shutil
import sys
import time

import pytest

from edge_agent.adapters.enrol import enrol
from tests.edge_agent.runner import bundles
from tests.support.agent_process import AgentProcess
from tests.support.fleet_server import FleetProcess

CONFIG = """device = "{name}"
runtime = "litert"
model = "compass"
{python}
[network]
reconnect_max_s = 1
[settings]
heartbeat_s = 1
[bench]
{bench}
"""
STAND_IN = """#!{python} -P
import json, os, pathlib, subprocess, sys, time
if "benchmarks.on_device" not in sys.argv:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
job, out, gate = sys.argv[-2], pathlib.Path(sys.argv[-1]), pathlib.Path({gate!r})
child = subprocess.Popen(["sleep", "600"])
(gate / "new").write_text(f"{{os.getpid()}} {{child.pid}} {{job}}")
(gate / "new").rename(gate / "begun")
while not (gate / "go").exists():
    time.sleep(0.05)
times = {{"p50": 2500.0, "p50_ci95": [2400.0, 2600.0]}}
result = {{"schema": "edgebench/1", "status": "valid", "reasons": [], "latency_us": {{"total": times}}}}
result["device"] = {{"board": "stand-in"}}
(out / "result.json").write_text(json.dumps(result))
(out / "samples.bin").write_bytes(b"1234" * 100)
"""
"""The harness as far as the agent sees it: it waits for a file, and leaves a child behind as one that hangs may."""


def until(claim, what, seconds=90):
    """Return the first true value of a function; it is asked a few times a second, for each answer costs both sides."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := claim():
            return value
        time.sleep(0.2)
    raise AssertionError(f"{what} did not come true within {seconds:g} s")


class Device:
    """One real agent in its folder."""

    def __init__(self, server, folder, name, bench="allow = true\nunregistered = true", slow=False):
        self.server, self.name, self.data, self.gate = server, name, folder / name, folder / f"{name}-gate"
        self.gate.mkdir(parents=True)
        python = ""
        if slow:
            script = self.gate / "python"
            script.write_text(STAND_IN.format(python=sys.executable, gate=str(self.gate)))
            script.chmod(0o755)
            python = f'runner_python = "{script}"'
        token = server.call("POST", "/tokens")["token"]
        enrol(self.data, server.endpoints["enrol"], token, name)
        (self.data / "agent.toml").write_text(CONFIG.format(name=name, bench=bench, python=python))
        self.agent = AgentProcess(self.data)

    def online(self):
        until(lambda: self.server.call("GET", f"/devices/{self.name}")["online"], f"{self.name}'s birth")
        return self

    def begun(self):
        """Wait for the stand-in; return the ids of its processes."""
        until((self.gate / "begun").exists, "the measurement's begin", 90)
        words = (self.gate / "begun").read_text()
        (self.gate / "begun").unlink()
        return [int(word) for word in words.split()[:2]]

    def release(self):
        """Let the stand-in end with a result; the next one waits again."""
        (self.gate / "go").touch()
        until(lambda: not list((self.data / "bench").glob("*/job.json")), "the measurement's end")
        for name in ("go", "begun"):
            (self.gate / name).unlink(missing_ok=True)

    def again(self):
        """Start the agent once more."""
        self.agent = AgentProcess(self.data)
        return self

    def close(self):
        if self.agent.child.poll() is None:
            self.agent.stop()


@pytest.fixture(scope="package")
def fleet(tmp_path_factory):
    """A server with a trust root and two registered versions of a real bundle."""
    if shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None:
        pytest.skip("no mosquitto: apt-get install mosquitto")
    folder = tmp_path_factory.mktemp("bench")
    made = FleetProcess(folder / "server", folder / "keys").start()
    try:
        made.trust()
        made.bundle = bundles.build(folder / "v1", profile=True)
        made.version = made.register(made.bundle)
        yield made
    finally:
        made.close()


@pytest.fixture
def device(fleet, tmp_path):
    """A function that enrols and starts a real agent; all of them end with the test."""
    made = []

    def start(name, **more):
        made.append(Device(fleet, tmp_path, name, **more))
        return made[-1].online()

    yield start
    for one in made:
        one.close()
        fleet.send("DELETE", f"/api/v1/devices/{one.name}")


@pytest.fixture(scope="package")
def closed(fleet, tmp_path_factory):
    """A real agent whose owner has not allowed benchmarks."""
    made = Device(fleet, tmp_path_factory.mktemp("closed"), "closed", bench="allow = false").online()
    yield made
    made.close()


@pytest.fixture
def ended(fleet):
    """A function that waits for the end of a benchmark and returns it."""

    def wait(run, seconds=120):
        def claim():
            found = fleet.call("GET", f"/benchmarks/{run}")
            return None if found["is_open"] else found

        return until(claim, f"the end of {run}", seconds)

    return wait
