# SPDX-License-Identifier: Apache-2.0
"""From a published image to a device in the fleet: flashed, verified, booted, enrolled, updated, rolled back.

An emulated board with Debian's system for ARM64 (``make test-boot``, about half an hour on two cores). Its first boot
begins without a server and loses its power again and again; an update loses it, too. How long things take is printed:
times of an emulated board are no claim about a real one.
"""

import json
import random
import socket
import sys
import time
from contextlib import ExitStack

import pytest

from edge_contract.manifest import MANIFEST_NAME, Manifest
from strop import cli
from tests.fleet.flash.boot import base
from tests.fleet.flash.boot.machine import Board
from tests.machines import board
from tests.machines.unpacked import ROOT
from tests.support.fleet_server import FleetProcess

pytestmark = [
    pytest.mark.boot,
    pytest.mark.timeout(5400),
    pytest.mark.skipif(bool(board.missing()), reason=board.missing() or "a board is here"),
]
NAME, HOST = "cam-7", "10.0.2.2"
BOUND_S = 600
"""Within so many seconds of emulated time on a quiet machine the first boot is to be done; under load, thrice."""
AGENT = """device = "{name}"
model = "{model}"
runtime = "litert"
[network]
reconnect_max_s = 5
[settings]
source = "golden"
heartbeat_s = 5
[sources.golden]
kind = "replay"
path = "/var/lib/strop/models/{model}/factory/golden/inputs.npy"
rate_hz = 20
loop = true
"""
PLAN = {"inferences": 40, "timeout_s": 600.0, "max_latency_ratio": 0.0}


def free_ports(count):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def strop(*words):
    with pytest.raises(SystemExit) as left:
        cli.main([str(word) for word in words])
    assert left.value.code == 0, words


class Story:
    """Server, board and clock of one run."""

    def __init__(self, folder):
        self.folder, self.begun = folder, time.monotonic()
        ports = zip(("http", "device", "enrol", "mqtt"), free_ports(4), strict=True)
        self.words = ["--public-host", HOST, *(word for name, port in ports for word in (f"--{name}-port", str(port)))]
        self.server = FleetProcess(folder / "server", folder / "keys").start(*self.words)
        self.server.trust()
        self.board = Board(folder / "card.img", folder / "console.txt")

    def told(self, words):
        print(f"{time.monotonic() - self.begun:7.0f} s  {words}", file=sys.stderr, flush=True)

    def until(self, claim, what, seconds=3 * BOUND_S):
        """Wait for a claim while the board runs; restarts that it asks for are made."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.board.turn()
            found = claim()
            if found:
                self.told(what)
                return found
            time.sleep(1.0)
        raise AssertionError(f"{what}: not in {seconds} s; the board's last words:\n{self.board.said()[-4000:]}")

    def device(self):
        answer = self.server.send("GET", f"/api/v1/devices/{NAME}")
        return answer.json() if answer.is_success else {}

    def runs(self, model, bundle):
        found = self.device()
        return found.get("online") and found["models"].get(model, {}).get("running") == bundle

    def close(self):
        self.board.cut()
        self.server.close()


@pytest.fixture
def story(tmp_path):
    made = Story(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="session")
def wheelhouse():
    """Wheels for the board's Python, kept between runs."""
    folder = ROOT / "build" / "board-wheelhouse"
    strop("flash", "wheelhouse", "--python", "3.11", "--arch", "aarch64", "--runtime", "litert", "--out", folder)
    return folder


def test_a_card_becomes_a_device_that_is_updated_and_rolled_back(story, wheelhouse, tmp_path, capsys):
    from tests.edge_agent.runner import bundles

    server, chance = story.server, random.Random(20261121)
    versions = {}
    for version, seed in (("1.0.0", 2), ("1.1.0", 2), ("1.2.0", 2)):
        folder = bundles.build(tmp_path / version, seed=seed, version=version)
        manifest = Manifest.from_bytes((folder / MANIFEST_NAME).read_bytes())
        versions[version], model = manifest.bundle_id, manifest.model
        if version != "1.0.0":
            server.register(folder)
    server.register(tmp_path / "1.0.0")
    (tmp_path / "agent.toml").write_text(AGENT.format(name=NAME, model=model))
    with capsys.disabled():
        strop("fleet", "enrol", "new", "--name", NAME, "--out", tmp_path / "token.csv", "--data", server.data)
    token = (tmp_path / "token.csv").read_text().splitlines()[1].rsplit(",", 1)[1]
    (tmp_path / "token").write_text(f"{token}\n")

    image = base.build(tmp_path / "published")
    strop(
        "flash", "image", image, "--out", story.board.card, "--hostname", NAME, "--server", server.endpoints["enrol"],
        "--token-file", tmp_path / "token", "--wheelhouse", wheelhouse, "--factory", tmp_path / "1.0.0",
        "--agent-toml", tmp_path / "agent.toml",
    )  # fmt: skip
    capsys.readouterr()
    strop("flash", "verify", story.board.card)
    verified = capsys.readouterr().out
    assert NAME in verified
    assert "firstrun" in verified
    assert token not in verified

    server.stop()  # nobody answers while the board sets itself up
    story.board.on()
    for cut in range(4):
        story.until(lambda: len(story.board.said()) > 400 * (cut + 1), f"start {story.board.starts}: it speaks", 900)
        time.sleep(chance.uniform(5, 60))
        story.board.turn()
        story.board.cut()
        story.told(f"power cut {cut + 1}")
        story.board.on()
    story.board.until_said(r"factory: done: .*golden same", 3 * BOUND_S)
    story.told("the factory model answers, without a server")
    story.board.until_said(r"enrol: waiting", 3 * BOUND_S)
    assert not (server.data / "endpoints.json").exists() or server.process.poll() is not None
    server.start(*story.words)
    story.until(lambda: story.runs(model, versions["1.0.0"]), "it is enrolled, and runs the factory model")
    story.board.until_said(r"token: done: .*removed", BOUND_S)
    page = server.send("GET", f"/devices/{NAME}").text
    assert NAME in page
    assert "1.0.0" in page

    order = {"model": model, "waves": [{"rest": True}], "soak_s": 0.0, "timeout_s": 1500.0, "probation": PLAN}
    first = server.call("POST", "/rollouts", {**order, "bundle": versions["1.1.0"]})["id"]
    story.until(lambda: story.runs(model, versions["1.1.0"]), "1.1.0 runs")
    story.until(lambda: server.call("GET", f"/rollouts/{first}")["state"] == "COMPLETED", "the rollout is COMPLETED")

    second = server.call("POST", "/rollouts", {**order, "bundle": versions["1.2.0"]})["id"]
    under_way = ("downloading", "verifying", "staged", "activating", "health_check")
    story.until(lambda: any(word in json.dumps(story.device()) for word in under_way), "1.2.0 is under way")
    story.board.cut()
    story.told("power cut in the middle of the update")
    story.board.on()
    story.until(lambda: story.runs(model, versions["1.2.0"]), "1.2.0 runs after all")
    story.until(lambda: server.call("GET", f"/rollouts/{second}")["state"] == "COMPLETED", "and is COMPLETED")

    server.call("POST", f"/rollouts/{second}/rollback", {"reason": "a wish"})
    story.until(lambda: server.call("GET", f"/rollouts/{second}")["state"] == "ROLLED_BACK", "rolled back")
    assert story.runs(model, versions["1.1.0"])
    story.board.cut()
    listing = base.run("mdir", "-b", "-i", f"{story.board.card}@@{base.BOOT_AT}", "::strop")
    assert "plan.json" in listing
    assert "token" not in listing.lower()
