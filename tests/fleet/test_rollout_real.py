# SPDX-License-Identifier: Apache-2.0
"""Shadow, canary and production as one plan file: a real server, its broker, and a real agent with a real runtime."""

import json
import shutil

import numpy as np
import pytest

from edge_agent.adapters.enrol import enrol
from edge_contract.errors import RolloutError
from fleet.cli import app
from tests.edge_agent.runner import bundles, tiny
from tests.support.agent_process import AgentProcess, install
from tests.support.fleet_server import FleetProcess, until

pytestmark = pytest.mark.broker

CONFIG = """device = "real"
runtime = "litert"
[network]
reconnect_max_s = 1
[settings]
source = "images"
heartbeat_s = 1
[sources.images]
kind = "replay"
path = "{images}"
rate_hz = 100
loop = true
"""
PLAN = """
model = "{model}"
version = "{version}"
soak_s = 0
timeout_s = 60
channel = "production"
[probation]
inferences = 20
max_latency_ratio = 0
[shadow]
inferences = 50
min_s = 1
timeout_s = 50
max_latency_ratio = 0
[[wave]]
name = "shadow"
kind = "shadow"
query = "device:real"
[[wave]]
name = "production"
rest = true
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None:
        pytest.skip("no mosquitto: apt-get install mosquitto")
    folder = tmp_path_factory.mktemp("shadow")
    made = FleetProcess(folder / "server", folder / "keys").start()
    try:
        made.trust()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def real(server, tmp_path_factory):
    """A real agent that runs 1.0.0; 1.1.0 has its weights, 2.0.0 has others."""
    folder = tmp_path_factory.mktemp("agent")
    for version, seed in (("1.0.0", 2), ("1.1.0", 2), ("2.0.0", 7)):
        server.register(bundles.build(folder / version, seed=seed, version=version))
    np.save(folder / "images.npy", tiny.images(100, seed=3))
    token = server.call("POST", "/tokens", {})["token"]
    enrol(folder / "data", server.endpoints["enrol"], token, "real")
    bundle = install(folder / "data", folder / "1.0.0")
    (folder / "data" / "agent.toml").write_text(CONFIG.format(images=folder / "images.npy"))
    agent = AgentProcess(folder / "data")
    model = bundles.manifest_of(folder / "1.0.0").model
    until(lambda: server.call("GET", "/devices/real")["models"].get(model, {}).get("running") == bundle, "1.0.0 runs")
    yield model
    agent.stop()


@pytest.fixture
def strop(server, capsys):
    """Run ``strop fleet rollout`` and return what it prints."""

    def run(*words):
        capsys.readouterr()
        app(["rollout", *map(str, words), "--data", str(server.data)], standalone_mode=False)
        return capsys.readouterr().out

    return run


def written(tmp_path, model, version):
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.format(model=model, version=version))
    return path


def test_a_candidate_is_tried_beside_the_active_model_and_then_installed(real, server, strop, tmp_path):
    plan = written(tmp_path, real, "1.1.0")
    assert "1     shadow   shadow      1: real" in strop("plan", plan)
    rollout = strop("start", "--plan", plan).split()[1]
    strop("watch", rollout, "--timeout-s", "60")
    found = json.loads(strop("show", rollout, "--json"))
    (trial,) = found["past"]
    assert (trial["kind"], trial["status"]) == ("shadow", "SUCCEEDED")
    assert found["waves"][0]["trial"]["agreement"] == 1.0
    assert found["waves"][0]["trial"]["compared"] >= 50
    assert [wave["state"] for wave in found["waves"]] == ["PASSED", "PASSED"]
    assert "100.0 % of" in strop("show", rollout)
    held = server.call("GET", "/devices/real")["models"][real]
    assert (held["running"], held["version"]) == (found["bundle"], "1.1.0")


def test_a_candidate_that_answers_otherwise_never_becomes_active_and_one_command_goes_back(
    real, server, strop, tmp_path
):
    running = server.call("GET", "/devices/real")["models"][real]["running"]
    rollout = strop("start", "--plan", written(tmp_path, real, "2.0.0")).split()[1]
    with pytest.raises(RolloutError, match=r"ABORTED: real failed: agrees with the active model on"):
        strop("watch", rollout, "--timeout-s", "60")
    assert server.call("GET", "/devices/real")["models"][real]["running"] == running
    first = json.loads(strop("list", "--json"))[-1]["id"]
    assert "ROLLING_BACK" in strop("rollback", first, "--reason", "a wish")
    with pytest.raises(RolloutError, match="ROLLED_BACK: rolled back by operator: a wish"):
        strop("watch", first, "--timeout-s", "60")
    assert server.call("GET", "/devices/real")["models"][real]["version"] == "1.0.0"
