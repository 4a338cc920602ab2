# SPDX-License-Identifier: Apache-2.0
"""A real fleet server as a child process for measuring: its data folder, keys, a stand-in model, and inventory."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from edge_agent.adapters.enrol import enrol
from edge_contract import canonical
from edge_contract.errors import StropError
from edge_contract.manifest import Artefact, BundleFile, Manifest, TensorSpec
from edge_contract.messages import DesiredState
from edge_contract.preprocess import Preprocess
from edge_contract.profile import ReferenceProfile
from export.keys import signing
from fleet.adapters import credentials, tables
from fleet.adapters.broker import free_port
from fleet.adapters.database import Connection
from fleet.adapters.stores import open_store
from fleet.client import FleetClient, connect
from fleet.core.inventory import DeviceRecord

__all__ = ["Stage", "stand_in"]

_START_S: Final = 60.0
_LABELS: Final = tuple("0123456789")


def stand_in(
    folder: Path, version: str, size: int = 20_000, *, model: str = "digits", profile: ReferenceProfile | None = None
) -> str:
    """Write a bundle whose model file is bytes of the version, and return its id: nobody here runs it.

    Args:
        folder: To be made.
        version: Of the bundle.
        size: Of the model file, in bytes.
        model: Its name.
        profile: A reference profile to put in; without one drift cannot be judged.
    """
    labels = _LABELS if profile is None else profile.labels
    contents = {
        "golden.json": b"{}",
        "labels.txt": "".join(f"{name}\n" for name in labels).encode(),
        "model.tflite": (version.encode() * size)[:size],
    }
    if profile is not None:
        contents["profile.json"] = profile.to_bytes()
    folder.mkdir(parents=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    spec = TensorSpec("input", "input", (1, 14, 14, 1), "int8", "NHWC", 0.5, 0)
    logits = TensorSpec("logits", "logits", (1, len(labels)), "int8", "NC", 0.5, 0)
    manifest = Manifest(
        model=model,
        version=version,
        task="classification",
        preprocess=Preprocess.from_json({"resize": [14, 14], "scale": 0.25}),
        postprocess="softmax",
        labels=labels,
        artefacts=(Artefact("model.tflite", "tflite", ("litert",), "rpi4", "int8", "", spec, (logits,)),),
        golden="golden.json",
        profiles={} if profile is None else {"model.tflite": "profile.json"},
        lineage={"parent": "", **({"accuracy": {"top1": profile.accuracy, "n": profile.size}} if profile else {})},
        files=tuple(BundleFile(n, len(d), canonical.digest(d)) for n, d in sorted(contents.items())),
    )
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return manifest.bundle_id


class Stage:
    """A server on loopback over a folder of its own.

    Args:
        folder: Empty; everything lies in it.
        database: ``postgresql://…``, or empty for SQLite.
    """

    def __init__(self, folder: Path, database: str = "") -> None:
        self.folder, self.data, self.keys, self.database = folder, folder / "data", folder / "keys", database
        self.plain_port = free_port("127.0.0.1")
        self._process: subprocess.Popen[bytes] | None = None
        credentials.init(self.data, now=time.time())
        lines = [f"plain_mqtt_port = {self.plain_port}", "http_port = 0", "device_port = 0", "enrol_port = 0"]
        lines += ["mqtt_port = 0", *([f'database = "{database}"'] if database else [])]
        (self.data / "fleet.toml").write_text("\n".join(lines) + "\n")
        signing.create_keys(self.keys, (self.data / "tuf" / "online.pub").read_bytes())

    def take_in(self, names: Iterable[str]) -> None:
        """Write devices into the inventory, before the start: enrolling ten thousand is another measurement."""
        store = open_store(self.data, self.database)
        now = time.time()
        records = [DeviceRecord(name, now, desired=DesiredState(0, {}, {})) for name in names]

        def write(db: Connection) -> None:
            for record in records:
                tables.put_device(db, record)

        store.write(write)
        store.close()

    def start(self) -> "Stage":
        """Start the server and install the trust root.

        Raises:
            StropError: It did not start; its log is named.
        """
        self._launch()
        root = (self.keys / "root.json").read_bytes()
        self.client.call("PUT", "/trust/root", content=root)
        return self

    def _launch(self) -> None:
        (self.data / "endpoints.json").unlink(missing_ok=True)
        code = "from strop.cli import main; main()"
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, "fleet", "serve", "--data", str(self.data)], stdout=log, stderr=log
            )
        deadline = time.monotonic() + _START_S
        while not (self.data / "endpoints.json").exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise StropError("the server did not start", where=str(self.folder / "server.log"))
            time.sleep(0.05)
        self.endpoints = json.loads((self.data / "endpoints.json").read_text())

    @cached_property
    def client(self) -> FleetClient:
        """The operators' client; one for all calls, since each new one reads the system's certificates."""
        return connect(self.data, "", None)

    @property
    def pid(self) -> int:
        """Of the server."""
        assert self._process is not None
        return self._process.pid

    def broker_pid(self) -> int:
        """Of the broker; it changes when the server starts it again."""
        return int((self.data / "broker" / "broker.pid").read_text())

    def kill_broker(self) -> None:
        """Kill the broker at once; the server starts it again."""
        os.kill(self.broker_pid(), signal.SIGKILL)

    def register(self, version: str, *, model: str = "digits", profile: ReferenceProfile | None = None) -> str:
        """Sign and register a stand-in bundle, and return its id; arguments as of ``stand_in``."""
        folder = self.folder / f"bundle-{model}-{version}"
        bundle = stand_in(folder, version, model=model, profile=profile)
        targets = self.folder / f"targets-{model}-{version}.json"
        targets.write_bytes(signing.sign_bundle(self.keys, folder))
        self.client.add_model(folder, targets)
        return bundle

    def enrol(self, name: str) -> Path:
        """Enrol a device as the agent does, over HTTPS, and return its folder."""
        folder = self.folder / "devices" / name
        enrol(folder, self.endpoints["enrol"], self.client.call("POST", "/tokens")["token"], name)
        return folder

    def rollout(self, name: str) -> dict[str, Any]:
        """Return a rollout as the API shows it."""
        found: dict[str, Any] = self.client.call("GET", f"/rollouts/{name}")
        return found

    def waves(self, name: str) -> dict[str, Any]:
        """Return a rollout with its waves in numbers: what is asked again and again has to cost the server little."""
        return next(one for one in self.client.call("GET", "/rollouts") if one["id"] == name)

    def rss_mb(self, pid: int) -> float:
        """Return a process's resident memory in megabytes."""
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024 / 1e6
        return 0.0

    def cpu_s(self, pid: int) -> float:
        """Return the processor time that a process has taken, in seconds."""
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End the server; the folder stays."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
