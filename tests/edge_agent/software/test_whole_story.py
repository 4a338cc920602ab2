# SPDX-License-Identifier: Apache-2.0
"""The whole way with nothing that stands in for anything: wheels of two versions, signed on the workstation, registered
at a real fleet server, rolled out to a real device that was installed by pip, over mTLS and TUF.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_contract.errors import BrokerError
from edge_contract.messages import SOFTWARE
from export.software import release
from export.software.wheels import read_all
from fleet.adapters.broker import find_mosquitto
from tests.edge_agent.software import fakes, repack
from tests.edge_agent.software.conftest import Service
from tests.support.fleet_server import FleetProcess, until


def has_mosquitto() -> bool:
    with contextlib.suppress(BrokerError):
        return bool(find_mosquitto())
    return False


pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not has_mosquitto(), reason="no mosquitto: apt-get install mosquitto"),
]
LONG_S = 300.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FleetProcess]:
    found = FleetProcess(tmp_path / "fleet", tmp_path / "keys").start()
    found.trust()
    yield found
    found.close()


def install(folder: Path, house: Path) -> Path:
    """Install the device's software as a person does; return its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    words = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index"]
    what = ["--find-links", str(house), "strop[agent,agent-litert]==0.1.0", "pip"]
    subprocess.run([*words, *what], check=True)
    return python


def test_a_fleet_updates_the_agent_of_a_device_from_one_real_wheel_to_the_next(
    server: FleetProcess, tmp_path: Path
) -> None:
    repack.everything(tmp_path / "house", "agent", "agent-litert")
    repack.pack(repack.metadata.distribution("pip"), tmp_path / "house")
    repack.ours(tmp_path, "0.1.0")
    python = install(tmp_path / "opt", tmp_path / "house")
    next((tmp_path / "house").glob("strop-0.1.0*")).unlink()
    repack.ours(tmp_path, "0.2.0")
    made = release.plan(read_all(tmp_path / "house"), [fakes.KIND], version="0.2.0")
    folder = tmp_path / "release"
    bundle = release.write(made, folder)
    registered = server.register(folder)
    assert (registered["model"], registered["version"]) == (SOFTWARE, "0.2.0")

    data, token = tmp_path / "data", tmp_path / "token"
    token.write_text(server.call("POST", "/tokens")["token"])
    enrol = [str(python.with_name("strop")), "agent", "enrol", "--data", str(data), "--device", "pi"]
    subprocess.run([*enrol, "--server", server.endpoints["enrol"], "--token-file", str(token)], check=True)
    service = Service(python, data)
    try:
        device = until(lambda: _device(server), "the device's report", LONG_S)
        assert device["agent_version"] == "0.1.0"
        wanted = {"model": SOFTWARE, "bundle": bundle, "waves": [{"rest": True}], "probation": TRIAL, "soak_s": 1}
        rollout = server.call("POST", "/rollouts", wanted)["id"]
        ended = until(lambda: _ended(server, rollout), "the rollout's end", LONG_S)
        assert ended["state"] == "COMPLETED", ended
        until(lambda: (_device(server) or {}).get("agent_version") == "0.2.0", "the new version's report", LONG_S)
        assert service.codes == []
    finally:
        service.close()


TRIAL = {"inferences": 1, "timeout_s": 40.0}


def _device(server: FleetProcess) -> dict[str, object] | None:
    answer = server.send("GET", "/api/v1/devices/pi")
    found = answer.json() if answer.is_success else {}
    return found if found.get("agent_version") else None


def _ended(server: FleetProcess, rollout: str) -> dict[str, object] | None:
    found = server.call("GET", f"/rollouts/{rollout}")
    return found if found["state"] in ("COMPLETED", "ABORTED", "PAUSED", "ROLLED_BACK") else None
