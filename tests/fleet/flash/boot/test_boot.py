# SPDX-License-Identifier: Apache-2.0
"""From a published image to a device in the fleet: flashed, verified, booted, enrolled, updated, rolled back.

Emulated boards with Debian's system for ARM64 (``make test-boot``, about half an hour on two quiet cores): a story
from the card to the rollback, with a power cut in the middle of an update and a copied card at its end; a first boot
that loses its power again and again, without a server at first; a Raspberry Pi 3 without a network. How long things
take is printed: times of an emulated board are no claim about a real one.
"""

import random
import socket
import sys
import time
from contextlib import ExitStack

import pytest

from edge_contract.manifest import MANIFEST_NAME, Manifest
from strop import cli
from tests.edge_agent.runner import bundles
from tests.fleet.flash.boot import base
from tests.fleet.flash.boot.machine import PI_3, Board
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
        self.model, self.versions = "", dict[str, str]()

    def told(self, words):
        print(f"{time.monotonic() - self.begun:7.0f} s  {words}", file=sys.stderr, flush=True)
        return time.monotonic()

    def heard(self, pattern, what, seconds=3 * BOUND_S, after=0):
        """Wait for words on the serial line; return when that was."""
        self.board.until_said(pattern, seconds, after)
        return self.told(what)

    def bundles(self):
        """Make the versions, all of one model; every one is registered with the server."""
        for version in ("1.0.0", "1.1.0", "1.2.0"):
            folder = bundles.build(self.folder / version, version=version)
            manifest = Manifest.from_bytes((folder / MANIFEST_NAME).read_bytes())
            self.versions[version], self.model = manifest.bundle_id, manifest.model
            self.server.register(folder)

    def flash(self, wheelhouse):
        """Make the card as a person does; return its token."""
        (self.folder / "agent.toml").write_text(AGENT.format(name=NAME, model=self.model))
        listed = self.folder / "token.csv"
        strop("fleet", "enrol", "new", "--name", NAME, "--out", listed, "--data", self.server.data)
        token = listed.read_text().splitlines()[1].rsplit(",", 1)[1]
        (self.folder / "token").write_text(f"{token}\n")
        strop(
            "flash", "image", base.build(self.folder / "published"), "--out", self.board.card, "--hostname", NAME,
            "--server", self.server.endpoints["enrol"], "--token-file", self.folder / "token",
            "--wheelhouse", wheelhouse, "--factory", self.folder / "1.0.0",
            "--agent-toml", self.folder / "agent.toml",
        )  # fmt: skip
        return token

    def roll_out(self, version):
        """Order a version for every device; return the rollout's number."""
        order = {"model": self.model, "waves": [{"rest": True}], "soak_s": 0.0, "timeout_s": 3 * BOUND_S}
        order |= {"bundle": self.versions[version], "probation": PLAN}
        return self.server.call("POST", "/rollouts", order)["id"]

    def is_under_way(self, number):
        """True while the device carries the order of a rollout out."""
        executions = self.server.call("GET", f"/rollouts/{number}")["executions"]
        return any(one["status"] == "IN_PROGRESS" for one in executions)

    def until_rollout(self, number, state, what):
        self.until(lambda: self.server.call("GET", f"/rollouts/{number}")["state"] == state, what)

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

    def runs(self, version):
        """True if the fleet sees the device, online, with this version running."""
        found = self.device()
        running = found.get("models", {}).get(self.model, {}).get("running")
        return bool(found.get("online")) and running == self.versions[version]

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


@pytest.fixture
def flashed(story, wheelhouse, capsys):
    """A story whose card was made and verified; nothing was switched on."""
    story.bundles()
    token = story.flash(wheelhouse)
    capsys.readouterr()
    strop("flash", "verify", story.board.card)
    verified = capsys.readouterr().out
    assert NAME in verified
    assert "firstrun" in verified
    assert token not in verified
    with capsys.disabled():
        yield story


def first_boot(story, since):
    """Wait for a first boot to come to its end; return the seconds to the first answer and to the fleet."""
    answered = story.heard(r"factory: .*golden exact", "the factory model answers") - since
    story.heard(r"enrol: .* is enrolled", "it is enrolled")
    story.until(lambda: story.runs("1.0.0"), "the fleet sees it run the factory model")
    seen = time.monotonic() - since
    story.heard(r"token: .* was overwritten and removed", "the token is gone")
    story.heard(rf"{NAME} is set up", "it is set up")
    return answered, seen


