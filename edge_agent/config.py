# SPDX-License-Identifier: Apache-2.0
"""``agent.toml``: what a person decides about a device; and where the enrolment says that the server is."""

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge_agent.core.twin import Settings, merge
from edge_contract import canonical
from edge_contract.errors import ContractError, UsageError
from edge_contract.manifest import RUNTIMES
from edge_contract.topics import is_name

__all__ = ["AGENT_VERSION", "AgentConfig", "check", "load", "skeleton"]

AGENT_VERSION: Final = "0.1.0"

_TOP: Final = ("device", "tenant", "runtime", "runner_python", "model", "threads", "settings", "network", "sources")
_NETWORK: Final = ("broker", "device_url", "tls", "reconnect_max_s", "bandwidth_kbps")
_OWN_SETTINGS: Final = ("source", "window_inferences", "window_s", "heartbeat_s", "outbox_bytes")


@dataclass(frozen=True)
class AgentConfig:
    """One device's configuration.

    Attributes:
        device, tenant: Its name, and whose it is.
        runtime: One of ``RUNTIMES``.
        runner_python: Interpreter of the runner; tflite-runtime needs one of its own.
        model: Name of its model; empty means that the first order names it.
        threads: Threads of the runtime.
        settings: Settings in force until the server says otherwise.
        sources: Declared sources, name → specification.
        outbox_bytes: Most bytes in the outbox.
        broker: ``host:port``; empty before enrolment.
        device_url: Where TUF metadata and blobs are.
        tls: False only for a broker on loopback in a test.
        reconnect_max_s: Longest pause between two attempts to connect.
        bandwidth_kbps: Limit for downloads in kilobytes per second, 0 for none.
    """

    device: str
    tenant: str = "default"
    runtime: str = "litert"
    runner_python: str = sys.executable
    model: str = ""
    threads: int = 1
    settings: Settings = field(default_factory=Settings)
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    outbox_bytes: int = 16 * 1024 * 1024
    broker: str = ""
    device_url: str = ""
    tls: bool = True
    reconnect_max_s: float = 300.0
    bandwidth_kbps: int = 0


def load(data: Path) -> AgentConfig:
    """Return the configuration of a data folder: ``agent.toml`` over ``identity/endpoints.json``.

    Raises:
        UsageError: No such file, not TOML, an unknown key, or a value that does not fit; names key and fix.
    """
    path = data / "agent.toml"
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        fix = "enrol this device: strop agent enrol --data DIR --server URL --token-file F --device NAME"
        raise UsageError("there is no agent.toml", where=str(data), fix=fix) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from error
    return _parse(document, _endpoints(data), path)


