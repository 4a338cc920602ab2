# SPDX-License-Identifier: Apache-2.0
"""First boots against a real fleet server: enrolment, birth, used tokens, copied cards; all by real processes."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.adapters import binding
from edge_contract.errors import BrokerError
from fleet.adapters.broker import find_mosquitto
from tests.support.fleet_server import FleetProcess, until


def has_mosquitto() -> bool:
    with contextlib.suppress(BrokerError):
        return bool(find_mosquitto())
    return False


pytestmark = pytest.mark.skipif(not has_mosquitto(), reason="no mosquitto: apt-get install mosquitto")
CONFIG = """device = "{name}"
runtime = "litert"
[settings]
source = "frames"
heartbeat_s = 1
[network]
reconnect_max_s = 1
[sources.frames]
kind = "replay"
path = "{images}"
rate_hz = 20
loop = true
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[FleetProcess]:
    folder = tmp_path_factory.mktemp("fleet")
    found = FleetProcess(folder / "fleet", folder / "keys").start()
    found.trust()
    yield found
    found.close()


@pytest.fixture
def enrolled(server, boards, tmp_path, images):
    """Make boards with a card for the server."""

    def make(name: str, token: str = "", **wishes):
        found = token or server.call("POST", "/tokens")["token"]
        (tmp_path / f"{name}.token").write_text(found + "\n")
        (tmp_path / f"{name}.toml").write_text(CONFIG.format(name=name, images=images))
        given = {"token": tmp_path / f"{name}.token", "agent_toml": tmp_path / f"{name}.toml", "model": "digits"}
        ca = Path(server.data / "ca" / "ca.crt")
        return boards(name, device=name, server=server.endpoints["enrol"], ca=ca, **{**given, **wishes})

    return make


def inferences(board) -> int:
    done = subprocess.run(
        [board.python, "-P", "-m", "strop", "agent", "status", "--data", board.data, "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return int(json.loads(done.stdout)["inferences"]) if done.returncode == 0 else 0


def board_of(server, name: str):
    return next((found for found in server.call("GET", "/devices") if found["device"] == name), None)


def test_cards_bring_boards_into_the_fleet_and_copies_and_used_tokens_do_not(server, enrolled, tmp_path):
    """One card that comes up; a copy of it in another board; a second card with the same token, then with others."""
    board = enrolled("pi-a")
    token = (board.boot / "strop/token").read_text().strip()
    done = board.first_boot()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "factory: compass 1.0.0: golden exact, xnnpack" in done.stdout
    assert "birth: the agent is online" in done.stdout
    assert token not in done.stdout + done.stderr + (board.memory / "journal.json").read_text()
    assert not (board.boot / "strop/token").exists()
    assert "token was overwritten and removed" in done.stdout
    assert until(lambda: board_of(server, "pi-a"), "pi-a in the fleet")
    assert binding.bound_to(board.data / "identity") == binding.read_board(board.root)
    again = board.first_boot()
    assert (again.returncode, again.stdout) == (0, "strop: pi-a is set up\n")

    copied = board.copy(tmp_path / "copy")
    board.stop_agent()
    copied.be()
    copied_boot = copied.first_boot()
    assert copied_boot.returncode == 1
    assert "this card was begun on another board" in copied_boot.stdout
    assert "was put aside as identity.quarantined-1" in copied_boot.stdout
    assert "there is no token on this card; 'strop fleet enrol new' makes one" in copied_boot.stdout
    assert (copied.data / "identity.quarantined-1/device.key").exists()
    assert not (copied.data / "identity").exists()
    copied.stop_agent()

    second = enrolled("pi-c", token)
    refused = second.first_boot()
    assert refused.returncode == 1
    (line,) = [line for line in refused.stdout.splitlines() if "already used" in line]
    assert "already used by device 'pi-a'" in line
    assert line.endswith("The factory model goes on")
    assert token not in refused.stdout + refused.stderr
    assert (second.status["step"], second.status["state"]) == ("enrol", "failed")
    assert not (second.data / "identity").exists()
    assert until(lambda: inferences(second), "answers without a server") > 0
    (second.boot / "strop/token").write_text(server.call("POST", "/tokens", {"ttl_s": 0.001})["token"])
    assert "expired" in second.first_boot().stdout
    (second.boot / "strop/token").write_text(server.call("POST", "/tokens")["token"])
    assert second.first_boot().returncode == 0
    assert until(lambda: board_of(server, "pi-c"), "pi-c in the fleet")
