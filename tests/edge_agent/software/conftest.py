# SPDX-License-Identifier: Apache-2.0
import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.software import launch
from edge_agent.software.build import Order, Wheel, build
from edge_agent.software.store import ReleaseStore
from edge_contract import canonical
from edge_contract.jobs import JobDocument, JobStatus, Probation, Signed
from edge_contract.messages import SOFTWARE, SOFTWARE_ORDERS
from edge_contract.states import TERMINAL_STATUS
from tests.edge_agent.adapters.test_install import Blobs
from tests.edge_agent.runner import bundles, tiny
from tests.edge_agent.software import fakes
from tests.support.agent_process import Broker, Peer, configure, install, until
from tests.support.device_sim import job


class Hearer(Peer):
    """The server's side, which also keeps the reports on orders."""

    def __init__(self, port: int) -> None:
        self.statuses: list[JobStatus] = []
        super().__init__(port)

    def _hear(self, client: Any, user: Any, message: Any) -> None:
        if "/job/" in message.topic and message.topic.endswith("/status"):
            self.statuses.append(JobStatus.from_bytes(message.payload))
        super()._hear(client, user, message)

    @property
    def result(self) -> JobStatus | None:
        """How the last order ended, None while it has not."""
        ended = [status for status in self.statuses if status.status in TERMINAL_STATUS]
        return ended[-1] if ended else None

    def running(self) -> str | None:
        """The release that runs, by the device's own report."""
        found = self.reported.models.get(SOFTWARE) if self.reported else None
        return found.running if found else None


class Service:
    """Starts the launcher again whenever the process ends, as a service manager does; counts the starts."""

    def __init__(self, python: Path, data: Path, **environ: str) -> None:
        self._words = [str(python), "-P", "-m", "edge_agent.launcher", "--data", str(data), "--quiet"]
        self._environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | environ
        self.codes: list[int] = []
        self._is_over = False
        self._child = self._start()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(self._words, env=self._environ, stderr=subprocess.DEVNULL)

    @property
    def pid(self) -> int:
        return self._child.pid

    def _watch(self) -> None:
        while not self._is_over:
            code = self._child.wait()
            self.codes.append(code)
            time.sleep(0.1)
            if not self._is_over:
                self._child = self._start()

    def kill(self) -> None:
        """Kill the process once; it is started again."""
        self._child.kill()

    def close(self) -> None:
        self._is_over = True
        with contextlib.suppress(ProcessLookupError):
            self._child.terminate()
        self._thread.join(20)
        if self._child.poll() is None:
            self._child.kill()


class Ground:
    """A device with a model, a broker, a server that hears, and a release to order."""

    def __init__(self, folder: Path, python: Path, release: Path, server: Blobs) -> None:
        self.data, self.python, self.release = folder / "data", python, release
        self.manifest = fakes.manifest(release)
        self.bundle = self.manifest.bundle_id
        self._server, self._folder = server, folder
        self.services: list[Service] = []
        self.broker = Broker(folder)
        self.broker.start()
        self.peer = Hearer(self.broker.port)

    def prepare(self, model: Path, images: Path) -> None:
        configure(self.data, self.broker.port, images)
        config = self.data / "agent.toml"
        url = f"http://127.0.0.1:{self._server.server_port}"
        config.write_text(config.read_text().replace("tls = false", f'tls = false\ndevice_url = "{url}"'))
        install(self.data, model)
        size = (self.release / "manifest.json").stat().st_size
        signed = {self.bundle: size, **{f.sha256: f.size for f in self.manifest.files}}
        (self.data / "signed.json").write_text(json.dumps(signed))

    def have_environment(self, built: Path) -> None:
        """Let the release's wheels and environment be there, as after a build; it is examined all the same."""
        shutil.copytree(built / "software", self.data / "software", symlinks=True, dirs_exist_ok=True)

    def start(self, **environ: str) -> Service:
        self.services.append(Service(self.python, self.data, **environ))
        until(lambda: self.peer.reported is not None, "a report")
        return self.services[-1]

    def order(self, *, timeout_s: float = 8.0, number: int = 1) -> JobDocument:
        trial = Probation(inferences=1, timeout_s=timeout_s)
        named = {"model": SOFTWARE, "version": self.manifest.version, "probation": trial}
        document: JobDocument = job(f"j{number}", self.bundle, expires_at=4e9, **named)
        self.peer.say(SOFTWARE_ORDERS, Signed(document.to_bytes(), "key", "00").to_bytes(), retain=True)
        return document

    def fail(self, fault: str) -> None:
        (self.data / "fault").write_text(fault)

    @property
    def record(self) -> launch.Launch:
        return launch.read(self.data)

    def close(self) -> None:
        for service in self.services:
            service.close()
        self.peer.close()
        self.broker.kill()


@pytest.fixture(autouse=True)
def own_priority(monkeypatch):
    """A build lowers the priority of its process, which here is that of all tests after it."""
    monkeypatch.setattr(os, "nice", lambda step: step)


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path, Path]:
    """The installed software's interpreter, a release, a model and its inputs; do not change them."""
    folder = tmp_path_factory.mktemp("software")
    np.save(folder / "images.npy", tiny.images(100, seed=3))
    python, release = fakes.installed(folder / "factory"), fakes.real(folder / "new", "0.2.0")
    return python, release, bundles.build(folder / "model", profile=True), folder / "images.npy"


def order_of(data: Path, python: Path, release: Path, **changes: Any) -> Order:
    """Return what the helper is asked to make of a release; the wheels are where they were made."""
    manifest = fakes.manifest(release)
    wheels = tuple(
        Wheel(f.unrecognized["name"], f.unrecognized["version"], f.sha256, release / f.path) for f in manifest.files
    )
    return replace(Order(data, manifest.bundle_id, manifest.version, str(python), wheels), **changes)


def bare(data: Path) -> Path:
    """Return a data folder with a configuration and nothing else."""
    data.mkdir(parents=True, exist_ok=True)
    (data / "agent.toml").write_text('device = "pi"\nruntime = "litert"\n')
    return data


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, house: tuple[Path, Path, Path, Path]) -> Path:
    """A data folder with the release's wheels and its environment, built by pip; do not change it."""
    python, release, *_ = house
    data, manifest = bare(tmp_path_factory.mktemp("built") / "data"), fakes.manifest(release)
    store = ReleaseStore(data)
    shutil.copytree(release, store.partial(SOFTWARE, manifest.bundle_id), dirs_exist_ok=True)
    store.publish(SOFTWARE, manifest.bundle_id)
    said = build(order_of(data, python, release))
    assert said["version"] == "0.2.0"
    return data


@pytest.fixture
def blobs() -> Iterator[Blobs]:
    server = Blobs()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def ground(tmp_path: Path, house: tuple[Path, Path, Path, Path], blobs: Blobs) -> Iterator[Ground]:
    python, release, model, images = house
    for path in (p for p in release.rglob("*") if p.is_file()):
        blobs.blobs[canonical.digest(path.read_bytes())] = path.read_bytes()
    found = Ground(tmp_path, python, release, blobs)
    found.prepare(model, images)
    yield found
    found.close()
