# SPDX-License-Identifier: Apache-2.0
"""What the soak happens to: a real fleet server with its broker, and real agents behind bad cables, with inputs."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from edge_agent.adapters.enrol import enrol
from edge_contract.manifest import MANIFEST_NAME, Manifest
from tests.edge_agent.runner import bundles, tiny
from tests.edge_agent.soak.cable import Cable
from tests.edge_agent.soak.clock import Clock, build
from tests.support.fleet_server import FleetProcess

__all__ = ["BAD", "MODEL", "ROOT", "Board", "Stage"]

ROOT = Path(__file__).resolve().parents[3]
MODEL = "compass"
BAD = "9.0.0"
_VERSIONS = {"1.0.0": 2, "2.0.0": 2, BAD: 3}  # version → seed of its weights: the bad one disagrees with the others
_TICK_S = 0.1


@dataclass
class Board:
    """A device: its folder, cables, clock, process, and what its sensor laid before it."""

    name: str
    folder: Path
    clock: Clock
    cables: list[Cable]
    process: "subprocess.Popen[bytes] | None" = None
    produced: list[str] = field(default_factory=list)
    gone_at: dict[str, float] = field(default_factory=dict)
    kills: list[float] = field(default_factory=list)

    @property
    def inbox(self) -> Path:
        """Where the sensor's files appear."""
        return self.folder / "inbox"

    @property
    def data(self) -> Path:
        """The agent's data folder."""
        return self.folder / "data"

    def start(self) -> None:
        """Start the agent, as systemd would."""
        words = [sys.executable, "-m", "edge_agent", "--data", str(self.data)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
        self.process = subprocess.Popen(words, cwd=ROOT, env=self.clock.environment(), **quiet)  # type: ignore[call-overload]

    def runner(self) -> int:
        """Return the runner's process id, 0 where there is none."""
        found: set[str] = set()
        if self.process is not None:
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{self.process.pid}/task").iterdir():
                    found |= set((task / "children").read_text().split())
        for pid in found:
            with contextlib.suppress(OSError):
                if b"edge_agent.runner.process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return int(pid)
        return 0

    def kill(self) -> None:
        """Kill the agent, and wait until its runner is gone, too."""
        if self.process is not None:
            self.kills.append(time.monotonic())
            self.process.kill()
            self.process.wait()

    def kill_runner(self) -> bool:
        """Kill the runner; False where there is none."""
        pid = self.runner()
        if pid:
            self.kills.append(time.monotonic())
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(pid)

    def stop(self) -> int:
        """End the agent as systemd does; return its exit code."""
        if self.process is None or self.process.poll() is not None:
            return -1
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Stage:
    """A server with three versions of a model, and boards enrolled with it.

    Args:
        work: A new folder for everything.
        seed: For the inputs.
        rate_hz: Inputs a second for each board.
    """

    def __init__(self, work: Path, seed: int, rate_hz: float) -> None:
        self.work, self.rate_hz = work, rate_hz
        self.server = FleetProcess(work / "server", work / "keys")
        self.boards: dict[str, Board] = {}
        self.bundles: dict[str, str] = {}
        self._library = build(work)
        self._random = np.random.default_rng(seed)
        self._images = tiny.images(64, seed=seed)
        self._is_producing = threading.Event()
        self._closing = threading.Event()
        self._sensor = threading.Thread(target=self._produce, daemon=True, name="sensor")

    def open(self, *names: str) -> None:
        """Start the server, register the versions, enrol the boards and start their agents."""
        self.server.start()
        self.server.trust()
        for version, seed in _VERSIONS.items():
            folder = bundles.build(self.work / "bundles" / version, seed=seed, version=version, profile=True)
            self.server.register(folder)
            self.bundles[version] = Manifest.from_bytes((folder / MANIFEST_NAME).read_bytes()).bundle_id
        for name in names:
            self.boards[name] = self._board(name)
        self._sensor.start()

    def _board(self, name: str) -> Board:
        folder = self.work / name
        (folder / "inbox").mkdir(parents=True)
        token = self.server.call("POST", "/tokens")["token"]
        enrol(folder / "data", self.server.endpoints["enrol"], token, name)
        cables = [Cable(self._broker), Cable(self._web)]
        board = Board(name, folder, Clock(folder / "clock", self._library), cables)
        (board.data / "agent.toml").write_text(
            f'device = "{name}"\nruntime = "litert"\nmodel = "{MODEL}"\n'
            f'[settings]\nsource = "inbox"\nheartbeat_s = 2\nwindow_inferences = 200\n'
            f'[network]\nbroker = "127.0.0.1:{cables[0].port}"\n'
            f'device_url = "https://127.0.0.1:{cables[1].port}"\nreconnect_max_s = 5\n'
            f'[sources.inbox]\nkind = "folder"\npath = "{board.inbox}"\npoll_s = 0.2\nsettle_s = 0\n'
            'existing = true\nafter = "delete"\n'
        )
        board.start()
        return board

    def _broker(self) -> tuple[str, int]:
        found = self.server.endpoints["broker"]
        return found["host"], int(found["port"])

    def _web(self) -> tuple[str, int]:
        url = httpx.URL(self.server.endpoints["device"])
        return url.host, int(url.port or 443)

    def produce(self, is_on: bool) -> None:
        """Let the sensors lay down inputs, or not."""
        (self._is_producing.set if is_on else self._is_producing.clear)()

    def _produce(self) -> None:
        """Lay down files with names that never come again, and note when each is taken."""
        due, waiting = time.monotonic(), {name: set[str]() for name in self.boards}
        while not self._closing.wait(_TICK_S):
            now = time.monotonic()
            while due <= now:
                due += 1 / self.rate_hz
                if self._is_producing.is_set():
                    for name, board in self.boards.items():
                        waiting[name].add(self._lay(board))
            for name, board in self.boards.items():
                here = {path.name for path in board.inbox.iterdir()}
                for gone in waiting[name] - here:
                    board.gone_at[gone] = now
                waiting[name] &= here

    def _lay(self, board: Board) -> str:
        name = f"{len(board.produced):07d}.npy"
        hidden = board.inbox / f".{name}"
        with hidden.open("wb") as file:
            np.save(file, self._images[self._random.integers(len(self._images))])
        hidden.rename(board.inbox / name)
        board.produced.append(name)
        return name

    def call(self, method: str, path: str, document: Any = None) -> Any:
        """Return the answer of the server's API, None where the server is down just now.

        A refusal is an error: everything that is asked here is allowed.
        """
        try:
            return self.server.call(method, path, document)
        except httpx.HTTPError:
            return None

    def restart_server(self, pause_s: float) -> None:
        """Kill the server, and with it the broker, and start it again on other ports."""
        self.server.kill()
        time.sleep(pause_s)
        try:
            self.server.start()
        except AssertionError:  # not within a minute on a busy machine: once more
            self.server.kill()
            self.server.start()

    def kill_broker(self) -> None:
        """Kill the broker; the server starts another."""
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.server.data / "broker" / "broker.pid").read_text()), signal.SIGKILL)

    def close(self) -> None:
        """End everything."""
        self._closing.set()
        for board in self.boards.values():
            board.stop()
            for cable in board.cables:
                cable.close()
        self.server.close()

    def keep(self, facts: dict[str, Any]) -> None:
        """Write what was found."""
        (self.work / "soak.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")

    @staticmethod
    def clear(work: Path) -> None:
        """Make an empty folder."""
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
