# SPDX-License-Identifier: Apache-2.0
"""The only place that wires the fleet server: one process, one broker child, three listeners, one engine thread."""

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from edge_contract.enrolment import SERVER_NAME
from edge_contract.errors import StoreError, StropError
from fleet.adapters import broker, ca, credentials
from fleet.adapters.broker import BrokerFiles, Mosquitto, reachable
from fleet.adapters.delta_maker import DeltaMaker
from fleet.adapters.deltas import DeltaStore
from fleet.adapters.desk import Addresses
from fleet.adapters.external_broker import ExternalBroker, login
from fleet.adapters.feed import SWITCH_S, Feed
from fleet.adapters.ingest import Ingest
from fleet.adapters.judging import WindowJudge
from fleet.adapters.link import Hears, LinkFiles, ServerLink
from fleet.adapters.notify import Notifier
from fleet.adapters.operations import Operations
from fleet.adapters.pulse import Pulse
from fleet.adapters.s3_blobs import open_blobs
from fleet.adapters.stores import note_database, open_store
from fleet.config import Endpoints, FleetConfig
from fleet.web.bench_routes import bench_device_routes
from fleet.web.capture_api import capture_device_routes
from fleet.web.devices_api import devices_app
from fleet.web.enrol_api import enrol_app
from fleet.web.identity_api import identity_routes
from fleet.web.listening import Listener, bind, listener, url_of
from fleet.web.operator import operator_app
from fleet.web.peer import Denials, PeerProtocol
from fleet.web.site import Site, page_tls

__all__ = ["serve"]

_log = logging.getLogger("strop.fleet")

TICK_S = 1.0
HOUSEKEEPING_S = 60.0
SIGNALS_S = 5.0
DRIFT_S = 2.0


