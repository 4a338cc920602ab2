# SPDX-License-Identifier: Apache-2.0
"""A whole fleet whose parts are killed: server, workers, broker, PostgreSQL; devices that just go on."""

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from edge_contract.batches import TelemetryAck, TelemetryBatch, TelemetryRow, encode_batch
from edge_contract.jobs import JobDocument, JobStatus, Signed
from edge_contract.messages import Birth, ModelState, ReportedState
from edge_contract.states import Phase, Status
from edge_contract.topics import topic
from fleet.adapters import tables
from fleet.adapters.stores import open_store
from tests.support.fleet_server import SERVE, FleetProcess, client, until

RESEND_S = 0.4
EVERY_S = 0.04
MOST_ROWS = 25


class Busy:
    """A device that keeps rows until ``tm/ack``, carries out orders, and reports again whenever it is told again."""

    def __init__(self, folder, name, address, seed):
        self.name, self.chance, self.boot, self.session = name, random.Random(seed), "b1", 0
        self.made, self.acked, self.sent_at = 0, 0, 0.0
        self.jobs: dict[str, bool] = {}
        self.slots = ModelState("", "", "", "", "")
        self.ending = threading.Event()
        self.client = client(folder, name)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect, self.client.on_message = self._connected, self._hear
        self.client.connect(*address, keepalive=10)
        self.client.loop_start()
        self.go_on()

    def go_on(self):
        """Make rows, from where it stopped."""
        self.ending.clear()
        self.thread = threading.Thread(target=self._send, daemon=True)
        self.thread.start()

    def _say(self, channel, payload, *, retain=False):
        self.client.publish(topic("default", self.name, channel), payload, qos=1, retain=retain)

    def _connected(self, connected, *_):
        connected.subscribe([(topic("default", self.name, channel), 1) for channel in ("job/next", "tm/ack")])
        self.session += 1
        board = {"machine": "x86_64", "model": "simulated"}
        birth = Birth(self.name, self.boot, self.session, "0.1.0", "litert", "2.3.0", board, time.time())
        self._say("state/birth", birth.to_bytes(), retain=True)
        self._report()

    def _report(self):
        models = {"digits": self.slots} if self.slots.running else {}
        outbox = {"rows": 0, "bytes": 0, "dropped": {}}
        state = (99, models, {"heartbeat_s": 10}, outbox, {"inferences": 0, "errors": 0}, time.time())
        self._say("twin/reported", ReportedState(self.name, self.boot, *state).to_bytes(), retain=True)

    def _hear(self, _client, _data, message):
        if message.topic.endswith("tm/ack"):
            ack = TelemetryAck.from_bytes(bytes(message.payload))
            assert ack.up_to_seq <= self.made
            self.acked, self.sent_at = max(self.acked, ack.up_to_seq), 0.0
        elif message.payload:
            job = JobDocument.from_bytes(Signed.from_bytes(bytes(message.payload)).payload)
            if job.kind == "install" and job.job_id not in self.jobs:
                self.jobs[job.job_id] = False
                self._status(job, Status.IN_PROGRESS, Phase.HEALTH_CHECK, 6)
                threading.Timer(self.chance.uniform(0.1, 1.0), self._finish, [job]).start()
            elif self.jobs.get(job.job_id):
                self._finish(job)

    def _finish(self, job):
        self.jobs[job.job_id] = True
        self.slots = ModelState(job.bundle, job.bundle, self.slots.running, "", job.version)
        self._report()
        self._status(job, Status.SUCCEEDED, Phase.DONE, 9)

    def _status(self, job, status, phase, seq):
        report = JobStatus(job.job_id, self.name, status, phase, seq, "", {}, time.time())
        self._say(f"job/{job.job_id}/status", report.to_bytes())

    def _send(self):
        while not self.ending.is_set() or self.acked < self.made:
            self.made += not self.ending.is_set()
            if self.acked < self.made and time.monotonic() - self.sent_at > RESEND_S:
                last = min(self.made, self.acked + MOST_ROWS)
                rows = tuple(TelemetryRow(i, float(i), {"n": i}) for i in range(self.acked + 1, last + 1))
                self.sent_at = time.monotonic()
                if rows and self.client.is_connected():
                    batch = TelemetryBatch(self.name, self.boot, "metric", rows[0].seq - 1, rows)
                    self._say("tm/metric", encode_batch(batch))
            time.sleep(EVERY_S)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


