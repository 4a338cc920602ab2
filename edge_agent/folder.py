# SPDX-License-Identifier: Apache-2.0
"""What a data folder says of its agent, read while the agent may be running: for ``status`` and ``doctor``."""

import fcntl
import shutil
import sqlite3
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_agent.adapters import identity, time_floor
from edge_agent.adapters.board import free_bytes
from edge_agent.adapters.slots import SlotStore
from edge_agent.config import AgentConfig, load
from edge_agent.counters import CounterFile
from edge_agent.lanes_config import LaneConfig
from edge_contract import canonical
from edge_contract.errors import ContractError, StropError

__all__ = ["Finding", "examine", "status"]

_PACKAGES: Final = {"onnxruntime": "onnxruntime", "litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}
_EXTRAS: Final = {"onnxruntime": "agent-onnx", "litert": "agent-litert", "tflite-runtime": "agent-tflite"}


def is_running(data: Path) -> bool:
    """True if an agent holds the folder."""
    try:
        with (data / "agent.lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _journal(data: Path) -> dict[str, Any]:
    try:
        document = canonical.loads((data / "journal.json").read_bytes())
        return document if isinstance(document, dict) else {}
    except (OSError, ContractError):
        return {}


def _outbox(data: Path) -> dict[str, Any]:
    """Return rows and bytes on disk per class, and what was dropped; rows of the last second are not there yet."""
    path = data / "outbox.db"
    if not path.exists():
        return {"rows": {}, "dropped": {}}
    try:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            rows = dict(db.execute("SELECT cls, count(*) FROM rows GROUP BY cls").fetchall())
            return {"rows": rows, "dropped": dict(db.execute("SELECT cls, rows FROM dropped").fetchall())}
        finally:
            db.close()
    except sqlite3.Error as error:
        return {"error": str(error)}


def status(data: Path) -> dict[str, Any]:
    """Return what is known of the agent of a data folder.

    Raises:
        UsageError: It has no configuration that can be read.
    """
    config = load(data)
    journal = _journal(data)
    found = [_lane(data, own, journal) for own in config.lanes]
    twin = journal.get("twin") or {}
    return {
        "device": config.device,
        "tenant": config.tenant,
        "is_running": is_running(data),
        "broker": config.broker,
        **found[0],
        "models": found if len(found) > 1 else [],
        "desired_version": twin.get("version", 0),
        "config": twin.get("config", {}),
        "outbox": _outbox(data),
        "certificate": identity.shown(data, config.device, time.time()),
        "clock": time_floor.quality(data / "tuf", time.time()),
        "quarantined": sorted(path.name for path in data.glob("identity.quarantined-*")),
    }


def _lane(data: Path, own: LaneConfig, journal: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of one model: its slots, its order under way, its last order, its answers."""
    model = own.model or str(journal.get("model", ""))
    memory = journal if journal.get("model") == model else (journal.get("lanes") or {}).get(model, {})
    slots, update = SlotStore(data / "models").read(model), memory.get("update") or {}
    execution, finished = update.get("execution"), update.get("finished")
    reading = CounterFile(own.counters(data, model)).read()
    return {
        "model": model,
        "runtime": own.runtime,
        "slots": {
            name: {"bundle": bundle, "version": slots.versions.get(bundle, "")}
            for name, bundle in (("active", slots.active), ("standby", slots.standby), ("factory", slots.factory))
        },
        "order": {"job_id": execution["job"]["job_id"], "phase": execution["phase"]} if execution else None,
        "last_order": _last(finished) if finished else None,
        "inferences": reading.counters.n_infer if reading else 0,
        "errors": reading.counters.n_err if reading else 0,
    }


def _last(finished: dict[str, Any]) -> dict[str, Any]:
    report = finished["report"]
    return {key: report[key] for key in ("job_id", "status", "phase", "reason")}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: is it right, and if not, the line that mends it."""

    name: str
    is_ok: bool
    text: str
    fix: str = ""


def examine(data: Path) -> list[Finding]:
    """Return what is right and what is missing for an agent over a data folder."""
    try:
        config = load(data)
    except StropError as error:
        return [Finding("agent.toml", is_ok=False, text=str(error))]
    found = [Finding("agent.toml", is_ok=True, text=f"device {config.device}, runtime {config.runtime}")]
    for own in {(lane.runner_python, lane.runtime): lane for lane in config.lanes}.values():
        found += _packages(own)
    if config.tls:
        found.append(_identity(data))
    found.append(_address(config))
    found += [_source(name, spec) for name, spec in config.sources.items()]
    free = free_bytes(data) // 1_000_000
    found.append(Finding("disk", free >= 64, f"{free} MB free", "" if free >= 64 else "free at least 64 MB"))
    return found


def _packages(config: LaneConfig) -> list[Finding]:
    python, extra = config.runner_python, _EXTRAS.get(config.runtime, "agent-tflite")
    packages = f"numpy, {_PACKAGES.get(config.runtime, 'tflite_runtime')}"
    if shutil.which(python) is None:
        return [
            Finding("runner", is_ok=False, text=f"{python} is not a program", fix="set runner_python in agent.toml")
        ]
    ended = subprocess.run(
        [python, "-c", f"import {packages}"], capture_output=True, text=True, timeout=60, check=False
    )
    if ended.returncode == 0:
        return [Finding("runner", is_ok=True, text=f"{python} has {packages}")]
    last = (ended.stderr.strip().splitlines() or ["it failed"])[-1]
    return [Finding("runner", is_ok=False, text=last, fix=f"{python} -m pip install 'strop[{extra}]'")]


def _identity(data: Path) -> Finding:
    folder = data / "identity"
    missing = [name for name in ("device.key", "device.crt", "ca.crt", "job.pub") if not (folder / name).is_file()]
    if missing:
        return Finding("identity", is_ok=False, text=f"{missing[0]} is missing", fix="strop agent enrol")
    mode = stat.S_IMODE((folder / "device.key").stat().st_mode)
    if mode & 0o077:
        fix = f"chmod 600 {folder / 'device.key'}"
        return Finding("identity", is_ok=False, text=f"device.key has mode {mode:o}: others can read it", fix=fix)
    return Finding("identity", is_ok=True, text="key, certificate, CA and job key are there")


def _address(config: AgentConfig) -> Finding:
    if config.broker and config.device_url:
        return Finding("server", is_ok=True, text=f"broker {config.broker}, files {config.device_url}")
    return Finding(
        "server", is_ok=False, text="no address: the agent infers, and keeps its telemetry", fix="strop agent enrol"
    )


def _source(name: str, spec: Any) -> Finding:
    path = spec.get("path")
    if path and not Path(str(path)).exists():
        fix = f"correct [sources.{name}] in agent.toml"
        return Finding(f"source {name}", is_ok=False, text=f"{path} does not exist", fix=fix)
    return Finding(f"source {name}", is_ok=True, text=str(path or spec.get("kind")))