@contextlib.contextmanager
def _only_one(data: Path) -> Iterator[None]:
    """Hold the data folder's lock: two servers on one database would each order devices about."""
    with (data / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError("another fleet server runs on this data folder", where=str(data)) from error
        yield


class _Engine:
    """What is done each second, and what each minute."""

    def __init__(self, operations: Operations, config: FleetConfig, hears: Callable[[], bool]) -> None:
        self._operations, self._config, self._kept_house = operations, config, 0.0
        self._hears = hears

    def step(self) -> None:
        """Move rollouts on unless nobody can be heard, and look after the house."""
        if self._hears():  # else a deadline would pass that a device has kept
            self._operations.rollouts.tick()
        if time.monotonic() - self._kept_house < HOUSEKEEPING_S:
            return
        self._kept_house = time.monotonic()
        now = self._operations.clock()
        self._operations.trust.tuf.refresh(now)
        self._operations.promotion.step()
        before = now - self._config.retention_days * 86_400
        self._operations.retention.step(now, self._config.retention_days, self._config.rollup_days)
        self._operations.look_after(before)


class FleetServer:
    """Everything that runs, from the lock to the listeners; ``open`` undoes itself when a part fails.

    Args:
        data: The data folder.
        config: Where to listen.
    """

    def __init__(self, data: Path, config: FleetConfig) -> None:
        self._data, self._config, self._stack = data, config, contextlib.ExitStack()

    def open(self) -> Endpoints:
        """Start all but the listeners' loops, and return where they will answer.

        Raises:
            StropError: A port is busy, mosquitto is missing, the data folder is used or unreadable.
        """
        try:
            return self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop everything, in the reverse order of the start."""
        self._stack.close()

    def _open(self) -> Endpoints:
        data, config, stack = self._data, self._config, self._stack
        self._claim()
        certificate, key = ca.issue_server(data / "ca", config.advertised, now=time.time())
        self._tls = {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
        if not (revoked := data / "ca" / ca.REVOCATIONS).exists():
            ca.write_revocations(data / "ca", [], now=time.time())
        ca.issue_client(data / "ca", now=time.time())
        files = BrokerFiles(data / "ca" / "ca.crt", certificate, key, revoked)
        self._broker = self._broker_of(_resolved(files))
        stack.callback(self._broker.stop)
        self._broker.start()
        self._wire()
        return self._endpoints()

    def _broker_of(self, files: BrokerFiles) -> Mosquitto | ExternalBroker:
        data, config = self._data, self._config
        if config.broker:
            return ExternalBroker(config, login(config, data / "ca"))
        plain = config.plain_mqtt_port
        return Mosquitto(
            data / "broker",
            config.tenant,
            config.host,
            config.mqtt_port,
            files=files,
            plain_port=plain,
            name=config.advertised,
        )

    def _claim(self) -> None:
        """Take ports and folder before anything is written, so that a refusal leaves the disk as it was."""
        data, config, stack = self._data, self._config, self._stack
        is_used = (data / "lock").exists()
        if is_used:  # before the ports: another server on this folder holds those, too
            stack.enter_context(_only_one(data))
        self._sockets = [
            stack.enter_context(bind(config.host, port, option))
            for port, option in (
                (config.http_port, "--http-port"),
                (config.device_port, "--device-port"),
                (config.enrol_port, "--enrol-port"),
            )
        ]
        if not config.broker:
            broker.check(data / "broker", config.host, config.mqtt_port)
        credentials.init(data, now=time.time())
        if not is_used:
            stack.enter_context(_only_one(data))

    def _wire(self) -> None:
        data, config, stack = self._data, self._config, self._stack
        store = open_store(data, config.database, leader=True)
        stack.callback(store.close)
        note_database(data, config.database)
        blobs = open_blobs(data, config.blobs, config.blobs_endpoint)
        addresses = Addresses(config.tenant, *self._broker.told, url_of("https", config.advertised, self._sockets[1]))
        files = self._broker.files if isinstance(self._broker, ExternalBroker) else _own_files(data / "ca")
        # Names that nobody guesses: who connects under one of them would end our connection (MQTT 3.1.4).
        telemetry = Hears(state=False, member=f"strop-feed-{secrets.token_hex(4)}")
        self._feed = Feed(config.tenant, files, telemetry, self._heard, self._paused)
        self._link = ServerLink(
            config.tenant,
            files,
            on_message=self._heard,
            on_ready=self._republish,
            hears=Hears(telemetry=False, member=f"{SERVER_NAME}-{secrets.token_hex(4)}"),
        )
        self.operations = Operations(
            store,
            blobs,
            credentials.open_trust(data),
            addresses=addresses,
            clock=time.time,
            random_bytes=secrets.token_bytes,
            publish=lambda message: self._link.publish(message.topic, message.payload, retain=message.retain),
        )
        step = _Engine(self.operations, config, lambda: self._link.is_connected).step
        self._engine = Pulse("engine", TICK_S, step, "the engine's step failed")
        self._ingest = Ingest(
            store,
            WindowJudge(blobs, config.false_alarms_per_device_year),
            clock=time.time,
            publish=(self._feed if config.ingest else self._link).acknowledge,
            wake=self._engine.wake,
            identities=self.operations.identities,
            commands=self.operations.commands,
            tenant=config.tenant,
        )
        self.operations.standings.quarantine_clones = config.quarantine_clones
        self.operations.standings.false_alarms = config.false_alarms_per_device_year
        self.operations.letters.take = self._ingest.handle
        self._denials = Denials()
        self.operations.identities.on_revoked = self._cut_off
        self._link.start(*self._broker.reach)
        stack.callback(self._link.stop)
        stack.callback(self._ingest.stop)  # after the feed's end
        stack.callback(self._feed.stop)
        if config.ingest:
            self._ingest.start()
            self._feed.start(*self._broker.reach)
        self._engine.start()
        stack.callback(self._engine.stop)
        self._deltas = DeltaStore(data / "deltas")
        maker = DeltaMaker(store, blobs, self._deltas, data / "deltas")
        self.operations.desk.on_release = maker.wake
        maker.start()
        stack.callback(maker.stop)
        cohorts = Pulse("drift", DRIFT_S, self.operations.drift.run, "drift was not added up")
        self.operations.drift.is_driven = True
        cohorts.start()
        stack.callback(cohorts.stop)
        signals = Pulse("signals", SIGNALS_S, self.operations.signals.step, "drift signals could not be looked for")
        signals.start()
        stack.callback(signals.stop)
        notifier = Notifier(self.operations.alerts, store, time.time)
        notifier.start()
        stack.callback(notifier.stop)

    def _cut_off(self, device: str) -> None:
        """Let both listeners refuse what was revoked, and take a device's present connection away."""
        self._denials.reload(self._data / "ca" / ca.REVOCATIONS)
        self._broker.reload()
        self._link.take_over(device)

    def _heard(self, name: str, payload: bytes, retained: bool) -> None:  # noqa: FBT001 - paho's thread calls it
        self._ingest.hear(name, payload, retained)

    def _hears(self) -> bool:
        """Both connections to the broker stand: of orders and reports, and of telemetry."""
        return self._link.is_connected and (self._feed.is_connected or not self._config.ingest)

    def _paused(self) -> None:
        self._ingest.flush()

    def _republish(self) -> None:
        self.operations.rollouts.republish()

    def _endpoints(self) -> Endpoints:
        host, (http, device, enrol) = self._config.advertised, self._sockets
        return Endpoints(
            url_of("https" if self._config.has_page_tls else "http", reachable(self._config.host), http),
            url_of("https", host, device),
            url_of("https", host, enrol),
            *self._broker.told,
            os.getpid(),
            str(page_tls(self._config, self._tls).get("ssl_certfile", "")),
        )

    def listeners(self) -> list[tuple[Listener, socket.socket]]:
        """Return the three listeners with their sockets."""
        operations = self.operations
        token = credentials.operator_token(self._data)
        site = Site.of(self._config, self._data, token, self._hears, self._endpoints().enrol)
        operator = operator_app(operations, site)
        device_tls: dict[str, Any] = {
            "ssl_ca_certs": str(self._data / "ca" / "ca.crt"),
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
        }
        devices = devices_app(operations.trust.tuf, operations.blobs, self._deltas)
        devices.router.routes.extend(identity_routes(operations.identities))
        devices.router.routes.extend(capture_device_routes(operations.captures, operations.identities))
        routes = bench_device_routes(operations.benchmarks, operations.identities, operations.blobs)
        devices.router.routes.extend(routes)
        apps: tuple[tuple[Starlette, dict[str, Any]], ...] = (
            (operator, page_tls(self._config, self._tls)),
            (devices, {**self._tls, **device_tls, "http": PeerProtocol}),
            (enrol_app(operations), self._tls),
        )
        listeners = [(listener(app, tls), bound) for (app, tls), bound in zip(apps, self._sockets, strict=True)]
        self._denials.guard(listeners[1][0].config, operations.identities.deny())
        return listeners

    async def watch_broker(self) -> None:
        """Start the broker again whenever it has died; the link connects and republishes by itself."""
        while True:
            await asyncio.sleep(TICK_S)
            if self._broker.is_alive:
                continue
            _log.error("the broker has ended; it is started again")
            with contextlib.suppress(StropError):
                await asyncio.to_thread(self._broker.start)


def _own_files(folder: Path) -> LinkFiles:
    return LinkFiles(folder / "ca.crt", folder / f"{SERVER_NAME}.crt", folder / f"{SERVER_NAME}.key")


def _resolved(files: BrokerFiles) -> BrokerFiles:
    revoked = files.revoked.resolve() if files.revoked else None
    return BrokerFiles(files.ca.resolve(), files.certificate.resolve(), files.key.resolve(), revoked)


async def _run(server: FleetServer, on_ready: Callable[[], None]) -> None:
    listeners = server.listeners()
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = [asyncio.create_task(one.serve(sockets=[bound])) for one, bound in listeners]
    watching = asyncio.create_task(server.watch_broker())
    while not all(one.started for one, _ in listeners) and not any(task.done() for task in serving):
        await asyncio.sleep(0.01)
    on_ready()
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait([waiting, *serving], return_when=asyncio.FIRST_COMPLETED)
    watching.cancel()
    for one, _ in listeners:
        one.should_exit = True
    await asyncio.gather(*serving)
    waiting.cancel()


def serve(data: Path, config: FleetConfig, on_ready: Callable[[Endpoints], None]) -> None:
    """Run the fleet server until SIGTERM or Ctrl-C; the broker child ends with it.

    Args:
        data: The data folder; keys and database are made when it is new.
        config: Where to listen.
        on_ready: Called once with the real addresses, when all of them answer.

    Raises:
        StropError: It cannot start; nothing is left running.
    """
    sys.setswitchinterval(SWITCH_S)
    server = FleetServer(data, config)
    endpoints = server.open()

    def ready() -> None:
        told = replace(endpoints, first_admin=server.operations.accounts.first_link())
        endpoints.write(data)  # last: whoever reads it finds a server that has started
        on_ready(told)

    try:
        asyncio.run(_run(server, ready))
    finally:
        (data / "endpoints.json").unlink(missing_ok=True)
        server.close()