class Fleet:
    """Server without ingest, workers, a database that can be killed, and devices."""

    def __init__(self, folder: Path, postgres, bundles, *, devices=4, workers=2, seed=0):
        self.postgres, self.url = postgres, postgres.url(own=True) if postgres else ""
        self.chance, self.killed = random.Random(seed), []
        self.server = FleetProcess(folder / "server", folder / "keys")
        self.words = ["--no-ingest", *(["--database", self.url] if self.url else [])]
        self.server.start(*self.words)
        self.server.trust()
        self.ids = {v: self.server.register(bundle)["bundle"] for v, (bundle, _) in bundles.items()}
        found = self.server.endpoints
        ports = {name: found[name].rpartition(":")[2] for name in ("http", "device", "enrol")}
        self.address = found["broker"]["host"], found["broker"]["port"]
        ports["mqtt"] = str(self.address[1])
        self.words += [word for name, port in ports.items() for word in (f"--{name}-port", port)]
        self.workers = [self._worker() for _ in range(workers)]
        names = [f"d{i}" for i in range(devices)]
        for name in names:
            self.server.device(folder / name, name)
        self.devices = [Busy(folder / name, name, self.address, i) for i, name in enumerate(names)]

    def _worker(self):
        words = ["fleet", "worker", "--data", str(self.server.data), "--broker", f"{self.address[0]}:{self.address[1]}"]
        words += ["--database", self.url] if self.url else []
        with self.server.log.open("ab") as log:
            return subprocess.Popen([sys.executable, "-c", SERVE, *words], stdout=log, stderr=log)

    def kill(self, part: str) -> None:
        """SIGKILL to one part; what nobody else restarts is started again."""
        self.killed.append(part)
        if part == "server":
            self.server.kill()
            self.server.start(*self.words)
        elif part == "worker":
            at = self.chance.randrange(len(self.workers))
            self.workers[at].kill()
            self.workers[at].wait()
            self.workers[at] = self._worker()
        elif part == "postgres":
            self.postgres.kill()
            time.sleep(self.chance.uniform(0, 0.3))
            self.postgres.start()
        else:
            self._kill_broker()

    def _kill_broker(self) -> None:
        pid = int((self.server.data / "broker" / "broker.pid").read_text())
        with contextlib.suppress(OSError):  # it died with the server a moment ago
            if b"mosquitto" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)

    def roll_out(self, version: str) -> str:
        waves = [{"count": 1}, {"rest": True}]
        document = {"model": "digits", "bundle": self.ids[version], "waves": waves, "soak_s": 1}
        return self.server.call("POST", "/rollouts", document)["id"]

    def state(self, rollout: str) -> str:
        with contextlib.suppress(Exception):  # the server may be away at this moment
            return self.server.call("GET", f"/rollouts/{rollout}")["state"]
        return ""

    def settle(self, rollout: str, seconds=90.0) -> None:
        """Wait for the rollout's end and for every row's acknowledgement."""
        until(lambda: self.state(rollout) == "COMPLETED", f"the end of {rollout} ({self.killed})", seconds)
        for device in self.devices:
            device.ending.set()
        until(lambda: all(d.acked == d.made for d in self.devices), f"all acks ({self.killed})", seconds)

    def check(self, version: str) -> None:
        """Every row is there once, and every device runs what was rolled out."""
        store = open_store(self.server.data, self.url)
        try:
            statement = "SELECT seq FROM telemetry WHERE device = ? AND class = 'metric' ORDER BY seq"
            for device in self.devices:
                stored = store.read(lambda db, d=device: [row[0] for row in db.execute(statement, (d.name,))])
                assert stored == list(range(1, device.made + 1)), (device.name, self.killed)
            for record in store.read(tables.devices):
                assert record.running == {"digits": self.ids[version]}, (record.device, self.killed)
        finally:
            store.close()

    def close(self) -> None:
        for device in self.devices:
            device.ending.set()
            device.acked = device.made
            device.close()
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.server.close()


def parts(seed: int, postgres: bool):
    """An endless row of parts to kill, each as often as the others."""
    chance, names = random.Random(seed), ["worker", "server", "broker", *(["postgres"] if postgres else [])]
    for _ in itertools.count():
        chance.shuffle(names)
        yield from names
