# SPDX-License-Identifier: Apache-2.0
"""``agent.toml``: what a person decides about a device; and where the enrolment says that the server is."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge_agent import bench_config, lanes_config, privacy_config, storage_config
from edge_agent import toml_words as words
from edge_agent import updates_config as updates
from edge_agent.adapters.conditions import Watched
from edge_agent.core.settings import POLICY, Settings
from edge_agent.core.twin import merge
from edge_agent.lanes_config import LANE_KEYS, LaneConfig
from edge_contract import canonical
from edge_contract.errors import ContractError, UsageError

__all__ = ["AGENT_VERSION", "AgentConfig", "check", "load", "skeleton"]

AGENT_VERSION: Final = "0.1.0"

_TOP: Final = (
    "device",
    "tenant",
    "model",
    *LANE_KEYS,
    "settings",
    "network",
    "sources",
    "updates",
    "models",
    "capture",
    "bench",
    "storage",
    "privacy",
)
_NETWORK: Final = ("broker", "device_url", "tls", "reconnect_max_s", "bandwidth_kbps")
_OWN_SETTINGS: Final = ("source", "window_inferences", "window_s", "heartbeat_s", "outbox_bytes")


@dataclass(frozen=True)
class AgentConfig:
    """One device's configuration.

    Attributes:
        device, tenant: Its name, and whose it is.
        lanes: One for each model, the first model's first; never empty.
        sources: Declared sources, name → specification.
        outbox_bytes: Most bytes in the outbox.
        broker: ``host:port``; empty before enrolment.
        device_url: Where TUF metadata and blobs are.
        tls: False only for a broker on loopback in a test.
        reconnect_max_s: Longest pause between two attempts to connect.
        watched: Files that say when an update has to wait.
        capture: Signed campaigns may bring raw inputs to the server; only a person at the device can say so.
        bench: Whether the fleet may measure models here; only a person at the device can say so.
        storage: What the disk has to keep to.
    """

    device: str
    tenant: str = "default"
    lanes: tuple[LaneConfig, ...] = (LaneConfig(),)
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    outbox_bytes: int = 16 * 1024 * 1024
    broker: str = ""
    device_url: str = ""
    tls: bool = True
    reconnect_max_s: float = 300.0
    watched: Watched = field(default_factory=Watched)
    capture: bool = False
    bench: bench_config.BenchRules = field(default_factory=bench_config.BenchRules)
    storage: storage_config.Limits = field(default_factory=storage_config.Limits)

    def lane(self, model: str) -> LaneConfig:
        """Return the lane of a model; the first one's for a model that has no table of its own."""
        return next((lane for lane in self.lanes if lane.model == model), self.lanes[0])

    @property
    def runtime(self) -> str:
        """The first model's runtime."""
        return self.lanes[0].runtime

    @property
    def runner(self) -> str:
        """How the first model is run."""
        return self.lanes[0].runner

    @property
    def runner_python(self) -> str:
        """The interpreter of the first model's runner."""
        return self.lanes[0].runner_python

    @property
    def model(self) -> str:
        """Name of the first model; empty: the first order names it."""
        return self.lanes[0].model

    @property
    def threads(self) -> int:
        """Threads of the first model's runtime."""
        return self.lanes[0].threads

    @property
    def settings(self) -> Settings:
        """The first model's settings, in force until the server says otherwise."""
        return self.lanes[0].settings


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
    words.known(document, _TOP, f"{path}")
    network = words.table(document, "network", path)
    words.known(network, _NETWORK, f"{path} [network]")
    broker = endpoints.get("broker") or {}
    found = f"{broker['host']}:{broker['port']}" if "host" in broker and "port" in broker else ""
    own = words.table(document, "settings", path)
    words.known(own, _OWN_SETTINGS, f"{path} [settings]")
    sources = _sources(words.table(document, "sources", path), path)
    rules = words.table(document, "updates", path)
    limit = {"bandwidth_kbps": words.whole(network, "bandwidth_kbps", 0, 0, path)}
    settings = _settings(own, {**updates.rules(rules, path), **limit}, frozenset(sources), path)
    settings = privacy_config.read(words.table(document, "privacy", path), settings, path)
    return AgentConfig(
        device=words.name(document, "device", "", path),
        tenant=words.name(document, "tenant", str(endpoints.get("tenant", "default")), path),
        lanes=lanes_config.read(document, settings, frozenset(sources), path),
        sources=sources,
        outbox_bytes=words.whole(own, "outbox_bytes", AgentConfig.outbox_bytes, 100_000, path),
        broker=words.text(network, "broker", found, path),
        device_url=words.text(network, "device_url", str(endpoints.get("device_url", "")), path).rstrip("/"),
        tls=network.get("tls", True) is not False,
        reconnect_max_s=float(words.whole(network, "reconnect_max_s", 300, 1, path)),
        watched=updates.watched(rules, path),
        capture=_capture(words.table(document, "capture", path), path),
        bench=bench_config.read(words.table(document, "bench", path), path),
        storage=storage_config.read(words.table(document, "storage", path), path),
    )


def _capture(table: Mapping[str, Any], path: Path) -> bool:
    """Return whether the person at the device allows captures: only a plain ``allowed = true`` does."""
    words.known(table, ("allowed",), f"{path} [capture]")
    allowed = table.get("allowed", False)
    if not isinstance(allowed, bool):
        raise UsageError(f"allowed = {allowed!r} is not true or false", where=f"{path} [capture]")
    return allowed


def _sources(table: Mapping[str, Any], path: Path) -> dict[str, Mapping[str, Any]]:
    for name, spec in table.items():
        if not isinstance(spec, dict) or not isinstance(spec.get("kind"), str):
            fix = f'write [sources.{name}] with kind = "replay"'
            raise UsageError(f"source '{name}' has no kind", where=str(path), fix=fix)
    return {name: dict(spec) for name, spec in table.items()}


def _settings(own: Mapping[str, Any], rules: Mapping[str, Any], sources: frozenset[str], path: Path) -> Settings:
    config = {key: value for key, value in own.items() if key != "outbox_bytes"}
    settings, ignored = merge(Settings(), {**config, **rules}, sources)
    for name, reason in ignored.items():
        raise UsageError(f"{name}: {reason}", where=f"{path} {'[updates]' if name in POLICY else '[settings]'}")
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
        "window_inferences = 1000",
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
