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
from fleet.core.broker_url import read_address, read_urls

__all__ = ["Endpoints", "FleetConfig", "load_config", "read_endpoints"]


@dataclass(frozen=True)
class FleetConfig:
    """Where the server listens and what it keeps.

    Attributes:
        host: Address of all listeners; loopback unless told otherwise.
        public_host: Name or address by which devices reach the server; empty means ``host``.
        http_port, device_port, enrol_port, mqtt_port: 0 takes any free port.
        plain_mqtt_port: Of a listener on loopback without certificates, for measuring; 0 for none.
        allow_remote_http: Let the plain operator listener leave loopback.
        page_tls: Speak TLS on the operator listener, with a certificate of the fleet's own CA.
        page_certificate, page_key: PEM files of a certificate that browsers trust, in place of the own one.
        open_viewing: Let everybody on this machine look without a login, even when there are accounts.
        session_idle_s, session_max_s: When a browser must log in again.
        tenant: First level of the MQTT topics.
        retention_days: Telemetry older than this is deleted; its hourly sums stay.
        rollup_days: Hourly sums older than this are deleted.
        database: ``postgresql://…``; SQLite in the data folder without it.
        ingest: Take telemetry in the server; false leaves it to ``strop fleet worker``.
        quarantine_clones: Put a device that is taken for cloned into quarantine without asking.
        false_alarms_per_device_year: How many false drift alarms a healthy device may give in a year at most; 0 takes
            limits that do not depend on how long a window is.
        device_metrics: Tell Prometheus series of each device; false in fleets where that are too many.
        broker: ``mqtts://…`` of a broker that others run, its nodes with commas; empty for an own mosquitto.
        device_broker: ``HOST:PORT`` of that broker for devices; empty for the first URL's.
        broker_ca: PEM of who signs that broker's certificate, or ``system``; empty for the fleet's own CA.
        broker_certificate, broker_key: What the server shows to it; empty for the pair of the fleet's own CA.
        broker_user: User name, where it asks for one; ``STROP_BROKER_USER`` goes before.
        broker_password_file: File with one line; ``STROP_BROKER_PASSWORD`` goes before.
    """

    host: str = "127.0.0.1"
    public_host: str = ""
    http_port: int = 8080
    device_port: int = 8443
    enrol_port: int = 8444
    mqtt_port: int = 8883
    plain_mqtt_port: int = 0
    allow_remote_http: bool = False
    page_tls: bool = False
    page_certificate: str = ""
    page_key: str = ""
    open_viewing: bool = False
    session_idle_s: float = 3600.0
    session_max_s: float = 43_200.0
    tenant: str = "default"
    retention_days: float = 30.0
    blobs: str = ""
    blobs_endpoint: str = ""
    rollup_days: float = 730.0
    database: str = ""
    ingest: bool = True
    quarantine_clones: bool = False
    false_alarms_per_device_year: float = 1.0
    device_metrics: bool = True
    broker: str = ""
    device_broker: str = ""
    broker_ca: str = ""
    broker_certificate: str = ""
    broker_key: str = ""
    broker_user: str = ""
    broker_password_file: str = ""

    @property
    def advertised(self) -> str:
        """The host that devices are told."""
        return self.public_host or self.host

    @property
    def has_page_tls(self) -> bool:
        """True if the operator listener speaks TLS."""
        return self.page_tls or bool(self.page_certificate)


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
    for key in ("http_port", "device_port", "enrol_port", "mqtt_port", "plain_mqtt_port"):
        if not 0 <= getattr(config, key) <= 65535:
            raise UsageError(f"{key} = {getattr(config, key)} is not a port", where=where)
    if config.plain_mqtt_port and not is_loopback(config.host):
        fix = "plain_mqtt_port is for measuring on one machine; devices use mqtt_port"
        raise UsageError(f"a broker without certificates beside devices on {config.host}", where=where, fix=fix)
    if not is_name(config.tenant):
        raise UsageError(f"{config.tenant!r} is not a tenant name", where=where)
    if not 0 <= config.false_alarms_per_device_year <= 1000:
        what = f"false_alarms_per_device_year = {config.false_alarms_per_device_year:g} is not between 0 and 1000"
        raise UsageError(what, where=where)
    for key in ("retention_days", "rollup_days"):
        if getattr(config, key) <= 0:
            raise UsageError(f"{key} = {getattr(config, key):g} is not positive", where=where)
    if config.host in ("0.0.0.0", "::") and not config.public_host:
        raise UsageError(f"devices cannot reach '{config.host}'", where=where, fix="add --public-host NAME")
    _check_page(config, where)
    _check_broker(config, where)
    return config


