# SPDX-License-Identifier: Apache-2.0
"""A real fleet server as a child process, and simulated devices that speak the real protocol to it over mTLS."""

import contextlib
import json
import queue
import signal
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.adapters.enrol import enrol
from edge_contract.batches import TelemetryAck, TelemetryBatch, TelemetryRow, encode_batch
from edge_contract.jobs import JobDocument, JobStatus, Signed
from edge_contract.messages import Birth, Death, DesiredState, ModelState, ReportedState
from edge_contract.states import Phase, Status
from edge_contract.topics import topic
from export.keys import signing

PATIENCE_S = 60.0
SERVE = "from strop.cli import main; main()"


def until(claim, what="a claim", seconds=PATIENCE_S):
    """Return the first true value of a function; fails when it stays untrue."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := claim():
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come true within {seconds:g} s")


class FleetProcess:
    """``strop fleet serve`` on free loopback ports."""

    def __init__(self, data: Path, keys: Path | None = None) -> None:
        self.data, self.keys = data, keys
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *words: str) -> "FleetProcess":
        (self.data / "endpoints.json").unlink(missing_ok=True)
        ports = [w for name in ("http", "device", "enrol", "mqtt") for w in (f"--{name}-port", "0")]
        command = [sys.executable, "-c", SERVE, "fleet", "serve", "--data", str(self.data), *ports, *words]
        self.data.mkdir(parents=True, exist_ok=True)
        self.log = self.data / "server.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(lambda: self.process.poll() is not None or (self.data / "endpoints.json").exists(), "the server's start")
        assert self.process.poll() is None, self.log.read_text()
        self.endpoints = json.loads((self.data / "endpoints.json").read_text())
        self.token = (self.data / "operator.token").read_text().strip()
        return self

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()

    def send(self, method: str, path: str, document: Any = None, *, token: str | None = None, **more) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token if token is None else token}"}
        if document is not None:
            more["json"] = document
        url = f"{self.endpoints['http']}{path}"
        return httpx.request(method, url, headers=headers, trust_env=False, timeout=30, **more)

    def call(self, method: str, path: str, document: Any = None, **more) -> Any:
        answer = self.send(method, f"/api/v1{path}", document, **more)
        assert answer.is_success, answer.text
        return answer.json()

    def trust(self) -> None:
        """Make the workstation's keys and install the root."""
        signing.create_keys(self.keys, (self.data / "tuf" / "online.pub").read_bytes())
        self.call("PUT", "/trust/root", content=(self.keys / "root.json").read_bytes())

    def register(self, folder: Path) -> dict[str, Any]:
        """Sign a bundle, upload its files and register it."""
        targets = signing.sign_bundle(self.keys, folder).decode()
        for path in (p for p in folder.rglob("*") if p.is_file()):
            data = path.read_bytes()
            import hashlib

            self.call("PUT", f"/blobs/{hashlib.sha256(data).hexdigest()}", content=data)
            if path.name == "manifest.json":
                bundle = hashlib.sha256(data).hexdigest()
        return self.call("POST", "/models", {"bundle": bundle, "targets": targets})

    def device(self, folder: Path, name: str) -> "SimulatedDevice":
        """Enrol a device through the real enrolment and connect it."""
        token = self.call("POST", "/tokens")["token"]
        enrol(folder, self.endpoints["enrol"], token, name)
        return SimulatedDevice(self, folder, name)


