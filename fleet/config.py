# SPDX-License-Identifier: Apache-2.0
"""Settings of the fleet server: defaults < ``fleet.toml`` in the data folder < command line."""

import ipaddress
import json
import os
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from edge_contract import durable
from edge_contract.errors import StoreError, UsageError
from edge_contract.topics import is_name

__all__ = ["Endpoints", "FleetConfig", "load_config", "read_endpoints"]


@dataclass(frozen=True)
class FleetConfig:
    """Where the server listens and what it keeps.

    Attributes:
        host: Address of all listeners; loopback unless told otherwise.
        public_host: Name or address by which devices reach the server; empty means ``host``.
        http_port, device_port, enrol_port, mqtt_port: 0 takes any free port.
        allow_remote_http: Let the plain operator listener leave loopback.
        tenant: First level of the MQTT topics.
        retention_days: Telemetry older than this is deleted.
    """

    host: str = "127.0.0.1"
    public_host: str = ""
    http_port: int = 8080
    device_port: int = 8443
    enrol_port: int = 8444
    mqtt_port: int = 8883
    allow_remote_http: bool = False
    tenant: str = "default"
    retention_days: float = 30.0

    @property
    def advertised(self) -> str:
        """The host that devices are told."""
        return self.public_host or self.host


def is_loopback(host: str) -> bool:
    """True if only this machine can reach the address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def load_config(data: Path, **flags: Any) -> FleetConfig:
    """Return the settings; flags that are None are not given.

    Raises:
        UsageError: An unknown key, a value of the wrong type or out of range, or an unsafe combination.
    """
    path = data / "fleet.toml"
    written: dict[str, Any] = {}
    if path.exists():
        try:
            written = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"not TOML: {error}", where=str(path)) from error
    given = {key: value for key, value in flags.items() if value is not None}
    return _checked({**written, **given}, str(path) if written else "strop fleet serve")


def _checked(values: dict[str, Any], where: str) -> FleetConfig:
    default = FleetConfig()
    known = {f.name: type(getattr(default, f.name)) for f in fields(default)}
    for key, value in values.items():
        if key not in known:
            raise UsageError(f"unknown key '{key}'", where=where, fix=f"use one of {', '.join(known)}")
        kinds = (int, float) if known[key] is float else (known[key],)
        if not isinstance(value, kinds) or (isinstance(value, bool) and known[key] is not bool):
            raise UsageError(f"{key} = {value!r} is not a {known[key].__name__}", where=where)
    config = replace(default, **values)
    for key in ("http_port", "device_port", "enrol_port", "mqtt_port"):
        if not 0 <= getattr(config, key) <= 65535:
            raise UsageError(f"{key} = {getattr(config, key)} is not a port", where=where)
    if not is_name(config.tenant):
        raise UsageError(f"{config.tenant!r} is not a tenant name", where=where)
    if config.retention_days <= 0:
        raise UsageError(f"retention_days = {config.retention_days:g} is not positive", where=where)
    if config.host in ("0.0.0.0", "::") and not config.public_host:
        raise UsageError(f"devices cannot reach '{config.host}'", where=where, fix="add --public-host NAME")
    if not is_loopback(config.host) and not config.allow_remote_http:
        what = f"the operator listener is plain HTTP and would leave this machine ({config.host})"
        raise UsageError(what, where=where, fix="put TLS before it and add --allow-remote-http")
    return config


@dataclass(frozen=True)
class Endpoints:
    """Where a running server listens: ``<data>/endpoints.json``."""

    http: str
    device: str
    enrol: str
    broker_host: str
    broker_port: int
    pid: int

    def to_json(self) -> dict[str, Any]:
        broker = {"host": self.broker_host, "port": self.broker_port}
        return {"http": self.http, "device": self.device, "enrol": self.enrol, "broker": broker, "pid": self.pid}

    def write(self, data: Path) -> None:
        """Write the file, at once and whole."""
        durable.write(data / "endpoints.json", json.dumps(self.to_json(), indent=1).encode() + b"\n")


def read_endpoints(data: Path) -> Endpoints:
    """Return where the server of a data folder listens.

    Raises:
        StoreError: No server runs there.
    """
    fix = f"start it: strop fleet serve --data {data}"
    try:
        found = json.loads((data / "endpoints.json").read_text())
        broker = found["broker"]
        read = Endpoints(found["http"], found["device"], found["enrol"], broker["host"], broker["port"], found["pid"])
        os.kill(read.pid, 0)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError("no fleet server runs on this data folder", where=str(data), fix=fix) from error
    return read
