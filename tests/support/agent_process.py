# SPDX-License-Identifier: Apache-2.0
"""A real agent process, a real mosquitto, and a peer that speaks the server's side of the contract with paho."""

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.adapters.slots import SlotStore
from edge_contract import topics
from edge_contract.batches import TelemetryAck, decode_batch
from edge_contract.manifest import MANIFEST_NAME, Manifest
from edge_contract.messages import Birth, DesiredState, ReportedState

PATIENCE_S = 60.0


def until(claim: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Return the first true value of a claim about other processes; fail when it does not come true."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        found = claim()
        if found:
            return found
        threading.Event().wait(0.05)
    raise AssertionError(f"never came true: {what}")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Broker:
    """Mosquitto on loopback, without TLS; ``start`` and ``kill`` as often as wanted on one port."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
        assert program, "apt-get install mosquitto"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._child = subprocess.Popen([program, "-c", str(self._config)], **quiet)  # type: ignore[call-overload]
        until(self._answers, "mosquitto answers")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None


class Peer:
    """The server's side for one device: hears everything, acknowledges rows when it may."""

    def __init__(self, port: int, device: str = "pi") -> None:
        self.rows: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
        self.copies = 0
        self.births: list[Birth] = []
        self.deaths: list[bytes] = []
        self.reported: ReportedState | None = None
        self.acked: dict[tuple[str, str], int] = {}
        self.acks = True
        self._device, self._lock = device, threading.Lock()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, f"peer-{port}-{id(self)}")
        self._client.on_message = self._hear
        self._client.connect("127.0.0.1", port)
        self._client.subscribe([(f, 1) for f in topics.server_filters("default")])
        self._client.loop_start()

    def _hear(self, _client: Any, _user: Any, message: paho.MQTTMessage) -> None:
        channel = topics.parse(message.topic).channel
        if channel == "state/birth":
            self.births.append(Birth.from_bytes(message.payload))
        elif channel == "state/death":
            self.deaths.append(message.payload)
        elif channel == "twin/reported":
            self.reported = ReportedState.from_bytes(message.payload)
        elif channel.startswith("tm/") and channel != "tm/ack":
            self._take(message.payload)

    def _take(self, payload: bytes) -> None:
        batch = decode_batch(payload)
        key = (batch.boot, batch.cls)
        with self._lock:
            known = self.rows.setdefault(key, {})
            for row in batch.rows:
                self.copies += row.seq in known
                assert known.get(row.seq, row.body) == row.body, "one number, two rows"
                known[row.seq] = row.body
            high = max(self.acked.get(key, 0), batch.after_seq)
            while high + 1 in known:
                high += 1
            if self.acks:
                self.acked[key] = high
        if self.acks:
            self.say("tm/ack", TelemetryAck(batch.boot, batch.cls, high).to_bytes())

    def say(self, channel: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(topics.topic("default", self._device, channel), payload, qos=1, retain=retain)

    def want(self, version: int, **config: Any) -> None:
        self.say("twin/desired", DesiredState(version, {}, config).to_bytes(), retain=True)

    def of(self, cls: str) -> list[dict[str, Any]]:
        """All bodies of a class, by boot in order of arrival, then by number."""
        with self._lock:
            return [rows[seq] for (_, name), rows in self.rows.items() if name == cls for seq in sorted(rows)]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class AgentProcess:
    """``python -m edge_agent`` over a data folder."""

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        self.child = subprocess.Popen(
            [sys.executable, *options, "-m", "edge_agent", "--data", str(data)],
            stderr=subprocess.DEVNULL,  # the log file has it, too
            cwd=Path(__file__).resolve().parents[2],
        )

    @property
    def log(self) -> str:
        path = self.data / "logs" / "agent.log"
        return path.read_text() if path.exists() else ""

    def runner_pid(self) -> int:
        """Return the runner's process id once there is one."""
        return int(until(lambda: _children(self.child.pid), "a runner")[0])

    def stop(self) -> int:
        self.child.send_signal(signal.SIGTERM)
        return self._ended()

    def kill(self) -> None:
        self.child.kill()
        self._ended()

    def _ended(self) -> int:
        return self.child.wait(timeout=PATIENCE_S)


def _children(pid: int) -> list[str]:
    """Return the child processes of every thread of a process."""
    found: set[str] = set()
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found |= set((task / "children").read_text().split())
    return sorted(found)


def install(data: Path, bundle: Path) -> str:
    """Put a bundle into the active slot, as an earlier order would have; return its id."""
    manifest = Manifest.from_bytes((bundle / MANIFEST_NAME).read_bytes())
    slots = SlotStore(data / "models")
    shutil.copytree(bundle, slots.partial(manifest.model, manifest.bundle_id), dirs_exist_ok=True)
    slots.publish(manifest.model, manifest.bundle_id)
    slots.flip(manifest.model, manifest.bundle_id, "")
    return manifest.bundle_id


def configure(data: Path, port: int, source: Path, *, rate_hz: int = 40, **settings: Any) -> None:
    """Write an agent.toml with two replay sources, for a broker without TLS."""
    values = {"source": '"first"', "window_inferences": 50, "heartbeat_s": 1, **settings}
    lines = ['device = "pi"', 'runtime = "litert"', "[network]", f'broker = "127.0.0.1:{port}"', "tls = false"]
    lines += ["reconnect_max_s = 1", "[settings]", *(f"{key} = {value}" for key, value in values.items())]
    for name in ("first", "second"):
        lines += [f"[sources.{name}]", 'kind = "replay"', f'path = "{source}"', f"rate_hz = {rate_hz}", "loop = true"]
    data.mkdir(parents=True, exist_ok=True)
    (data / "agent.toml").write_text("\n".join(lines) + "\n")


def rows_on_disk(data: Path, cls: str) -> list[tuple[int, int]]:
    """Return (boot number, sequence number) of the rows of a class that are committed."""
    path = data / "outbox.db"
    if not path.exists():
        return []
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return db.execute("SELECT boot, seq FROM rows WHERE cls=? ORDER BY boot, seq", (cls,)).fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        db.close()
