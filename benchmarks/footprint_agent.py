# SPDX-License-Identifier: Apache-2.0
"""An agent to be measured: a real control process and runner over a bundle, a broker, and a server that acknowledges.

The data folder is below ``/var/tmp``, which is on a disk where ``/tmp`` is often memory: what is written there counts.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from benchmarks import footprint
from benchmarks.live import broker, ended, until
from benchmarks.machine import describe
from edge_contract import topics
from edge_contract.batches import TelemetryAck, decode_batch
from edge_contract.errors import MeasurementError, UsageError
from edge_contract.manifest import MANIFEST_NAME, Manifest

__all__ = ["Plan", "helper", "measure"]

_ROOT: Final = Path(__file__).resolve().parents[1]
_PACKAGES: Final = ("strop", "paho-mqtt", "numpy", "ai-edge-litert", "onnxruntime")


@dataclass(frozen=True)
class Plan:
    """What is measured, and how long.

    Attributes:
        bundle: A bundle's folder for an agent of ours; None measures the one that runs over ``data``.
        data: Data folder of a running agent.
        runtime: Of our agent's runner.
        rate_hz: Inferences a second of our agent on the bundle's golden inputs; 0 is idle, with the model loaded.
        is_offline: Our agent has no broker, as in months without a network.
        every_s, total_s, warmup_s: Pause between two looks, their whole time, and what passes before the first.
    """

    bundle: Path | None = None
    data: Path | None = None
    runtime: str = "litert"
    rate_hz: float = 0.0
    is_offline: bool = False
    every_s: float = 10.0
    total_s: float = 600.0
    warmup_s: float = 300.0


def measure(plan: Plan, command: str) -> dict[str, Any]:
    """Return the figures as ``footprint.to_text`` takes them.

    Raises:
        UsageError: Neither a bundle nor a running agent.
        MeasurementError: The agent does not start, or ended meanwhile.
    """
    if plan.data is not None:
        return _look(plan, _pid_of(plan.data), None, [_disk_note(plan.data)], command)
    if plan.bundle is None:
        raise UsageError("what is to be measured?", fix="name a bundle's folder, or --data of a running agent")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="strop-footprint-", dir="/var/tmp")))
        port = 0 if plan.is_offline else stack.enter_context(broker(folder))
        if port:
            stack.enter_context(_server(port))
        _prepare(folder / "data", plan, port)
        pid, ready_s = stack.enter_context(_agent(folder / "data"))
        notes = [_disk_note(folder), "" if port else "offline: no broker; rows go to the disk"]
        notes.append(
            "started without 'site', which in this editable install loads what no device has" if _is_editable() else ""
        )
        found = _look(plan, pid, ready_s, notes, command)
    return {**found, "processes": {**found["processes"], "helper": helper()}}


def _look(plan: Plan, pid: int, ready_s: float | None, notes: list[str], command: str) -> dict[str, Any]:
    time.sleep(plan.warmup_s)
    samples = footprint.watch(pid, every_s=plan.every_s, total_s=plan.total_s)
    return {
        "processes": footprint.report(samples),
        "ready_s": ready_s,
        "notes": [note for note in notes if note],
        "versions": {"python": sys.version.split()[0], **_versions()},
        "machine": str(describe()),
        "command": command,
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _pid_of(data: Path) -> int:
    """Return the control process of a data folder: it writes its number into its lock."""
    try:
        pid = int((data / "agent.lock").read_text())
    except (OSError, ValueError) as error:
        raise UsageError("no agent has run here", where=str(data), fix=f"strop agent run --data {data}") from error
    if footprint.sample("control", pid, 0.0) is None:
        fix = "start it, and measure as its user"
        raise UsageError(f"process {pid} is gone or another user's", where=str(data), fix=fix)
    return pid


def _disk_note(folder: Path) -> str:
    """Say that writes to memory are not counted, where the folder is on such a file system."""
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    path = str(folder.resolve())
    held = [one for one in mounts if path == one[0] or path.startswith(one[0].rstrip("/") + "/")]
    kind = max(held, key=lambda one: len(one[0]))[1] if held else ""
    return f"{folder} is on {kind}: nothing is written to a disk" if kind in ("tmpfs", "ramfs") else ""


@contextlib.contextmanager
def _server(port: int) -> Iterator[None]:
    """Acknowledge every row, as a fleet server does after its commit: else rows pile up on the disk."""
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    def hear(client: paho.Client, _user: Any, message: paho.MQTTMessage) -> None:
        if message.topic.endswith("/ack"):
            return
        batch = decode_batch(bytes(message.payload))
        ack = TelemetryAck(batch.boot, batch.cls, batch.rows[-1].seq)
        client.publish(topics.topic("default", "bench", "tm/ack"), ack.to_bytes(), qos=1)

    client = paho.Client(CallbackAPIVersion.VERSION2, "footprint-server")
    client.on_message = hear
    client.connect("127.0.0.1", port)
    client.subscribe("strop/v1/default/bench/tm/+", 1)
    client.loop_start()
    try:
        yield
    finally:
        client.disconnect()
        client.loop_stop()


def _prepare(data: Path, plan: Plan, port: int) -> None:
    """Write the data folder: the bundle in the active slot, and an agent.toml with the defaults of every device."""
    from edge_agent.adapters.slots import SlotStore

    assert plan.bundle is not None
    try:
        manifest = Manifest.from_bytes((plan.bundle / MANIFEST_NAME).read_bytes())
    except OSError as error:
        raise UsageError(f"not a bundle: {error.strerror}", where=str(plan.bundle)) from error
    slots = SlotStore(data / "models")
    shutil.copytree(plan.bundle, slots.partial(manifest.model, manifest.bundle_id), dirs_exist_ok=True)
    slots.publish(manifest.model, manifest.bundle_id)
    slots.flip(manifest.model, manifest.bundle_id, "")
    lines = ['device = "bench"', f"runtime = {json.dumps(plan.runtime)}"]
    lines += [f'[network]\nbroker = "127.0.0.1:{port}"\ntls = false'] if port else []
    if plan.rate_hz:
        inputs = json.dumps(str(plan.bundle.resolve() / "golden/inputs.npy"))
        lines += ['[settings]\nsource = "golden"', f'[sources.golden]\nkind = "replay"\npath = {inputs}']
        lines += [f"rate_hz = {plan.rate_hz}\nloop = true"]
    (data / "agent.toml").write_text("\n".join(lines) + "\n")


@contextlib.contextmanager
def _agent(data: Path) -> Iterator[tuple[int, float]]:
    """Start an agent; give its process id and the seconds until it said that it is ready."""
    log, quiet, environment = data / "logs" / "agent.log", subprocess.DEVNULL, _environment(data.with_name("bytecode"))
    words = [sys.executable, *(["-S"] if _is_editable() else []), "-m", "edge_agent", "--data", str(data), "--quiet"]
    began = time.monotonic()
    child = subprocess.Popen(words, cwd=_ROOT, env=environment, stdout=quiet, stderr=quiet)
    with ended(child):
        until(lambda: child.poll() is not None or " ready " in _text(log), "the agent")
        ready_s = time.monotonic() - began
        if child.poll() is not None:
            raise MeasurementError(f"the agent ended with code {child.returncode}: {_text(log)[-300:]}")
        yield child.pid, round(ready_s, 3)


def _is_editable() -> bool:
    """True if this package is run out of its source tree: ``site`` then loads an import hook that no device has."""
    try:
        told = metadata.distribution("strop").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return True
    return bool(told and json.loads(told).get("dir_info", {}).get("editable"))


def _environment(bytecode: Path) -> dict[str, str]:
    """Return the environment of our agent, as on a device: with the bytecode that pip makes when it installs.

    Compiling at the start would cost it a megabyte. Without ``site`` it has to be told where its packages are.
    """
    found = {**os.environ, "PYTHONPYCACHEPREFIX": str(bytecode)}
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    if _is_editable():
        paho = str(metadata.distribution("paho-mqtt").locate_file(""))
        found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), paho, os.environ.get("PYTHONPATH", "")]))
    words = [sys.executable, "-c", "import edge_agent.app, edge_agent.__main__, encodings.idna"]
    subprocess.run(words, cwd=_ROOT, env=found, check=True)
    return found


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace")
    return ""


def helper() -> dict[str, Any]:
    """Return the figures of one trust helper, at its largest: it loads TUF and ends."""
    with tempfile.TemporaryDirectory() as folder:
        request = {"op": "refresh", "data": folder, "base_url": "http://127.0.0.1:9", "targets": []}
        words, pipe = [sys.executable, "-m", "edge_agent.trust_helper"], subprocess.PIPE
        began = time.monotonic()
        with subprocess.Popen(words, cwd=_ROOT, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe) as child:
            assert child.stdin is not None
            child.stdin.write(json.dumps(request).encode())
            child.stdin.close()
            seen = []
            while child.poll() is None:
                seen.append(footprint.sample("helper", child.pid, time.monotonic() - began))
                time.sleep(0.01)
    return footprint.report([max((one for one in seen if one), key=lambda one: one.pss_kb)])["helper"]
