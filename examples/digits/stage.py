# SPDX-License-Identifier: Apache-2.0
"""The stage of the story: one fleet server and its devices, each a real process, ended with the story.

Everything a person would type is typed here too: the ``strop`` commands are printed as they run.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
from rich.console import Console

from edge_contract.errors import StropError
from examples.digits.wire import Wire

__all__ = ["Device", "Stage"]

T = TypeVar("T")
STOP_S = 10.0


@dataclass
class Device:
    """One device of the story: its name, its runtime, its folder, its cables and its process."""

    name: str
    runtime: str
    python: Path
    folder: Path
    wires: list[Wire] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    def cut(self) -> None:
        """Pull both cables: broker and downloads."""
        for wire in self.wires:
            wire.cut()

    def mend(self) -> None:
        """Put both cables back."""
        for wire in self.wires:
            wire.mend()


class Stage:
    """Starts the server and the devices, speaks to the server's API, and stops every process at the end."""

    def __init__(self, work: Path, console: Console, *, http_port: int = 0) -> None:
        self.work, self.console, self.http_port = work, console, http_port  # port 0: a free one
        self.server_data = work / "server"
        self.devices: dict[str, Device] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._http: httpx.Client | None = None
        self.logs = work / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def strop(self, *arguments: object, python: Path | None = None) -> str:
        """Run one ``strop`` command as a person would and return its standard output.

        Raises:
            StropError: It failed; carries its last line.
        """
        words = [str(argument) for argument in arguments]
        self.console.print(f"  [dim]$ strop {shlex.join(words)}[/dim]", highlight=False, soft_wrap=True)
        command = [_strop(python or Path(sys.executable)), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise StropError(lines[-1], where=f"strop {' '.join(words[:2])}")
        return done.stdout

    def serve(self) -> str:
        """Start ``strop fleet serve`` on loopback ports and return the address of its page."""
        words = ["fleet", "serve", "--data", str(self.server_data), "--http-port", str(self.http_port)]
        words += ["--device-port", "0", "--enrol-port", "0", "--mqtt-port", "0"]
        self.console.print(f"  [dim]$ strop {shlex.join(words)} &[/dim]", highlight=False, soft_wrap=True)
        self._server = self._spawn("server", [_strop(Path(sys.executable)), *words])
        endpoints = self.wait("the server is ready", self._ready_endpoints, seconds=90)
        token = (self.server_data / "operator.token").read_text().strip()
        self.endpoints = endpoints
        self._http = httpx.Client(
            base_url=endpoints["http"], headers={"Authorization": f"Bearer {token}"}, timeout=20.0, trust_env=False
        )
        return str(endpoints["http"])

    def _ready_endpoints(self) -> dict[str, Any] | None:
        server = self._server
        if server is not None and server.poll() is not None:
            lines = (self.logs / "server.log").read_text().strip().splitlines() or ["no word"]
            raise StropError(lines[-1], where="strop fleet serve")
        path = self.server_data / "endpoints.json"
        if not path.exists():
            return None
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def enrol(self, name: str, runtime: str, python: Path, settings: str, *, model: str = "digits") -> Device:
        """Enrol a device with a one-time token, put it behind two cables, and write its ``agent.toml``."""
        folder = self.work / "devices" / name
        folder.mkdir(parents=True, exist_ok=True)
        token = folder / "token"
        token.write_text(self.strop("fleet", "enrol", "new", "--data", self.server_data).strip() + "\n")
        words = ["--server", self.endpoints["enrol"], "--token-file", token, "--device", name, "--runtime", runtime]
        self.strop("agent", "enrol", "--data", folder, *words, python=python)
        broker = self.endpoints["broker"]
        device_url = httpx.URL(self.endpoints["device"])
        wires = [Wire(broker["host"], broker["port"]), Wire(device_url.host, device_url.port or 443)]
        (mqtt_host, mqtt_port), (web_host, web_port) = (wire.address for wire in wires)
        (folder / "agent.toml").write_text(
            f'device = "{name}"\ntenant = "default"\nmodel = "{model}"\nruntime = "{runtime}"\n'
            f'runner_python = "{python}"\n{settings}\n'
            f'[network]\nbroker = "{mqtt_host}:{mqtt_port}"\ndevice_url = "https://{web_host}:{web_port}"\n'
            "reconnect_max_s = 4\n"
        )
        device = self.devices[name] = Device(name, runtime, python, folder, wires)
        return device

    def start(self, device: Device) -> None:
        """Start a device's control process (it starts its runner by itself)."""
        words = ["-m", "edge_agent", "--data", str(device.folder)]
        line = shlex.join(["agent", "run", "--data", str(device.folder)])
        self.console.print(f"  [dim]$ strop {line} &[/dim]", highlight=False, soft_wrap=True)
        device.process = self._spawn(device.name, [str(device.python), *words])

    def _spawn(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with (self.logs / f"{name}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON answer of one call of the server's API.

        Raises:
            StropError: The server refused; carries its one line.
        """
        if self._http is None:
            raise StropError("the server was not started")
        try:
            answer = self._http.request(method, f"/api/v1/{path}", json=body)
        except httpx.HTTPError as error:
            raise StropError(f"the server did not answer: {error}", where=f"{method} {path}") from error
        if answer.is_error:
            raise StropError(f"{answer.status_code} {answer.text[:300]}", where=f"{method} {path}")
        return answer.json()

    def wait(self, claim: str, probe: Callable[[], T | None], *, seconds: float) -> T:
        """Return the first answer of ``probe`` that is neither None nor False.

        Raises:
            StropError: The claim did not come true in time, or a process of the story died.
        """
        end = time.monotonic() + seconds
        while True:
            answer = probe()
            if answer is not None and answer is not False:
                return answer
            self.check_alive()
            if time.monotonic() > end:
                raise StropError(f"waited {seconds:.0f} s in vain until {claim}", fix=f"look into {self.logs}")
            time.sleep(0.2)

    def check_alive(self) -> None:
        """Raise StropError if the server or a device ended by itself."""
        started = {"server": self._server, **{name: device.process for name, device in self.devices.items()}}
        for name, process in started.items():
            if process is not None and process.poll() is not None:
                raise StropError(f"{name} ended with code {process.returncode}", where=str(self.logs / f"{name}.log"))

    def close(self) -> None:
        """Stop devices, then the server, then the cables."""
        running = [device.process for device in self.devices.values() if device.process] + [self._server]
        for process in running[:-1]:
            _stop(process)
        _stop(running[-1])
        for device in self.devices.values():
            for wire in device.wires:
                wire.close()
        if self._http is not None:
            self._http.close()


def _strop(python: Path) -> str:
    """Return the command that is installed beside an interpreter."""
    return str(python.parent / "strop")


def _stop(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