def check(text: str, where: str) -> None:
    """Raise UsageError unless a text may be an ``agent.toml``; ``where`` names it."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"not TOML: {error}", where=where, fix="leave quotes and backslashes out") from error
    _parse(document, {}, Path(where))


def _endpoints(data: Path) -> Mapping[str, Any]:
    path = data / "identity" / "endpoints.json"
    try:
        document = canonical.loads(path.read_bytes(), where=str(path))
    except FileNotFoundError:
        return {}
    except (OSError, ContractError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path), fix="enrol this device again") from error
    return document if isinstance(document, dict) else {}


def _parse(document: Mapping[str, Any], endpoints: Mapping[str, Any], path: Path) -> AgentConfig:
    _known(document, _TOP, f"{path}")
    network = _table(document, "network", path)
    _known(network, _NETWORK, f"{path} [network]")
    broker = endpoints.get("broker") or {}
    found = f"{broker['host']}:{broker['port']}" if "host" in broker and "port" in broker else ""
    own = _table(document, "settings", path)
    _known(own, _OWN_SETTINGS, f"{path} [settings]")
    sources = _sources(_table(document, "sources", path), path)
    return AgentConfig(
        device=_name(document, "device", "", path),
        tenant=_name(document, "tenant", str(endpoints.get("tenant", "default")), path),
        runtime=_runtime(document, path),
        runner_python=_text(document, "runner_python", "", path) or sys.executable,
        model=_name(document, "model", "", path, may_be_empty=True),
        threads=_whole(document, "threads", 1, 1, path),
        settings=_settings(own, frozenset(sources), path),
        sources=sources,
        outbox_bytes=_whole(own, "outbox_bytes", AgentConfig.outbox_bytes, 100_000, path),
        broker=_text(network, "broker", found, path),
        device_url=_text(network, "device_url", str(endpoints.get("device_url", "")), path).rstrip("/"),
        tls=network.get("tls", True) is not False,
        reconnect_max_s=float(_whole(network, "reconnect_max_s", 300, 1, path)),
        bandwidth_kbps=_whole(network, "bandwidth_kbps", 0, 0, path),
    )


def _known(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in keys:
            raise UsageError(f"unknown key '{key}'", where=where, fix=f"use one of {', '.join(keys)}")


def _table(document: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    table = document.get(key, {})
    if not isinstance(table, dict):
        raise UsageError(f"'{key}' is not a table", where=str(path), fix=f"write [{key}]")
    return table


def _text(table: Mapping[str, Any], key: str, default: str, path: Path) -> str:
    value = table.get(key, default)
    if not isinstance(value, str):
        raise UsageError(f"{key} = {value!r} is not text", where=str(path), fix=f'write {key} = "…"')
    return value


def _name(table: Mapping[str, Any], key: str, default: str, path: Path, *, may_be_empty: bool = False) -> str:
    value = _text(table, key, default, path)
    if not (is_name(value) or (may_be_empty and not value)):
        fix = "use letters, digits, '.', '_' and '-', at most 63"
        raise UsageError(f"{key} = {value!r} is no name", where=str(path), fix=fix)
    return value


def _whole(table: Mapping[str, Any], key: str, default: int, least: int, path: Path) -> int:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{key} = {value!r} is not a whole number from {least}", where=str(path))
    return value


def _runtime(document: Mapping[str, Any], path: Path) -> str:
    runtime = _text(document, "runtime", "litert", path)
    if runtime not in RUNTIMES:
        raise UsageError(f"runtime = {runtime!r} is unknown", where=str(path), fix=f"use one of {', '.join(RUNTIMES)}")
    return runtime


def _sources(table: Mapping[str, Any], path: Path) -> dict[str, Mapping[str, Any]]:
    for name, spec in table.items():
        if not isinstance(spec, dict) or not isinstance(spec.get("kind"), str):
            fix = f'write [sources.{name}] with kind = "replay"'
            raise UsageError(f"source '{name}' has no kind", where=str(path), fix=fix)
    return {name: dict(spec) for name, spec in table.items()}


def _settings(own: Mapping[str, Any], sources: frozenset[str], path: Path) -> Settings:
    config = {key: value for key, value in own.items() if key != "outbox_bytes"}
    settings, ignored = merge(Settings(), config, sources)
    for name, reason in ignored.items():
        raise UsageError(f"{name}: {reason}", where=f"{path} [settings]")
    return settings


def skeleton(device: str, runtime: str, model: str = "", runner_python: str = "") -> str:
    """Return a first ``agent.toml``; a person adds sources.

    Example:
        >>> tomllib.loads(skeleton("pi-01", "litert"))["device"]
        'pi-01'
    """
    lines = [
        "# The Strop agent of this device. Times are in seconds; see docs/agent.md.",
        f'device = "{device}"',
        f'runtime = "{runtime}"',
        f'model = "{model}"' if model else '# model = "NAME"              # else the first order names it',
        f'runner_python = "{runner_python}"' if runner_python else '# runner_python = "/path/python"  # else this one',
        "",
        "[settings]",
        '# source = "camera"             # one of the sources below',
        "window_inferences = 200",
        "window_s = 3600",
        "heartbeat_s = 10",
        "outbox_bytes = 16777216",
        "",
        "# [sources.camera]",
        '# kind = "replay"',
        '# path = "/path/frames.npy"',
        "# rate_hz = 10",
        "# loop = true",
    ]
    return "\n".join(lines) + "\n"