def test_a_card_becomes_a_device_that_is_updated_and_rolled_back_and_its_copy_does_not(flashed):
    story, server = flashed, flashed.server
    since = story.told("switched on")
    story.board.on()
    answered, seen = first_boot(story, since)
    story.told(f"first boot, emulated: first answer after {answered:.0f} s, in the fleet after {seen:.0f} s")
    assert seen < 3 * BOUND_S
    page = server.send("GET", f"/devices/{NAME}").text
    assert NAME in page
    assert "1.0.0" in page

    first = story.roll_out("1.1.0")
    story.until(lambda: story.runs("1.1.0"), "1.1.0 runs")
    story.until_rollout(first, "COMPLETED", "the rollout is COMPLETED")

    second = story.roll_out("1.2.0")
    story.until(lambda: story.is_under_way(second), "1.2.0 is under way")
    story.board.cut()
    story.told("power cut in the middle of the update")
    story.board.on()
    story.until(lambda: story.runs("1.2.0"), "1.2.0 runs after all")
    story.until_rollout(second, "COMPLETED", "and is COMPLETED")
    server.call("POST", f"/rollouts/{second}/rollback", {"reason": "a wish"})
    story.until_rollout(second, "ROLLED_BACK", "rolled back")
    assert story.runs("1.1.0")
    story.board.cut()
    listing = base.run("mdir", "-b", "-i", f"{story.board.card}@@{base.BOOT_AT}", "::strop")
    assert "plan.json" in listing
    assert "token" not in listing.lower()
    a_copy_is_quarantined(story)


def a_copy_is_quarantined(story):
    """Copy the card into a second board: it puts the identity aside, and never speaks as the first one."""
    copy = story.folder / "copy.img"
    base.run("cp", "--sparse=always", story.board.card, copy)
    other = Board(copy, story.folder / "copy.txt", serial="10000000ffffffff")
    other.on()
    try:
        story.told("a copy of the card starts on another board")
        other.until_said(r"Reached target.*Login Prompts", 3 * BOUND_S)
        end = time.monotonic() + 3 * BOUND_S
        while "identity.quarantined-1" not in (found := base.names(copy, "/var/lib/strop", story.folder / "look")):
            assert time.monotonic() < end, found
            time.sleep(5.0)
    finally:
        other.cut()
    assert "identity" not in found
    assert not story.device().get("online"), "the copy spoke as the device whose card it is"
    story.told("the copy put the identity aside")
    story.board.on()
    story.until(lambda: story.runs("1.1.0"), "the card in its own board is the device still")


MOMENTS = (r"first system", r"from Kernel Command Line", r"step 3 of 11", r"step [4-7] of 11", r"enrol: .*Next attempt")
"""What a board says before its power is cut; up to half a minute later."""


def test_a_first_boot_whose_power_fails_again_and_again_comes_to_its_end(flashed):
    story, chance = flashed, random.Random(20261121)
    story.server.stop()  # nobody answers while the board sets itself up
    since = story.told("switched on, without a server")
    story.board.on()
    begin = 0
    for number, moment in enumerate(MOMENTS, 1):
        story.heard(moment, f"start {story.board.starts}: {moment}", after=begin)
        time.sleep(chance.uniform(0, 30))
        story.board.turn()
        story.board.cut()
        story.told(f"power cut {number}")
        begin = len(story.board.said())
        story.board.on()
    story.heard(r"enrol: .*The factory model goes on", "the factory model answers, without a server", after=begin)
    story.server.start(*story.words)
    _, seen = first_boot(story, since)
    story.told(f"with {len(MOMENTS)} power cuts: in the fleet after {seen:.0f} s")


def test_a_card_in_a_raspberry_pi_3_answers_without_any_network(flashed):
    story = flashed
    story.server.stop()
    pi = story.board = Board(story.board.card, story.folder / "pi.txt", kind=PI_3, serial="00000000cafe0003")
    since = story.told("switched on: raspi3b")
    pi.on()
    answered = story.heard(r"factory: .*golden exact", "the factory model answers", 2 * 3 * BOUND_S) - since
    story.heard(r"enrol: .*The factory model goes on", "and goes on without a network")
    story.told(f"raspi3b, emulated: first answer after {answered:.0f} s")
