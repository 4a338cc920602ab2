# SPDX-License-Identifier: Apache-2.0
"""A real fleet server with devices that drift; the loop's clock lets them work while it waits.

Training and bundling take minutes with a real model. Here both steps leave what they would leave: the bundle is small,
but it is signed, registered, rolled out and reported for real.
"""

import base64
import json
import queue
import shutil
import time

from edge_agent.capture import errand, ring
from edge_agent.capture.keeper import Keeper
from edge_contract.jobs import JobDocument, JobStatus, Signed
from edge_contract.messages import CAPTURES, SHADOW_TRIAL, ReportedState
from edge_contract.states import Phase, Status
from export.keys import teams
from fleet.client import connect
from strop.loop import model_steps
from strop.loop.config import Capture, Limits, LoopConfig, ModelConfig, Rollout
from strop.loop.server import Server
from tests.support.fleet_bundle import Matcher, profile_of, window, write_bundle
from tests.support.fleet_server import FleetProcess, until

SHIFT = 0.33
RULES = """
[[rule]]
channel = "production"
canary_healthy_hours = 0.000001
canary_devices = 1
"""
RETRAIN = "windows = 2\ndevices = 2\nshare = 0.0\ncool_down_s = 0\n"


class Actor:
    """A simulated device that answers orders, captures where it may, and sends windows of its world."""

    def __init__(self, world, device, *, allows, shift):
        self.world, self.device, self.allows, self.shift = world, device, allows, shift
        self.windows, self.fails, self.offered = 0, False, 0
        self.features = (SHADOW_TRIAL, *((CAPTURES,) if allows else ()))
        self.keeper = Keeper(device.folder, "digits")

    @property
    def name(self):
        return self.device.name

    def report(self, **changes):
        """Tell what runs, and what this device can do and allows."""
        self.device.report(**changes)
        who = (self.name, self.device.boot, self.device.desired_version)
        said = ReportedState(
            *who, {"digits": self.device.slots}, self.device.config, {}, {}, time.time(), features=self.features
        )
        self.device.say("twin/reported", said.to_bytes(), retain=True)

    def drift(self, count):
        """Send windows of the bundle that runs."""
        bodies = []
        for _ in range(count):
            self.windows += 1
            profile, running = self.world.profile, self.device.slots.running
            seen = {"seed": 40 + self.windows, "shift": self.shift}
            summary, _, _ = window(self.world.matcher, profile, self.name, running, self.windows, **seen)
            bodies.append({"bundle": running, "summary": base64.b64encode(summary.encode()).decode()})
        self.device.send_batch(self.device.rows("drift", bodies))

    def act(self):
        """Do what has been ordered, and send what was captured."""
        while True:
            try:
                topic, payload = self.device.heard.get_nowait()
            except queue.Empty:
                break
            if topic.endswith("job/next") and payload:
                self.order(JobDocument.from_bytes(Signed.from_bytes(payload).payload))
        if self.allows and self.world.campaigns():
            self._capture()

    def _capture(self):
        folder, now = self.device.folder, time.time()
        errand.run(folder, self.name, now, allowed=True, may_send=True)
        if ring.read_order(folder) is not None and self.world.per_look:
            raw, _ = self.world.matcher.draw(self.world.per_look, seed=900 + self.offered, shift=self.shift)
            self.offered += 1
            self.keeper._looked = float("-inf")
            for image in raw:
                self.keeper.offer(image, confidence=0.5, cls=1)
            errand.run(folder, self.name, now, allowed=True, may_send=True)

    def order(self, job):
        """Carry out an order to the end that the test wants."""
        if job.kind == "none" or job.bundle == self.device.slots.running:
            return
        if job.kind == "shadow":
            told = {"compared": 50, "agreement": 0.95}
            said = JobStatus(job.job_id, self.name, Status.SUCCEEDED, Phase.DONE, 9, "", told, time.time())
            self.device.say(f"job/{job.job_id}/status", said.to_bytes())
        elif self.fails:
            self.device.fail(job, "probation: 9 of 20 inferences failed")
            self.report()
        else:
            self.device.install(job)
            self.report()
            self.drift(1)


