# SPDX-License-Identifier: Apache-2.0
"""``python -m edge_agent --check --data DIR``: could this very software take this data folder over?

A release is asked before any pointer moves, by an older one: so the words ``--check --data DIR``, exit code 0 and one
JSON object with ``version`` on the last line of stdout stay as they are for ever. Nothing is changed on the disk.
"""

import importlib.util
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from edge_agent.config import AGENT_VERSION, AgentConfig, load
from edge_agent.core import agent
from edge_agent.core import effects as ef
from edge_agent.core import events as ev
from edge_agent.core.execution import SCHEMA
from edge_agent.core.lane import Identity, Lane, Plan
from edge_agent.lanes_config import LaneConfig
from edge_contract import PROTOCOL_VERSION, canonical
from edge_contract.errors import ContractError, StropError

__all__ = ["check", "main"]

PACKAGES: Final = {"onnxruntime": "onnxruntime", "litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}
HELPER: Final = ("tuf", "cryptography")


def check(data: Path) -> dict[str, Any]:
    """Return what this software says of itself.

    Raises:
        StropError: Configuration, journal or outbox cannot be read, or a package is missing; one line says which.
    """
    import edge_agent.app  # noqa: F401 - all that the control process imports

    config = load(data)
    _check_packages(config)
    _check_journal(data, config)
    _check_outbox(data)
    return {"version": AGENT_VERSION, "protocol": PROTOCOL_VERSION, "journal": SCHEMA, "device": config.device}


def _check_packages(config: AgentConfig) -> None:
    missing = [name for name in HELPER if importlib.util.find_spec(name) is None]
    for own in config.lanes:
        package = PACKAGES.get(own.runtime)
        if package and own.runner == "process" and not _has(own, package, sys.executable):
            missing.append(package)
    if missing:
        raise StropError(f"{', '.join(missing)} cannot be imported", where=f"release {AGENT_VERSION}")


def _has(own: LaneConfig, package: str, ours: str) -> bool:
    if own.runner_python == ours:
        return importlib.util.find_spec(package) is not None
    program = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([own.runner_python, "-P", "-c", program], check=False).returncode == 0


def _check_journal(data: Path, config: AgentConfig) -> None:
    """Boot the core on the journal in memory; its effects are thrown away."""
    path = data / "journal.json"
    try:
        journal = canonical.loads(path.read_bytes(), where=str(path))
    except FileNotFoundError:
        return
    plans = [_plan(own) for own in config.lanes]
    state = agent.initial(Identity(config.device, "check", config.runtime, AGENT_VERSION), plans=plans)
    model = config.model or str(journal.get("model", ""))
    booted = ev.Booted(ev.Instant(0.0, 0.0), model, ev.Slots(), journal, (), {}, software=ev.Software())
    state, effects = agent.handle(state, booted)
    for effect in effects:
        if isinstance(effect, ef.KeepRow) and b'"journal_unreadable"' in effect.body:
            raise ContractError(effect.body.decode()[:300], where=str(path), fix="install a release that reads it")
    _check_order(state.software, journal)


def _check_order(lane: Lane | None, journal: Any) -> None:
    """The order is in the journal while its release is asked; one that loses it could never report its end."""
    told = ((journal.get("software") or {}).get("update") or {}).get("execution")
    if told and (lane is None or lane.update.execution is None):
        raise ContractError("the order under way is not read", where="journal.json", fix="use another release")


def _plan(own: LaneConfig) -> Plan:
    return Plan(own.key, own.model, own.runtime, own.settings, own.runner == "process", own.rungs)


def _check_outbox(data: Path) -> None:
    path = data / "outbox.db"
    if not path.exists():
        return
    try:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            db.execute("SELECT boots.boot, cls, seq, time, body FROM rows JOIN boots ON boots.no = rows.boot LIMIT 1")
            db.execute("SELECT cls, rows FROM dropped LIMIT 1")
        finally:
            db.close()
    except sqlite3.Error as error:
        raise StropError(f"cannot read the outbox: {error}", where=str(path)) from error


def main(data: Path) -> int:
    """Print the answer as one line of JSON; exit code 0 if this software may take over."""
    print(json.dumps(check(data), sort_keys=True), flush=True)
    return 0