@dataclass
class SimulatedDevice:
    """A device without inference: enrolled, connected over mTLS, says what a test wants it to say."""

    server: FleetProcess
    folder: Path
    name: str
    boot: str = "boot1"
    session: int = 0
    seq: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.wanted: queue.Queue[int] = queue.Queue()
        self.slots = ModelState("", "", "", "", "")
        self.config: dict[str, Any] = {"heartbeat_s": 10}
        self.desired_version, self.inferences = 0, 0

    def connect(self) -> "SimulatedDevice":
        self.session += 1
        broker = self.server.endpoints["broker"]
        self.client = client(self.folder, self.name)
        self.client.on_message = self._hear
        connected = queue.Queue()
        self.client.on_connect = lambda c, _d, _f, _r, _p: c.subscribe(
            [(topic("default", self.name, channel), 1) for channel in ("twin/desired", "job/next", "tm/ack")]
        )
        self.client.on_subscribe = lambda *_: connected.put(True)
        death = Death(self.name, self.boot, self.session)
        self.client.will_set(topic("default", self.name, "state/death"), death.to_bytes(), qos=1, retain=True)
        self.client.connect(broker["host"], broker["port"], keepalive=30)
        self.client.loop_start()
        connected.get(timeout=PATIENCE_S)
        board = {"machine": "x86_64", "model": "simulated"}
        birth = Birth(self.name, self.boot, self.session, "0.1.0", "litert", "2.3.0", board, time.time())
        self.say("state/birth", birth.to_bytes(), retain=True)
        self.report()
        return self

    def _hear(self, _client, _data, message) -> None:
        self.heard.put((message.topic, bytes(message.payload)))
        if message.topic.endswith("twin/desired") and message.payload:
            self.wanted.put(DesiredState.from_bytes(bytes(message.payload)).version)

    def close(self) -> None:
        with contextlib.suppress(AttributeError):
            self.client.disconnect()
            self.client.loop_stop()

    def vanish(self) -> None:
        """Lose the connection without a word: the broker speaks the will."""
        self.client._sock_close()
        self.client.loop_stop()

    def say(self, channel: str, payload: bytes, *, retain: bool = False, device: str = "") -> None:
        name = topic("default", device or self.name, channel)
        self.client.publish(name, payload, qos=1, retain=retain).wait_for_publish(PATIENCE_S)

    def report(self, **changes: Any) -> None:
        """Send the heartbeat; changes are fields of the model's slots."""
        self.slots = replace(self.slots, **changes)
        while not self.wanted.empty():
            self.desired_version = self.wanted.get()
        models = {"digits": self.slots} if self.slots.running or changes else {}
        health = {"inferences": self.inferences, "errors": 0, "rss_kb": 24_000, "uptime_s": 60.0}
        outbox = {"rows": 0, "bytes": 0, "dropped": {}}
        state = (self.desired_version, models, self.config, outbox, health, time.time())
        self.say("twin/reported", ReportedState(self.name, self.boot, *state).to_bytes(), retain=True)

    def wait(self, channel: str, accept=lambda _: True, seconds: float = PATIENCE_S) -> bytes:
        """Return the next payload on a channel that is accepted; others are dropped."""
        wanted, deadline = topic("default", self.name, channel), time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                name, payload = self.heard.get(timeout=left)
                if name == wanted and accept(payload):
                    return payload
        raise AssertionError(f"{self.name} heard nothing fit on {channel}")

    def order(self, kind: str = "install") -> JobDocument:
        """Return the next order of a kind."""
        read = lambda payload: JobDocument.from_bytes(Signed.from_bytes(payload).payload)  # noqa: E731
        return read(self.wait("job/next", lambda payload: bool(payload) and read(payload).kind == kind))

    def status(self, job: str, status: Status, phase: Phase, seq: int, reason: str = "") -> None:
        report = JobStatus(job, self.name, status, phase, seq, reason, {}, time.time())
        self.say(f"job/{job}/status", report.to_bytes())

    def install(self, job: JobDocument, *, version: str = "") -> None:
        """Take an order to its good end, in the order in which a real device speaks."""
        self.status(job.job_id, Status.IN_PROGRESS, Phase.DOWNLOADING, 2)
        self.status(job.job_id, Status.IN_PROGRESS, Phase.HEALTH_CHECK, 6)
        self.report(running=job.bundle, active=job.bundle, standby=self.slots.active, version=version or job.version)
        self.status(job.job_id, Status.SUCCEEDED, Phase.DONE, 9)

    def fail(self, job: JobDocument, reason: str) -> None:
        """Take an order up, fail its probation and roll back."""
        self.status(job.job_id, Status.IN_PROGRESS, Phase.HEALTH_CHECK, 6)
        self.status(job.job_id, Status.FAILED, Phase.ROLLED_BACK, 9, reason)
        self.report()

    def rows(self, cls: str, bodies: list[dict[str, Any]], *, after: int | None = None) -> TelemetryBatch:
        """Return the next rows of a class as a batch, not sent yet."""
        last = self.seq.get(cls, 0)
        self.seq[cls] = last + len(bodies)
        made = tuple(TelemetryRow(last + 1 + i, time.time(), body) for i, body in enumerate(bodies))
        return TelemetryBatch(self.name, self.boot, cls, last if after is None else after, made)

    def send_batch(self, batch: TelemetryBatch) -> TelemetryAck:
        """Send a batch and return the acknowledgement that follows."""
        self.say(f"tm/{batch.cls}", encode_batch(batch))
        wanted = lambda payload: TelemetryAck.from_bytes(payload).cls == batch.cls  # noqa: E731
        return TelemetryAck.from_bytes(self.wait("tm/ack", wanted))


def client(folder: Path, client_id: str) -> mqtt.Client:
    """Return a client with the identity of a device's folder."""
    identity = folder / "identity"
    made = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv311)
    context = ssl.create_default_context(cafile=str(identity / "ca.crt"))
    context.load_cert_chain(identity / "device.crt", identity / "device.key")
    made.tls_set_context(context)
    return made