class World:
    """The server, its devices, and a folder for the loop's runs."""

    def __init__(self, folder):
        self.folder, self.matcher = folder, Matcher()
        self.profile = profile_of(self.matcher)
        self.server = FleetProcess(folder / "server", folder / "keys")
        self.actors, self.per_look, self.said, self.hooks = {}, 10, [], []

    def open(self):
        """Start the server with one registered bundle, and three devices that run it."""
        self.server.data.mkdir(parents=True)
        (self.server.data / "rules.toml").write_text(RULES)
        (self.server.data / "retrain.toml").write_text(RETRAIN)
        self.server.start()
        self.server.trust()
        self.parent = write_bundle(self.folder / "one", "1.0.0", self.profile)
        self.server.register(self.folder / "one")
        for name, allows, shift in (("pi-calm", False, 0.0), ("pi-mute", False, SHIFT), ("pi-stray", True, SHIFT)):
            device = self.server.device(self.folder / name, name).connect()
            self.actors[name] = Actor(self, device, allows=allows, shift=shift)
            self.actors[name].report(running=self.parent, active=self.parent, version="1.0.0")
        return self

    def fresh(self):
        """Begin a test: devices do as they are told, nothing is planned."""
        self.hooks, self.said, self.per_look = [], [], 10
        for actor in self.actors.values():
            actor.fails = False

    def signal(self):
        """Let the alarms persist; return the number of the signal."""
        if not (found := self.server.call("GET", "/drift/signals")):
            for actor in self.actors.values():
                if actor.shift and actor.device.slots.running == self.parent:
                    actor.drift(3)
            found = until(lambda: self.server.call("GET", "/drift/signals"), "a signal")
        return found[0]["number"]

    def config(self, **changes):
        """Return settings with short times."""
        limits = {"minimum_inputs": 16, "wanted_inputs": 20, "poll_s": 0.05, "capture_s": 60.0, "verify_s": 20.0}
        limits |= changes.pop("limits", {})
        path = self.folder / "loop.toml"
        path.write_text("# of the test\n")
        fields = {
            "path": path,
            "runs": self.folder / "runs",
            "keys": self.folder / "keys",
            "data": self.server.data,
            "limits": Limits(**limits),
            "capture": Capture(random=1.0, per_device=200, collect_s=0.5),
            "rollout": Rollout(plan={"soak_s": 0.0, "timeout_s": 60.0}),
            "models": {"digits": ModelConfig(self.folder / "one")},
        }
        return LoopConfig(**{**fields, **changes})

    def loop_server(self, config):
        """Return the server as the loop sees it; while it waits, the devices act."""
        return Server(config, self.say, sleep=self.sleep)

    def say(self, text):
        self.said.append(text)

    def sleep(self, seconds):
        """Time passes: devices act, and what a test has planned happens."""
        for actor in self.actors.values():
            actor.act()
        for hook in self.hooks:
            hook()
        time.sleep(min(seconds, 0.05))

    def campaigns(self):
        """Return the captures; often asked, so by the command line's client, which loads no authorities for it."""
        return connect(self.server.data).call("GET", "/captures")

    def small_train(self, work):
        """Leave what a training leaves."""
        work.run.note("train", run=str(work.run.folder / "healed"))
        return "trained"

    def small_bundle(self, work):
        """Write and sign a small bundle with its lineage."""
        if "version" not in work.run.facts("bundle"):
            work.run.note("bundle", version=work.server.do(lambda client: model_steps.next_version(client, work)))
        out, lineage, version = work.run.folder / "bundle", work.run.lineage, work.run.facts("bundle")["version"]
        shutil.rmtree(out, ignore_errors=True)
        loop = {"signal": lineage["signal"], "captured": lineage["captured_sha256"]}
        made = write_bundle(out, version, self.profile, lineage={"parent": lineage["parent"], "loop": loop})
        teams.sign(work.config.keys, out)
        lineage.update(bundle=made, version=version)
        work.run.note("bundle", bundle=made)
        return f"digits {version}"

    def close(self):
        for actor in self.actors.values():
            actor.device.close()
        self.server.close()


def state_of(run):
    """Return step → state of a run on disk."""
    return {one["name"]: one["state"] for one in json.loads((run.folder / "run.json").read_text())["steps"]}
