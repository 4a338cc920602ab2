# SPDX-License-Identifier: Apache-2.0
"""A whole fleet whose processes are killed: server, broker, worker, PostgreSQL; what died is started as systemd would.

One stage serves many kills in a row: starting it costs more than all that is done to it.
"""

import contextlib
import itertools
import os
import random
import signal
import ssl
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

from benchmarks.fleet.stage import Stage
from benchmarks.fleet.swarm.links import Swarm, Where
from edge_contract.errors import StropError
from fleet.adapters.broker import is_free
from tests.fleet.crash.witness import BATCH_S, GOOD, Witness
from tests.support.fleet_server import SERVE, until

VERSIONS = ("1.0.0", "2.0.0")
NAMES = ("secure", *(f"d{i}" for i in range(5)))
PATIENCE_S = 120.0


def lasting_ports(count: int) -> list[int]:
    """Return free ports below those that the system lends to anybody while a server is away."""
    chance = random.SystemRandom()
    candidates = (chance.randrange(15_000, 30_000) for _ in range(1000))
    return list(itertools.islice((port for port in candidates if is_free("127.0.0.1", port)), count))


class CrashStage(Stage):
    """A server on fixed ports, perhaps a worker and a PostgreSQL, and devices: most plain, one over mTLS.

    Args:
        folder: Empty.
        postgres: A server of its own, which is killed too; None for SQLite and no worker.
        seed: For victims and moments.
    """

    def __init__(self, folder: Path, postgres=None, *, seed: int = 0) -> None:
        super().__init__(folder, postgres.url(own=True) if postgres else "")
        self.postgres, self.chance, self.kills = postgres, random.Random(seed), []
        self.away_s = 0.3  # at most, between the end of the server or a worker and its next start
        names = ("http", "device", "enrol", "mqtt", "plain_mqtt")
        free = dict(zip(names, lasting_ports(len(names)), strict=True))
        self.plain_port = free["plain_mqtt"]
        ports = [f"{name}_port = {port}" for name, port in free.items()]
        kept = [line for line in (self.data / "fleet.toml").read_text().splitlines() if "_port = " not in line]
        kept += [*ports, "retention_days = 365", f"ingest = {str(postgres is None).lower()}"]
        (self.data / "fleet.toml").write_text("\n".join(kept) + "\n")
        self.take_in(NAMES[1:])
        self.start()
        self.bundles = {version: self.register(version) for version in VERSIONS}
        self.worker = self._start_worker() if postgres else None
        self._connect()

    def _connect(self) -> None:
        identity = self.enrol("secure") / "identity"

        @cache
        def context(_name: str) -> ssl.SSLContext:
            made = ssl.create_default_context(cafile=str(identity / "ca.crt"))
            made.load_cert_chain(identity / "device.crt", identity / "device.key")
            return made

        broker = self.endpoints["broker"]
        self.devices = {name: Witness(name, GOOD, BATCH_S, seed=i) for i, name in enumerate(NAMES)}
        for device in self.devices.values():
            device.running, device.version = self.bundles[VERSIONS[0]], VERSIONS[0]
        plain, secure = Where("127.0.0.1", self.plain_port), Where(broker["host"], broker["port"], context)
        lines = [(device, secure if name == "secure" else plain) for name, device in self.devices.items()]
        self.swarm = Swarm(lines, ramp_s=0.2)
        self.swarm.start()
        until(lambda: self.swarm.online == len(NAMES), "the devices' connections")

    def gather(self) -> None:
        """Wait until every device is connected: kills in a row teach the agent's back-off to wait for minutes."""
        for line in self.swarm._lines:
            line.attempt, line.connect_at = 0, min(line.connect_at, time.time() + self.chance.random())
        try:
            until(lambda: self.swarm.online == len(self.devices), "the devices' connections", PATIENCE_S)
        except AssertionError as error:
            away = [line for line in self.swarm._lines if not line.is_up]
            raise AssertionError(f"{away}, {self.swarm._thread}, {self.log}") from error

    @property
    def victims(self) -> tuple[str, ...]:
        """What can be killed."""
        return ("server", "broker", "worker", "postgres") if self.postgres else ("server", "broker")

    @property
    def log(self) -> str:
        """The server's last words."""
        return (self.folder / "server.log").read_text(errors="replace")[-3000:]

    def _start_worker(self) -> "subprocess.Popen[bytes]":
        host, port = self.endpoints["broker"]["host"], self.endpoints["broker"]["port"]
        words = ["fleet", "worker", "--data", str(self.data), "--broker", f"{host}:{port}"]
        with (self.folder / "worker.log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-c", SERVE, *words], stdout=log, stderr=log)

    def kill(self, victim: str) -> None:
        """SIGKILL to one process, and a start after a moment."""
        self.kills.append(victim)
        getattr(self, f"_kill_{victim}")()

    def _kill_server(self) -> None:
        self._process.kill()
        self._process.wait()
        time.sleep(self.chance.uniform(self.away_s / 2, self.away_s))
        until(self._is_launched, "the server's return", PATIENCE_S)

    def _is_launched(self) -> bool:
        """Start it as systemd does: again, where PostgreSQL was killed meanwhile."""
        with contextlib.suppress(StropError):
            self._launch()
            return True
        return False

    def _kill_broker(self) -> None:
        """The server itself starts it again."""
        with contextlib.suppress(OSError, ValueError):  # it died with the server a moment ago
            pid = self.broker_pid()
            if b"mosquitto" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)

    def _kill_worker(self) -> None:
        self.worker.kill()
        self.worker.wait()
        time.sleep(self.chance.uniform(0, self.away_s))
        self.worker = self._start_worker()

    def _kill_postgres(self) -> None:
        self.postgres.kill()
        time.sleep(self.chance.uniform(0, 0.5))
        self.postgres.start()

    def ask(self, method: str, path: str, document=None):
        """Call the API, for as long as the server or its database is away."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.client.call(method, path, document)
            except StropError:
                if time.monotonic() > deadline:
                    raise
                if self._process.poll() is not None:  # it ended itself: PostgreSQL was away while it started
                    self._is_launched()
                time.sleep(0.2)

    def close(self) -> None:
        """End every process."""
        self.swarm.stop()
        if self.worker is not None:
            self.worker.kill()
            self.worker.wait()
        self.stop()