def _check_page(config: FleetConfig, where: str) -> None:
    """Refuse settings by which passwords would cross a network in the clear, or anybody may look from afar."""
    if not is_loopback(config.host) and not config.has_page_tls and not config.allow_remote_http:
        what = f"the operator listener is plain HTTP and would leave this machine ({config.host})"
        fix = "add --page-tls or a page_certificate; or put TLS before it and add --allow-remote-http"
        raise UsageError(what, where=where, fix=fix)
    if bool(config.page_certificate) != bool(config.page_key):
        raise UsageError("page_certificate and page_key go together", where=where)
    for path in filter(None, (config.page_certificate, config.page_key)):
        if not Path(path).is_file():
            raise UsageError(f"no such file: {path}", where=where)
    if config.open_viewing and not is_loopback(config.host):
        raise UsageError(f"open_viewing would let everybody look who reaches {config.host}", where=where)
    if not 0 < config.session_idle_s <= config.session_max_s:
        raise UsageError("session_idle_s must be positive and at most session_max_s", where=where)


def _check_broker(config: FleetConfig, where: str) -> None:
    """Refuse settings of a broker by URL that contradict each other."""
    if not config.broker:
        named = ("ca", "certificate", "key", "user", "password_file")
        keys = ("device_broker", *(f"broker_{name}" for name in named))
        if given := [key for key in keys if getattr(config, key)]:
            fix = "add broker = 'mqtts://HOST', or leave it out"
            raise UsageError(f"{given[0]} is for a broker by URL, and none is named", where=where, fix=fix)
        return
    urls = read_urls(config.broker, where=f"{where}, broker")
    if config.plain_mqtt_port:
        raise UsageError("plain_mqtt_port is for an own mosquitto, and broker names another", where=where)
    if config.device_broker:
        read_address(config.device_broker, f"{where}, device_broker")
    elif not urls.is_tls:
        fix = "devices speak TLS: name its listener, device_broker = 'HOST:8883'"
        raise UsageError("broker is without TLS, and device_broker is missing", where=where, fix=fix)
    if not urls.is_tls and not all(is_loopback(host) for host, _ in urls.addresses):
        fix = "use mqtts://"
        raise UsageError(f"telemetry and orders would leave this machine in the clear ({urls})", where=where, fix=fix)
    if bool(config.broker_certificate) != bool(config.broker_key):
        raise UsageError("broker_certificate and broker_key go together", where=where)
    given_ca = "" if config.broker_ca == "system" else config.broker_ca
    for path in filter(None, (given_ca, config.broker_certificate, config.broker_key, config.broker_password_file)):
        if not Path(path).is_file():
            raise UsageError(f"no such file: {path}", where=where)


@dataclass(frozen=True)
class Endpoints:
    """Where a running server listens: ``<data>/endpoints.json``.

    Attributes:
        page_certificate: The certificate that the operator listener shows, empty for plain HTTP.
        first_admin: The one-time link of the first admin; told once, never written.
    """

    http: str
    device: str
    enrol: str
    broker_host: str
    broker_port: int
    pid: int
    page_certificate: str = ""
    first_admin: str = ""

    def to_json(self) -> dict[str, Any]:
        broker = {"host": self.broker_host, "port": self.broker_port}
        found = {"http": self.http, "device": self.device, "enrol": self.enrol, "broker": broker, "pid": self.pid}
        return {**found, "page_certificate": self.page_certificate} if self.page_certificate else found

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
        listeners = (found["http"], found["device"], found["enrol"], broker["host"], broker["port"], found["pid"])
        read = Endpoints(*listeners, found.get("page_certificate", ""))
        os.kill(read.pid, 0)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError("no fleet server runs on this data folder", where=str(data), fix=fix) from error
    return read
